//! A roster's file: what is taken keeps every rule of it, and nothing that is said of a fault
//! repeats a PIN.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use punchtrail_infra::people::import::{
    EXTERNAL_ID_CHARS_MAX, NAME_CHARS_MAX, ROSTER_ROWS_MAX, Roster, parse,
};

fuzz_target!(|bytes: &[u8]| {
    let rows = match parse(bytes).and_then(Roster::faultless) {
        Ok(roster) => roster.rows,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(rows.len() <= ROSTER_ROWS_MAX);
    let (mut badges, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for row in &rows {
        assert!(row.row >= 2);
        assert!((1..=NAME_CHARS_MAX).contains(&row.name.chars().count()));
        assert!(row.badge.as_ref().is_none_or(|badge| badges.insert(badge)));
        assert!(row.external_id.as_ref().is_none_or(|id| ids.insert(id)));
        let id_chars = row.external_id.as_ref().map_or(0, |id| id.chars().count());
        assert!(id_chars <= EXTERNAL_ID_CHARS_MAX);
        for text in [Some(&row.name), row.badge.as_ref(), row.external_id.as_ref()] {
            assert!(text.is_none_or(|text| !text.contains('\0')));
        }
        assert!(row.pin.is_none() || format!("{row:?}").contains("Pin(…)"));
    }
});
