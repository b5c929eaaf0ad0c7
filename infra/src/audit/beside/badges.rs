//! Numbers of badges. An event names a time of holding one by the salted digest of the number; the
//! row beside the ledger may be gone, erased with its person, but it is not another number's or
//! another person's, and holds from when until when the events say.

use std::collections::{HashMap, HashSet};

use punchtrail_domain::employee::{EmployeeEvent, holding};
use punchtrail_protocol::{Digest, EmployeeId, Time};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::super::report::{Finding, FindingCode, Findings};

/// How many rows are compared at a time.
const PAGE: i64 = 10_000;

/// A time of holding a badge, as the events say.
#[derive(Debug)]
struct Named {
    employee: EmployeeId,
    /// None: since before holdings were dated.
    from: Option<Time>,
    until: Option<Time>,
    /// Where it was named last.
    position: u64,
}

/// What the events say of badges. Grows with the badges that were ever held.
#[derive(Debug, Default)]
pub(in crate::audit) struct Badges {
    named: HashMap<Digest, Named>,
    erased: HashSet<EmployeeId>,
}

impl Badges {
    /// Takes an event of a person.
    pub(in crate::audit) fn take(
        &mut self,
        position: u64,
        employee: EmployeeId,
        event: &EmployeeEvent,
    ) {
        match event {
            EmployeeEvent::BadgeIssued { holding, from } => {
                let (from, until) = (Some(*from), None);
                self.named.insert(*holding, Named { employee, from, until, position });
            }
            EmployeeEvent::BadgeEnded { holding, until, .. } => {
                let undated = Named { employee, from: None, until: None, position };
                let named = self.named.entry(*holding).or_insert(undated);
                (named.until, named.position) = (Some(*until), position);
            }
            EmployeeEvent::Erased { .. } => {
                self.erased.insert(employee);
            }
            _ => {}
        }
    }

    /// Compares what stands with what the events say.
    pub(in crate::audit) async fn check(
        &self,
        snapshot: &mut PgConnection,
        findings: &mut Findings,
    ) -> Result<(), sqlx::Error> {
        let mut seen = HashSet::with_capacity(self.named.len());
        let mut after: Vec<u8> = Vec::new();
        loop {
            let rows: Vec<Held> = sqlx::query(
                "select holding, employee, number, salt, \
                 (extract(epoch from nullif(held_from, '-infinity')) * 1000000)::bigint \
                     as from_us, \
                 (extract(epoch from held_until) * 1000000)::bigint as until_us \
                 from badge_holdings where holding > $1 order by holding limit $2",
            )
            .bind(&after)
            .bind(PAGE)
            .try_map(|row| Held::read(&row))
            .fetch_all(&mut *snapshot)
            .await?;
            let Some(last) = rows.last() else { break };
            after.clone_from(&last.id);
            for row in &rows {
                self.compare(row, &mut seen, findings);
            }
        }
        for (holding, named) in &self.named {
            if !seen.contains(holding) && !self.erased.contains(&named.employee) {
                let what = "the number of the badge that it names is gone, and nobody erased it";
                findings.add(Finding::at(named.position, FindingCode::BadgeAltered, what));
            }
        }
        twice(snapshot, findings).await
    }

    fn compare(&self, row: &Held, seen: &mut HashSet<Digest>, findings: &mut Findings) {
        let id = row.id.as_slice().try_into().map(Digest).unwrap_or_default();
        seen.insert(id);
        let named = self.named.get(&id);
        let what = match named {
            _ if holding(&row.salt, &row.number) != id => "the badge's number or salt was altered",
            Some(named) if named.employee != row.employee => "the badge is said to be another's",
            Some(named) if row.from_us != micros(named.from) => "since when it is held was altered",
            Some(named) if row.until_us != micros(named.until) => "until when was altered",
            Some(_) => return,
            None if row.from_us.is_some() => "a badge is held that no event names",
            None if row.until_us.is_some() => "a badge is said to have ended that no event ended",
            None => return,
        };
        findings.add(match named {
            Some(named) => Finding::at(named.position, FindingCode::BadgeAltered, what),
            None => Finding::aside(FindingCode::BadgeAltered, format!("{what} ({id})")),
        });
    }
}

/// A row as it stands.
struct Held {
    id: Vec<u8>,
    employee: EmployeeId,
    number: String,
    salt: Vec<u8>,
    from_us: Option<i64>,
    until_us: Option<i64>,
}

impl Held {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("holding")?,
            employee: EmployeeId(row.try_get::<Uuid, _>("employee")?),
            number: row.try_get("number")?,
            salt: row.try_get("salt")?,
            from_us: row.try_get("from_us")?,
            until_us: row.try_get("until_us")?,
        })
    }
}

fn micros(at: Option<Time>) -> Option<i64> {
    at.map(|at| at.millis() * 1_000)
}

/// Numbers that two people, or one twice, hold at once.
async fn twice(snapshot: &mut PgConnection, findings: &mut Findings) -> Result<(), sqlx::Error> {
    let twice: i64 = sqlx::query_scalar(
        "select count(*) from badge_holdings held join badge_holdings other \
         on other.number = held.number and other.holding > held.holding \
         and held.held_from < coalesce(other.held_until, 'infinity') \
         and other.held_from < coalesce(held.held_until, 'infinity') \
         and held.held_until is distinct from held.held_from \
         and other.held_until is distinct from other.held_from",
    )
    .fetch_one(snapshot)
    .await?;
    if twice > 0 {
        let what = format!("{twice} badge(s) are held by two at once");
        findings.add(Finding::aside(FindingCode::BadgeAltered, what));
    }
    Ok(())
}
