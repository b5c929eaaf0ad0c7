//! The typed rows beside the ledger that deliveries and judgements bring, written set-wise, in key
//! order.

use std::collections::{BTreeSet, HashMap};

use punchtrail_domain::policy::judging::Doubted;
use punchtrail_protocol::{DeviceId, Digest, EmployeeId, Position, PunchId, wire::BatchItem};
use sqlx::PgConnection;

use super::{Judging, delivery::Link, judging::ADJUDICATOR, known::HeldNumbers};
use crate::postgres::copy::Rows;

#[derive(Debug)]
pub(super) struct ChainRow {
    pub device: DeviceId,
    pub link: Link,
    pub punch: Option<PunchId>,
    pub position: Position,
}

/// Everything beside the ledger that a group brings.
#[derive(Debug, Default)]
pub(super) struct SideRows<'a> {
    pub chain: Vec<ChainRow>,
    pub touched: BTreeSet<DeviceId>,
    progress: Vec<(DeviceId, HeldNumbers)>,
    pub quarantined: Vec<(Digest, DeviceId, &'a BatchItem)>,
    pub conflicts: Vec<(Digest, PunchId, &'a BatchItem)>,
    pub judgings: Vec<&'a Judging>,
}

impl SideRows<'_> {
    /// Takes over how far the devices that were touched have come.
    pub(super) fn take_progress(&mut self, devices: &HashMap<DeviceId, HeldNumbers>) {
        self.progress = self
            .touched
            .iter()
            .filter_map(|device| devices.get(device).map(|progress| (*device, progress.clone())))
            .collect();
    }

    pub(super) async fn write(mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.chain.sort_unstable_by_key(|row| (row.device, row.link.seq, row.link.digest));
        // Without anything of a device in quarantine, none of its bytes can be held already.
        if self.progress.iter().all(|(_, progress)| progress.quarantined == 0) {
            copy_chain(connection, &self.chain).await?;
        } else {
            write_chain(connection, &self.chain).await?;
        }
        write_progress(connection, &self.progress).await?;
        write_raw_items(connection, &self.quarantined, &self.conflicts).await?;
        for judging in self.judgings {
            write_judging(connection, judging).await?;
        }
        Ok(())
    }
}

/// Writes rows that are known not to be there, which costs less than looking for each first.
async fn copy_chain(connection: &mut PgConnection, chain: &[ChainRow]) -> Result<(), sqlx::Error> {
    let mut rows = Rows::new(6);
    for held in chain {
        let mut row = rows.row();
        row.uuid(held.device.uuid())
            .bigint(held.link.seq.cast_signed())
            .digest(&held.link.digest)
            .digest(&held.link.prev);
        row.uuid_or_null(held.punch.map(PunchId::uuid)).position(held.position);
    }
    rows.copy_into(
        connection,
        "copy device_chain (device, seq, digest, prev, punch, position) from stdin (format binary)",
    )
    .await
}

/// The same bytes may be held already, from a time when they could not be taken as a punch.
async fn write_chain(connection: &mut PgConnection, rows: &[ChainRow]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let devices: Vec<_> = rows.iter().map(|row| row.device.uuid()).collect();
    let seqs: Vec<_> = rows.iter().map(|row| row.link.seq.cast_signed()).collect();
    let digests: Vec<&[u8]> = rows.iter().map(|row| row.link.digest.0.as_slice()).collect();
    let prevs: Vec<&[u8]> = rows.iter().map(|row| row.link.prev.0.as_slice()).collect();
    let punches: Vec<_> = rows.iter().map(|row| row.punch.map(PunchId::uuid)).collect();
    let positions: Vec<_> = rows.iter().map(|row| row.position.to_db()).collect();
    sqlx::query(
        "insert into device_chain (device, seq, digest, prev, punch, position) \
         select * from unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::bytea[], $5::uuid[], \
         $6::bigint[]) on conflict do nothing",
    )
    .bind(devices)
    .bind(seqs)
    .bind(digests)
    .bind(prevs)
    .bind(punches)
    .bind(positions)
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_progress(
    connection: &mut PgConnection,
    rows: &[(DeviceId, HeldNumbers)],
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let devices: Vec<_> = rows.iter().map(|(device, _)| device.uuid()).collect();
    let column = |read: fn(&HeldNumbers) -> u64| -> Vec<i64> {
        rows.iter().map(|(_, progress)| read(progress).cast_signed()).collect()
    };
    sqlx::query(
        "insert into device_progress (device, acked_through, highest, quarantined) \
         select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) \
         on conflict (device) do update set acked_through = excluded.acked_through, \
         highest = excluded.highest, quarantined = excluded.quarantined",
    )
    .bind(devices)
    .bind(column(|p| p.acked_through))
    .bind(column(|p| p.highest))
    .bind(column(|p| p.quarantined))
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_raw_items(
    connection: &mut PgConnection,
    quarantined: &[(Digest, DeviceId, &BatchItem)],
    conflicts: &[(Digest, PunchId, &BatchItem)],
) -> Result<(), sqlx::Error> {
    for (digest, device, raw) in quarantined {
        sqlx::query(
            "insert into quarantine_items (id, device, capture, signature) values ($1, $2, $3, $4) \
             on conflict do nothing",
        )
        .bind(digest.0.as_slice())
        .bind(device.uuid())
        .bind(&raw.capture)
        .bind(&raw.signature)
        .execute(&mut *connection)
        .await?;
    }
    for (digest, punch, raw) in conflicts {
        sqlx::query(
            "insert into conflicting_captures (digest, punch, capture, signature) \
             values ($1, $2, $3, $4) on conflict do nothing",
        )
        .bind(digest.0.as_slice())
        .bind(punch.uuid())
        .bind(&raw.capture)
        .bind(&raw.signature)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// What has changed of punches that were walked before.
async fn write_changed(
    connection: &mut PgConnection,
    judging: &Judging,
) -> Result<(), sqlx::Error> {
    if !judging.out.is_empty() {
        let (punches, out): (Vec<_>, Vec<bool>) =
            judging.out.iter().map(|(punch, out)| (punch.uuid(), *out)).unzip();
        sqlx::query(
            "update judged_punches judged set is_out = now.is_out \
             from unnest($1::uuid[], $2::bool[]) as now (punch, is_out) \
             where judged.punch = now.punch",
        )
        .bind(punches)
        .bind(out)
        .execute(&mut *connection)
        .await?;
    }
    if !judging.people.is_empty() {
        let (punches, people): (Vec<_>, Vec<_>) =
            judging.people.iter().map(|(punch, who)| (punch.uuid(), who.uuid())).unzip();
        sqlx::query(
            "update judged_punches judged set employee = now.employee \
             from unnest($1::uuid[], $2::uuid[]) as now (punch, employee) \
             where judged.punch = now.punch",
        )
        .bind(punches)
        .bind(people)
        .execute(&mut *connection)
        .await?;
    }
    if !judging.doubted.is_empty() {
        let of = |flag: fn(&Doubted) -> bool| -> Vec<bool> {
            judging.doubted.iter().map(|(_, doubted)| flag(doubted)).collect()
        };
        let punches: Vec<_> = judging.doubted.iter().map(|(punch, _)| punch.uuid()).collect();
        sqlx::query(
            "update judged_punches judged set near_duplicate = now.near_duplicate, \
             two_sites = now.two_sites, opposite_kind = now.opposite_kind \
             from unnest($1::uuid[], $2::boolean[], $3::boolean[], $4::boolean[]) \
             as now (punch, near_duplicate, two_sites, opposite_kind) \
             where judged.punch = now.punch",
        )
        .bind(punches)
        .bind(of(|doubted| doubted.near_duplicate))
        .bind(of(|doubted| doubted.two_sites))
        .bind(of(|doubted| doubted.opposite_kind))
        .execute(&mut *connection)
        .await?;
    }
    let ids =
        |punches: &[PunchId]| -> Vec<_> { punches.iter().map(|punch| punch.uuid()).collect() };
    if !judging.looked.is_empty() {
        sqlx::query("delete from judged_again where punch = any($1)")
            .bind(ids(&judging.looked))
            .execute(&mut *connection)
            .await?;
    }
    if !judging.again.is_empty() {
        sqlx::query(
            "insert into judged_again (punch) select distinct unnest($1::uuid[]) \
             on conflict do nothing",
        )
        .bind(ids(&judging.again))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn write_judging(
    connection: &mut PgConnection,
    judging: &Judging,
) -> Result<(), sqlx::Error> {
    let mut rows = Rows::new(10);
    for punch in &judging.punches {
        rows.row()
            .uuid(punch.punch.uuid())
            .uuid_or_null(punch.employee.map(EmployeeId::uuid))
            .text_or_null(punch.badge.as_deref())
            .timestamp_us(punch.true_at.millis() * 1_000)
            .uuid(punch.site.uuid())
            .text(punch.kind.as_str())
            .boolean(false)
            .boolean(punch.doubted.near_duplicate)
            .boolean(punch.doubted.two_sites)
            .boolean(punch.doubted.opposite_kind);
    }
    rows.copy_into(
        connection,
        "copy judged_punches (punch, employee, badge, true_at, site, kind, is_out, \
         near_duplicate, two_sites, opposite_kind) from stdin (format binary)",
    )
    .await?;
    write_changed(connection, judging).await?;
    for mark in &judging.devices {
        let gaps: Vec<i64> = mark
            .chain
            .gaps
            .iter()
            .flat_map(|gap| [gap.from.cast_signed(), gap.to.cast_signed()])
            .collect();
        sqlx::query(
            "insert into judged_devices (device, highest, digest, gaps) values ($1, $2, $3, $4) \
             on conflict (device) do update set highest = excluded.highest, \
             digest = excluded.digest, gaps = excluded.gaps",
        )
        .bind(mark.device.uuid())
        .bind(mark.chain.highest.cast_signed())
        .bind(mark.chain.digest.0.as_slice())
        .bind(gaps)
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query("update followers set position = $2, leaf_hash = $3 where name = $1")
        .bind(ADJUDICATOR)
        .bind(judging.to.position.to_db())
        .bind(judging.to.leaf_hash.0.as_slice())
        .execute(connection)
        .await?;
    Ok(())
}
