//! The shapes of the events are a promise to whoever reads the ledger: a changed shape is a new
//! version with an upcaster, never an edit. The committed schemas in `docs/events/` hold us to
//! that.
//!
//! After adding an event or a version, write them anew with `PUNCHTRAIL_UPDATE=1 ./dev test -p
//! punchtrail-tests --test event_schemas`, and look at what changed.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{fs, path::Path};

use punchtrail_domain::{
    device::DeviceEvent, dispute::DisputeEvent, employee::EmployeeEvent, epoch::EpochEvent,
    punch::PunchEvent, quarantine::QuarantineEvent, site::SiteEvent,
};
use schemars::{JsonSchema, schema_for};

fn compare<E: JsonSchema>(aggregate: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/events")
        .join(format!("{aggregate}.json"));
    let schema = serde_json::to_string_pretty(&schema_for!(E)).unwrap() + "\n";
    if std::env::var_os("PUNCHTRAIL_UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &schema).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == schema,
        "the events of `{aggregate}` no longer have the shapes in {}",
        path.display()
    );
}

#[test]
fn the_events_have_the_shapes_that_are_committed() {
    compare::<PunchEvent>("punch");
    compare::<DeviceEvent>("device");
    compare::<SiteEvent>("site");
    compare::<EmployeeEvent>("employee");
    compare::<QuarantineEvent>("quarantine");
    compare::<EpochEvent>("epoch");
    compare::<DisputeEvent>("dispute");
}
