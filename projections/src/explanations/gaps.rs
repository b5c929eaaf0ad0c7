//! A device's missing numbers, cut into runs that are either open or came at one time.

use std::collections::{BTreeMap, HashMap};

use jiff_sqlx::{Timestamp, ToSqlx};
use punchtrail_domain::{
    Event,
    device::{Cut, DeviceEvent, Gap},
};
use punchtrail_infra::ledger::Entry;
use punchtrail_protocol::DeviceId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::engine::ProjectionError;

/// An event's position, and when it was recorded, to the microsecond: as the table keeps it.
type Stamp = (i64, jiff::Timestamp);

/// A run of numbers with one fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    to: u64,
    noticed: Stamp,
    came: Option<Stamp>,
    /// Whether its row must be written.
    changed: bool,
}

/// The runs of one device that a batch may touch, by their first number.
type Runs = BTreeMap<u64, Run>;

/// Takes the gaps that a batch opened and closed, in the ledger's order.
pub(super) async fn apply(
    tx: &mut PgConnection,
    table: &str,
    changes: &[(DeviceId, &Entry)],
) -> Result<(), ProjectionError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut runs = held(tx, table, changes).await?;
    for (device, entry) in changes {
        let at = (entry.recorded.position.to_db(), entry.recorded.recorded_at);
        let runs = runs.entry(*device).or_default();
        match entry.event()? {
            Event::Device(_, DeviceEvent::SequenceGapOpened { gap }) => open(runs, *gap, at),
            Event::Device(_, DeviceEvent::SequenceGapClosed { gap }) if !fill(runs, *gap, at) => {
                return Err(ProjectionError::inconsistent(
                    entry.recorded.position,
                    format!("the device's numbers {} to {} were not missing", gap.from, gap.to),
                ));
            }
            _ => {}
        }
    }
    write(tx, table, runs).await
}

fn open(runs: &mut Runs, gap: Gap, noticed: Stamp) {
    runs.insert(gap.from, Run { to: gap.to, noticed, came: None, changed: true });
}

/// Whether the numbers were missing until now.
fn fill(runs: &mut Runs, gap: Gap, came: Stamp) -> bool {
    let Some((from, run)) = runs.range(..=gap.from).next_back().map(|(from, run)| (*from, *run))
    else {
        return false;
    };
    let Cut { before, within, after } = Gap { from, to: run.to }.cut(gap);
    if within != Some(gap) || run.came.is_some() {
        return false;
    }
    for (part, came) in [(before, None), (within, Some(came)), (after, None)] {
        if let Some(part) = part {
            runs.insert(part.from, Run { to: part.to, came, changed: true, ..run });
        }
    }
    true
}

/// The runs that hold the numbers which the batch fills, as far as earlier batches opened them.
async fn held(
    tx: &mut PgConnection,
    table: &str,
    changes: &[(DeviceId, &Entry)],
) -> Result<HashMap<DeviceId, Runs>, ProjectionError> {
    let (mut devices, mut firsts) = (Vec::new(), Vec::new());
    for (device, entry) in changes {
        if let Event::Device(_, DeviceEvent::SequenceGapClosed { gap }) = entry.event()? {
            devices.push(device.uuid());
            firsts.push(gap.from.cast_signed());
        }
    }
    let mut held: HashMap<DeviceId, Runs> = HashMap::new();
    if devices.is_empty() {
        return Ok(held);
    }
    let statement = format!(
        "select distinct g.device, g.from_seq, g.to_seq, g.noticed, g.noticed_at, g.came, \
         g.came_at from unnest($1::uuid[], $2::bigint[]) as wanted(device, seq) cross join lateral \
         (select * from {table} g where g.device = wanted.device and g.from_seq <= wanted.seq \
          order by g.from_seq desc limit 1) g"
    );
    type Row = (Uuid, i64, i64, i64, Timestamp, Option<i64>, Option<Timestamp>);
    let rows: Vec<Row> =
        sqlx::query_as(&statement).bind(devices).bind(firsts).fetch_all(tx).await?;
    for (device, from, to, noticed, noticed_at, came, came_at) in rows {
        let run = Run {
            to: to.cast_unsigned(),
            noticed: (noticed, noticed_at.to_jiff()),
            came: came.zip(came_at.map(|at| at.to_jiff())),
            changed: false,
        };
        held.entry(DeviceId(device)).or_default().insert(from.cast_unsigned(), run);
    }
    Ok(held)
}

async fn write(
    tx: &mut PgConnection,
    table: &str,
    runs: HashMap<DeviceId, Runs>,
) -> Result<(), ProjectionError> {
    let (mut devices, mut froms, mut tos) = (Vec::new(), Vec::new(), Vec::new());
    let (mut noticed, mut noticed_at): (Vec<i64>, Vec<Timestamp>) = (Vec::new(), Vec::new());
    let (mut came, mut came_at): (Vec<Option<i64>>, Vec<Option<Timestamp>>) = (vec![], vec![]);
    let changed = runs.into_iter().flat_map(|(device, runs)| {
        runs.into_iter().filter(|(_, run)| run.changed).map(move |(from, run)| (device, from, run))
    });
    for (device, from, run) in changed {
        devices.push(device.uuid());
        froms.push(from.cast_signed());
        tos.push(run.to.cast_signed());
        noticed.push(run.noticed.0);
        noticed_at.push(run.noticed.1.to_sqlx());
        came.push(run.came.map(|(position, _)| position));
        came_at.push(run.came.map(|(_, at)| at.to_sqlx()));
    }
    let statement = format!(
        "insert into {table} (device, from_seq, to_seq, noticed, noticed_at, came, came_at) \
         select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], \
             $5::timestamptz[], $6::bigint[], $7::timestamptz[]) \
         on conflict (device, from_seq) do update set to_seq = excluded.to_seq, \
             noticed = excluded.noticed, noticed_at = excluded.noticed_at, came = excluded.came, \
             came_at = excluded.came_at"
    );
    sqlx::query(&statement)
        .bind(devices)
        .bind(froms)
        .bind(tos)
        .bind(noticed)
        .bind(noticed_at)
        .bind(came)
        .bind(came_at)
        .execute(tx)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: i64) -> Stamp {
        (position, jiff::Timestamp::UNIX_EPOCH)
    }

    fn cut(runs: &Runs) -> Vec<(u64, u64, Option<i64>)> {
        runs.iter().map(|(from, run)| (*from, run.to, run.came.map(|at| at.0))).collect()
    }

    #[test]
    fn runs_are_cut_where_numbers_came() {
        let mut runs = Runs::new();
        open(&mut runs, Gap { from: 3, to: 9 }, at(1));
        assert!(fill(&mut runs, Gap { from: 5, to: 6 }, at(2)));
        assert_eq!(cut(&runs), [(3, 4, None), (5, 6, Some(2)), (7, 9, None)]);
        assert!(fill(&mut runs, Gap { from: 9, to: 9 }, at(3)));
        assert!(fill(&mut runs, Gap { from: 3, to: 4 }, at(4)));
        assert_eq!(cut(&runs), [(3, 4, Some(4)), (5, 6, Some(2)), (7, 8, None), (9, 9, Some(3))]);
        assert!(runs.values().all(|run| run.noticed == at(1)));
    }

    #[test]
    fn what_was_not_missing_is_not_filled() {
        let mut runs = Runs::new();
        open(&mut runs, Gap { from: 3, to: 4 }, at(1));
        for (from, to) in [(1, 2), (3, 5), (5, 5)] {
            assert!(!fill(&mut runs, Gap { from, to }, at(2)), "{from} to {to}");
        }
        assert!(fill(&mut runs, Gap { from: 3, to: 4 }, at(2)));
        assert!(!fill(&mut runs, Gap { from: 3, to: 4 }, at(3)));
    }
}
