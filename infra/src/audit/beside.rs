//! What stands beside the ledger and is bound to it by digests: bytes in quarantine, conflicting
//! captures, and the devices' chains. Looked up a page of events at a time.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use punchtrail_domain::quarantine::item_digest;
use punchtrail_protocol::{DeviceId, Digest, PunchId, capture::Capture, signing::Signature};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{
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
    /// None where the bytes were not readable enough to say.
    pub prev: Option<Digest>,
}

impl NamedLink {
    pub(super) fn of(position: u64, capture: &Capture, digest: Digest) -> Self {
        let Capture { device, seq, prev, .. } = *capture;
        Self { position, device, seq, digest, prev: Some(prev) }
    }
}

/// What the events of one page name.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub conflicts: Vec<NamedConflict>,
    pub items: Vec<NamedItem>,
    pub links: Vec<NamedLink>,
    /// Rows of chains that can't be told, because the bytes that would tell are altered.
    untold: u64,
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
    /// signatures go to `signed`. Gives the number of rows of chains that belong to these events.
    pub(super) async fn check(
        mut self,
        pool: &Pool,
        findings: &mut Findings,
        signed: &mut Vec<Signed>,
    ) -> Result<u64, sqlx::Error> {
        self.check_conflicts(pool, findings, signed).await?;
        self.check_items(pool, findings).await?;
        Ok(self.check_links(pool, findings).await? + self.untold)
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
        for NamedConflict { position, punch, digest } in &self.conflicts {
            let Some((of, capture, signature)) = kept.get(digest.0.as_slice()) else {
                findings.add(gone(*position, "the conflicting capture's bytes"));
                self.untold += 1;
                continue;
            };
            let body = URL_SAFE_NO_PAD.decode(capture).unwrap_or_default();
            let read = Capture::parse(&body).ok();
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
            self.links.push(NamedLink::of(*position, &read, *digest));
            let device = read.device;
            signed.push(Signed {
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
                    prev: None,
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
        let rows: Vec<(Option<Vec<u8>>, Option<i64>)> = sqlx::query_as(
            "select chain.prev, chain.position \
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
        for (link, (prev, position)) in self.links.iter().zip(rows) {
            // The same bytes may have come before, when they could not be taken as a punch.
            let stands = position.is_some_and(|at| at.cast_unsigned() <= link.position);
            let follows = link.prev.is_none_or(|named| prev.as_deref() == Some(&named.0));
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
            belonging += u64::from(position == Some(link.position.cast_signed()));
        }
        Ok(belonging)
    }
}

/// Rows of chains up to the head that belong to no event: their number, when it isn't `belonging`.
pub(super) async fn stray_links(
    pool: &Pool,
    head: u64,
    belonging: u64,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let held: i64 = sqlx::query_scalar("select count(*) from device_chain where position <= $1")
        .bind(head.cast_signed())
        .fetch_one(pool)
        .await?;
    if held.cast_unsigned() > belonging {
        let stray = held.cast_unsigned() - belonging;
        findings.add(Finding::aside(
            FindingCode::ChainAltered,
            format!("{stray} row(s) in the chains of devices belong to no event"),
        ));
    }
    Ok(())
}

/// Devices whose requests are checked against another key than the one they enrolled with.
pub(super) async fn altered_keys(
    pool: &Pool,
    enrolled: &super::signatures::Keys,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let rows: Vec<(Uuid, Vec<u8>)> =
        sqlx::query_as("select device, public_key from device_credentials order by device")
            .fetch_all(pool)
            .await?;
    for (device, key) in rows {
        // One that enrolled after the head that is verified isn't known here.
        let Some((position, enrolled)) = enrolled.get(&DeviceId(device)) else { continue };
        if enrolled.to_bytes().as_slice() != key {
            findings.add(Finding::at(
                *position,
                FindingCode::KeyAltered,
                format!(
                    "device {device} enrolled with another key than its requests are checked by"
                ),
            ));
        }
    }
    Ok(())
}
