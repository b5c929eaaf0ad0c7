//! What the database shows: its version and settings, what follows the ledger, what waits, whose
//! access never ends, which devices are silent.

use std::time::Duration;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use punchtrail_domain::{policy::Policy, punch::Provider, site};
use punchtrail_infra::{
    access::{deployment::Deployment, keys, roles::Role, users},
    audit::checkpoint::Folder,
    devices,
    postgres::{Facts, Postgres, PostgresError, Schema},
    queue, sites,
};
use punchtrail_projections::{
    engine::{self, page::Order},
    rulings::quarantine::{self, Filter, ItemState},
};
use punchtrail_protocol::{Position, Time};

use super::{Findings, counted, some};
use crate::cli::{
    answer::whole,
    identity::Identity,
    look::Names,
    projection,
    source::{Opened, Source},
};

/// Whoever asks for a diagnosis wants it now, not after a failover.
const DATABASE_WAIT_MAX: Duration = Duration::from_secs(5);
/// A device that said nothing for so long is off, cut off, or gone.
const SILENT_MAX_MS: i64 = 86_400_000;
/// A key that ends within this should be replaced now.
const KEY_LEFT_MS: i64 = 14 * 86_400_000;
/// A checkpoint is due within seconds; after so long nobody signs.
const UNSIGNED_MAX_MS: i64 = 10 * 60_000;
/// The most items of the quarantine that are counted.
const WAITING_MAX: u32 = 1_000;
/// The oldest PostgreSQL that is still cared for, by when its care ends (postgresql.org/support).
const CARED_FOR: [(u32, Date); 6] = [
    (13, jiff::civil::date(2025, 11, 13)),
    (14, jiff::civil::date(2026, 11, 12)),
    (15, jiff::civil::date(2027, 11, 11)),
    (16, jiff::civil::date(2028, 11, 9)),
    (17, jiff::civil::date(2029, 11, 8)),
    (18, jiff::civil::date(2030, 11, 14)),
];

/// Looks at the database, and at all that is in it if its schema is this program's.
pub(super) async fn look(found: &mut Findings, source: &Source, identity: &Identity) {
    let postgres = match source.as_it_is(DATABASE_WAIT_MAX).await {
        Ok(postgres) => postgres,
        Err(error) => return refused(found, &error),
    };
    if let Err(error) = looked(found, source, identity, &postgres).await {
        found.wrong("database", whole(&error), "");
    }
    if let Err(error) = postgres.close().await {
        tracing::warn!(%error, "the database was left running");
    }
}

fn refused(found: &mut Findings, error: &anyhow::Error) {
    match error.downcast_ref::<PostgresError>() {
        Some(PostgresError::NotDurable { fault, setting, value, remedy }) => found.wrong(
            "database",
            format!("{setting} = {value}: {fault} could lose a punch that was acknowledged"),
            (*remedy).to_owned(),
        ),
        _ => found.wrong("database", whole(error), ""),
    }
}

async fn looked(
    found: &mut Findings,
    source: &Source,
    identity: &Identity,
    postgres: &Postgres,
) -> anyhow::Result<()> {
    server(found, &postgres.facts().await?);
    match postgres.schema().await? {
        Schema::Same => found.ok("schema", "as this program knows it"),
        Schema::Missing => {
            let cure = "Start with `punchtrail serve`, or correct where the data is";
            found.wrong("schema", "there is no ledger in this database", cure);
            return Ok(());
        }
        Schema::Older { behind } => {
            let what = format!("older than this program, by {}", counted(behind, "step", "steps"));
            let cure = "Make a backup, then start `punchtrail serve`, which brings it up to date";
            found.wrong("schema", what, cure);
            return Ok(());
        }
        Schema::Newer => {
            let cure = "Use that version, or a newer one: this one refuses to touch it";
            found.wrong("schema", "of a newer version than this program", cure);
            return Ok(());
        }
    }
    let opened = source.opened(postgres).await?;
    let looked = inside(found, &opened, identity).await;
    opened.close().await;
    looked
}

fn server(found: &mut Findings, facts: &Facts) {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let cared_for = CARED_FOR.iter().find(|(major, _)| *major == facts.major);
    let ended = match cared_for {
        Some((_, until)) => (*until < today).then_some(*until),
        None => CARED_FOR.first().filter(|(oldest, _)| facts.major < *oldest).map(|(_, at)| *at),
    };
    let mib = facts.bytes >> 20;
    let what = format!("PostgreSQL {}, {mib} MiB, every commit waits for the disk", facts.version);
    match ended {
        Some(until) => {
            let what = format!("PostgreSQL {} is cared for no more, since {until}", facts.version);
            found.wrong("database", what, "Move to a newer version with pg_upgrade");
        }
        None => found.ok("database", what),
    }
}

async fn inside(found: &mut Findings, opened: &Opened, identity: &Identity) -> anyhow::Result<()> {
    followers(found, opened).await?;
    checkpoint(found, opened).await?;
    let wants_faces = sites_of(found, opened).await?;
    faces(found, identity, wants_faces);
    devices_of(found, opened).await?;
    keys_of(found, opened).await?;
    admins(found, opened).await?;
    waiting(found, opened, identity).await
}

async fn followers(found: &mut Findings, opened: &Opened) -> anyhow::Result<()> {
    const CHECK: &str = "read models";
    let models = engine::generations(&opened.pools.reader).await?;
    let broken = models.iter().filter(|model| model.live && model.error.is_some());
    let broken: Vec<String> = broken.map(|model| model.name.clone()).collect();
    if !broken.is_empty() {
        let what =
            format!("{} can't go on: {}", counted(broken.len(), "model", "models"), some(&broken));
        found.wrong(
            CHECK,
            what,
            "`projection list` shows why; `projection rebuild NAME` fills it anew",
        );
    }
    let live: Vec<&str> =
        models.iter().filter(|model| model.live).map(|model| model.name.as_str()).collect();
    if live.is_empty() {
        found.note(CHECK, "no server has run on this data yet", "Run `punchtrail serve`");
        return Ok(());
    }
    match projection::behind(opened, &live).await? {
        Some(behind) if broken.is_empty() => {
            found.wrong(CHECK, behind, "Start `punchtrail serve`; if it runs, its log says more");
        }
        None if broken.is_empty() => found.ok(CHECK, "all are at the ledger's end"),
        _ => {}
    }
    Ok(())
}

async fn checkpoint(found: &mut Findings, opened: &Opened) -> anyhow::Result<()> {
    const CHECK: &str = "checkpoint";
    let (head, recorded_at) = punchtrail_infra::ledger::dated_head(&opened.pools.writer).await?;
    let Some(dir) = &opened.source.data_dir else {
        let cure = "Give --data-dir, where the server signs";
        found.note(CHECK, "without a data directory none can be looked at", cure);
        return Ok(());
    };
    if head == Position::START {
        return Ok(());
    }
    let org = Deployment::existing(&opened.pools.writer).await?.map(|deployment| deployment.org);
    let folder = org.map(|org| Folder::existing(dir, org)).transpose()?.flatten();
    let covered = match folder {
        Some(folder) => folder.latest()?.map_or(0, |kept| kept.checkpoint.size),
        None => 0,
    };
    let age_ms = recorded_at
        .map_or(0, |at| Timestamp::now().as_millisecond().saturating_sub(at.as_millisecond()));
    if covered >= head.0 {
        found.ok(CHECK, format!("everything is signed, up to position {covered}"));
    } else if age_ms > UNSIGNED_MAX_MS {
        let what = format!("the newest {} events are signed by nobody", head.0 - covered);
        let cure = "Start `punchtrail serve` with this data directory; if it runs, `checkpoint \
                    show` and its log say why it doesn't sign";
        found.wrong(CHECK, what, cure);
    } else {
        found.ok(CHECK, format!("signed up to position {covered} of {head}"));
    }
    Ok(())
}

/// Whether a site compares faces.
async fn sites_of(found: &mut Findings, opened: &Opened) -> anyhow::Result<bool> {
    let now = opened.ledger.now();
    let mut wants_faces = false;
    let mut strange = Vec::new();
    for listed in sites::list(&opened.pools.reader, now).await? {
        if TimeZone::get(&listed.tz).is_err() {
            strange.push(format!("{} ({})", listed.name, listed.tz));
        }
        let loaded = opened.ledger.load::<site::Site>(&listed.site.to_string()).await?;
        let policy: &Policy = loaded.aggregate.rules().policy_at(now);
        wants_faces |= policy.faces;
    }
    if !strange.is_empty() {
        let what = format!("the zone isn't known here of {}", some(&strange));
        found.wrong("time zones", what, "Bring tzdata up to date, and start the server anew");
    }
    Ok(wants_faces)
}

fn faces(found: &mut Findings, identity: &Identity, are_wanted: bool) {
    const CHECK: &str = "faces";
    if !are_wanted {
        return found.ok(CHECK, "no site compares them");
    }
    if !identity.asks(Provider::Local) {
        return found.ok(CHECK, "compared, and not by this machine");
    }
    let missing = identity.missing_models();
    match missing {
        None => found.ok(CHECK, "the models of the local check are there"),
        Some(why) => found.wrong(
            CHECK,
            format!("sites compare them, and the local check has no models: {why}"),
            "Name their folder with --face-models (docs/identity.md); until then a person looks",
        ),
    }
}

async fn devices_of(found: &mut Findings, opened: &Opened) -> anyhow::Result<()> {
    const CHECK: &str = "devices";
    let mut devices = devices::list(&opened.pools.writer).await?;
    devices.retain(|device| device.revoked_at.is_none());
    let names = Names::of(opened).await?;
    let since = opened.ledger.now().plus_millis(-SILENT_MAX_MS);
    let silent = devices.iter().filter(|device| device.reported_at.is_none_or(|at| at < since));
    let silent: Vec<String> = silent
        .map(|device| {
            let name = device.name.clone().unwrap_or_else(|| device.device.to_string());
            let site = device.site.map_or_else(|| "no site".to_owned(), |site| names.site(site));
            format!("{name} at {site}")
        })
        .collect();
    if silent.is_empty() {
        if !devices.is_empty() {
            let count = counted(devices.len(), "device", "devices");
            found.ok(CHECK, format!("{count}, each heard of within a day"));
        }
    } else {
        let what = format!("silent for over a day: {}", some(&silent));
        let cure = "Look at its power and network; what is gone for good is revoked (`device \
                    revoke NAME`)";
        found.wrong(CHECK, what, cure);
    }
    let lacking: Vec<_> = devices.iter().filter(|device| device.lacking > 0).collect();
    if !lacking.is_empty() {
        let punches: u64 = lacking.iter().map(|device| device.lacking).sum();
        let what = format!("{punches} punches were made and aren't here yet");
        found.note(CHECK, what, "`device list` shows whose; they come when the devices deliver");
    }
    Ok(())
}

async fn keys_of(found: &mut Findings, opened: &Opened) -> anyhow::Result<()> {
    const CHECK: &str = "keys";
    let now = opened.ledger.now();
    let mut keys = keys::operator_keys(&opened.pools.writer).await?;
    let is_live = |at: Option<Time>| at.is_none_or(|at| at > now);
    keys.retain(|key| key.revoked_at.is_none() && is_live(key.expires_at));
    let soon = now.plus_millis(KEY_LEFT_MS);
    let of_ends = |is_meant: &dyn Fn(Option<Time>) -> bool| -> Vec<String> {
        let meant = keys.iter().filter(|key| is_meant(key.expires_at));
        meant.map(|key| key.name.clone()).collect()
    };
    let forever = of_ends(&|end| end.is_none());
    let ending = of_ends(&|end| end.is_some_and(|at| at <= soon));
    if !forever.is_empty() {
        let what = format!("never expire: {}", some(&forever));
        let cure = "Make others with --expires (and --scope), then `key revoke NAME`";
        found.wrong(CHECK, what, cure);
    }
    if !ending.is_empty() {
        let what = format!("expire within two weeks: {}", some(&ending));
        found.wrong(CHECK, what, "`key new --expires …`, and hand it over in time");
    }
    if forever.is_empty() && ending.is_empty() {
        found.ok(CHECK, format!("{}, each ends in time", counted(keys.len(), "key", "keys")));
    }
    Ok(())
}

async fn admins(found: &mut Findings, opened: &Opened) -> anyhow::Result<()> {
    /// More admins than that aren't looked at.
    const LOOKED_AT_MAX: u32 = 1_000;
    let users = users::list(&opened.pools.writer, None, LOOKED_AT_MAX).await?;
    let bare = users.iter().filter(|user| {
        let signs_in = user.has_password && user.disabled_at.is_none() && user.erased_at.is_none();
        signs_in && user.role == Role::Admin && !user.has_second_factor
    });
    let bare: Vec<String> = bare.filter_map(|user| user.login.clone()).collect();
    if !bare.is_empty() {
        let what = format!("admins without a second factor: {}", some(&bare));
        found.wrong("users", what, "Each sets one after signing in (docs/roles.md)");
    }
    Ok(())
}

async fn waiting(found: &mut Findings, opened: &Opened, identity: &Identity) -> anyhow::Result<()> {
    let reader = &opened.pools.reader;
    if engine::stands_at(reader, quarantine::NAME).await? > Position::START {
        let filter = Filter { state: Some(ItemState::Waiting), ..Filter::default() };
        let page = quarantine::list(reader, &filter, Order::OldestFirst, None, WAITING_MAX).await?;
        match page.rows.len() {
            0 => found.ok("quarantine", "nothing waits there"),
            count => {
                let more = if page.more { "more than " } else { "" };
                let what = format!("{more}{} waits there", counted(count, "item", "items"));
                let cure = "A person admits or dismisses it: GET /v1/quarantine (docs/http-api.md)";
                found.wrong("quarantine", what, cure);
            }
        }
    }
    let queue = queue::open(identity.place(&opened.source), &opened.pools.writer).await?;
    let depth = queue.depth().await?;
    if depth.dead > 0 {
        let what = format!("{} face checks broke again and again", depth.dead);
        found.wrong("queue", what, "`queue dead` shows why; `queue put-back` tries them again");
    }
    Ok(())
}
