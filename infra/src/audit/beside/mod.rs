//! What stands beside the ledger and is bound to it by digests: bytes in quarantine, conflicting
//! captures, people's notes, numbers of badges, and the devices' chains. Looked up a page of events
//! at a time; what no event names is looked for at the end.

mod badges;
mod notes;

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use punchtrail_domain::quarantine::item_digest;
use punchtrail_protocol::{
    DeviceId, Digest, PunchId,
    capture::{Capture, Fragment},
    signing::{CAPTURE_TYPE, Signature},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

pub(super) use badges::Badges;
pub(super) use notes::NamedNote;

use super::{
    memory::{self, Walked},
    report::{Finding, FindingCode, Findings},
    signatures::Signed,
};
use crate::postgres::Pool;

/// A conflicting capture that an event names.
#[derive(Debug)]
pub(super) struct NamedConflict {
    pub position: u64,
    pub punch: PunchId,
    pub digest: Digest,
    /// Who delivered it.
    pub device: DeviceId,
}

/// A quarantined item that an event names.
#[derive(Debug)]
pub(super) struct NamedItem {
    pub position: u64,
    pub item: Digest,
    pub device: DeviceId,
    pub seq: Option<u64>,
}

/// A row that a device's chain must have.
#[derive(Debug)]
pub(super) struct NamedLink {
    pub position: u64,
    pub device: DeviceId,
    pub seq: u64,
    pub digest: Digest,
    pub prev: Digest,
    /// The punch that the bytes are of; none of quarantined ones.
    pub punch: Option<PunchId>,
}

impl NamedLink {
    /// Of a capture that this device delivered.
    pub(super) fn of(
        (position, deliverer): (u64, DeviceId),
        punch: PunchId,
        capture: &Capture,
        digest: Digest,
    ) -> Self {
        let Capture { seq, prev, .. } = *capture;
        Self { position, device: deliverer, seq, digest, prev, punch: Some(punch) }
    }
}

/// A row of a chain as it stands, if it does: predecessor, place, punch.
type HeldLink = (Option<Vec<u8>>, Option<i64>, Option<Uuid>);

/// What the events of one page name.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub conflicts: Vec<NamedConflict>,
    pub items: Vec<NamedItem>,
    pub links: Vec<NamedLink>,
    pub notes: Vec<NamedNote>,
    pub walked: Vec<Walked>,
    /// Rows of chains that can't be told, because the bytes that would tell are altered.
    untold: u64,
}

/// What was found of what a page names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compared {
    /// Rows of chains that belong to its events.
    pub links: u64,
    /// Notes that were erased.
    pub notes_gone: u64,
}

fn gone(position: u64, what: &str) -> Finding {
    Finding::at(position, FindingCode::BytesAltered, format!("{what} that it names are gone"))
}

fn altered(position: u64, what: &str) -> Finding {
    Finding::at(
        position,
        FindingCode::BytesAltered,
        format!("{what} that it names were altered: they have another digest"),
    )
}

impl Named {
    /// Compares everything with what is kept. Conflicting captures are signed, too: their
    /// signatures go to `signed`.
    pub(super) async fn check(
        mut self,
        pool: &Pool,
        findings: &mut Findings,
        signed: &mut Vec<Signed>,
    ) -> Result<Compared, sqlx::Error> {
        self.check_conflicts(pool, findings, signed).await?;
        self.check_items(pool, findings).await?;
        let notes_gone = notes::check(pool, &self.notes, findings).await?;
        memory::check(pool, &self.walked, findings).await?;
        let links = self.check_links(pool, findings).await? + self.untold;
        Ok(Compared { links, notes_gone })
    }

    async fn check_conflicts(
        &mut self,
        pool: &Pool,
        findings: &mut Findings,
        signed: &mut Vec<Signed>,
    ) -> Result<(), sqlx::Error> {
        if self.conflicts.is_empty() {
            return Ok(());
        }
        let digests: Vec<&[u8]> = self.conflicts.iter().map(|c| c.digest.0.as_slice()).collect();
        let kept: HashMap<Vec<u8>, (Uuid, String, String)> = sqlx::query(
            "select digest, punch, capture, signature from conflicting_captures \
             where digest = any($1)",
        )
        .bind(digests)
        .try_map(|row: PgRow| {
            let texts = (row.try_get("punch")?, row.try_get("capture")?, row.try_get("signature")?);
            Ok((row.try_get("digest")?, texts))
        })
        .fetch_all(pool)
        .await?
        .into_iter()
        .collect();
        for NamedConflict { position, punch, digest, device: deliverer } in &self.conflicts {
            let Some((of, capture, signature)) = kept.get(digest.0.as_slice()) else {
                findings.add(gone(*position, "the conflicting capture's bytes"));
                self.untold += 1;
                continue;
            };
            let body = URL_SAFE_NO_PAD.decode(capture).unwrap_or_default();
            let read = Capture::parse_kept(&body).ok();
            let whole = Digest::of(&body) == *digest && *of == punch.uuid();
            let (Some(read), true) = (read, whole) else {
                findings.add(altered(*position, "the conflicting capture's bytes"));
                self.untold += 1;
                continue;
            };
            let Some(signature) = punchtrail_protocol::signing::from_base64url(signature) else {
                findings.add(altered(*position, "the conflicting capture's signature bytes"));
                self.untold += 1;
                continue;
            };
            let link = NamedLink::of((*position, *deliverer), *punch, &read, *digest);
            self.links.push(link);
            let device = read.device;
            signed.push(Signed {
                kind: CAPTURE_TYPE,
                position: *position,
                device,
                body,
                signature: Signature(signature),
            });
        }
        Ok(())
    }

    async fn check_items(
        &mut self,
        pool: &Pool,
        findings: &mut Findings,
    ) -> Result<(), sqlx::Error> {
        if self.items.is_empty() {
            return Ok(());
        }
        let ids: Vec<&[u8]> = self.items.iter().map(|item| item.item.0.as_slice()).collect();
        let kept: HashMap<Vec<u8>, (Uuid, String, String)> = sqlx::query(
            "select id, device, capture, signature from quarantine_items where id = any($1)",
        )
        .bind(ids)
        .try_map(|row: PgRow| {
            let texts =
                (row.try_get("device")?, row.try_get("capture")?, row.try_get("signature")?);
            Ok((row.try_get("id")?, texts))
        })
        .fetch_all(pool)
        .await?
        .into_iter()
        .collect();
        for NamedItem { position, item, device, seq } in &self.items {
            let Some((sender, capture, signature)) = kept.get(item.0.as_slice()) else {
                findings.add(gone(*position, "the quarantined bytes"));
                self.untold += u64::from(seq.is_some());
                continue;
            };
            let digest = item_digest(*device, capture.as_bytes(), signature.as_bytes());
            if digest != *item || *sender != device.uuid() {
                findings.add(altered(*position, "the quarantined bytes"));
                self.untold += u64::from(seq.is_some());
                continue;
            }
            if let (Some(seq), Ok(body)) = (*seq, URL_SAFE_NO_PAD.decode(capture)) {
                self.links.push(NamedLink {
                    position: *position,
                    device: *device,
                    seq,
                    digest: Digest::of(&body),
                    // As it was read when it came: damaged bytes may name none.
                    prev: Fragment::of(&body).prev.unwrap_or(Digest::ZERO),
                    punch: None,
                });
            }
        }
        Ok(())
    }

    async fn check_links(&self, pool: &Pool, findings: &mut Findings) -> Result<u64, sqlx::Error> {
        if self.links.is_empty() {
            return Ok(0);
        }
        let devices: Vec<Uuid> = self.links.iter().map(|link| link.device.uuid()).collect();
        let seqs: Vec<i64> = self.links.iter().map(|link| link.seq.cast_signed()).collect();
        let digests: Vec<&[u8]> = self.links.iter().map(|link| link.digest.0.as_slice()).collect();
        let rows: Vec<HeldLink> = sqlx::query_as(
            "select chain.prev, chain.position, chain.punch \
             from unnest($1::uuid[], $2::bigint[], $3::bytea[]) with ordinality \
             as named (device, seq, digest, place) \
             left join device_chain chain using (device, seq, digest) order by place",
        )
        .bind(devices)
        .bind(seqs)
        .bind(digests)
        .fetch_all(pool)
        .await?;
        let mut belonging = 0;
        for (link, (prev, position, punch)) in self.links.iter().zip(rows) {
            // The same bytes may have come before, when they could not be taken as a punch.
            let position = position.map(i64::cast_unsigned);
            let stands = match position {
                Some(at) if at == link.position => punch == link.punch.map(PunchId::uuid),
                Some(at) => at < link.position && punch.is_none(),
                None => false,
            };
            let follows = prev.as_deref() == Some(&link.prev.0);
            if !stands || !follows {
                findings.add(Finding::at(
                    link.position,
                    FindingCode::ChainAltered,
                    format!(
                        "its row in the chain of device {} (number {}) is gone or was altered",
                        link.device, link.seq
                    ),
                ));
            }
            belonging += u64::from(position == Some(link.position));
        }
        Ok(belonging)
    }
}

/// What stands there and no event names: bytes, notes, rows of chains. `belonging` is how many rows
/// of chains were found to belong to events.
pub(super) async fn strays(
    snapshot: &mut PgConnection,
    belonging: u64,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let held: i64 =
        sqlx::query_scalar("select count(*) from device_chain").fetch_one(&mut *snapshot).await?;
    let links = held.cast_unsigned().saturating_sub(belonging);
    let bytes: i64 = sqlx::query_scalar(
        "select (select count(*) from quarantine_items where not exists (select from events \
             where aggregate_type = 'quarantine' and aggregate_id = encode(id, 'hex') \
             and sequence = 1)) + (select count(*) from conflicting_captures kept where not exists \
             (select from events where aggregate_type = 'punch' and aggregate_id = punch::text \
             and payload -> 'ConflictingCaptureReceived' ->> 'digest' = encode(digest, 'hex')))",
    )
    .fetch_one(&mut *snapshot)
    .await?;
    for (stray, code, what) in [
        (links, FindingCode::ChainAltered, "row(s) in the chains of devices belong to no event"),
        (
            bytes.cast_unsigned(),
            FindingCode::BytesAltered,
            "quarantined item(s) or conflicting capture(s) are there that no event names",
        ),
    ] {
        if stray > 0 {
            findings.add(Finding::aside(code, format!("{stray} {what}")));
        }
    }
    notes::strays(snapshot, findings).await
}
