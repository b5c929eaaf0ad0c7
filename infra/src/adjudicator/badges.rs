//! Who held which badge: the numbers, which stand beside the ledger, and the names that the ledger
//! has for each time that somebody held one. When that was, the events say ([`super::Register`]).

use std::collections::HashMap;

use punchtrail_protocol::{Digest, EmployeeId, spelling::normal};
use sqlx::Row;

use super::AdjudicatorError;
use crate::postgres::Pool;

/// A time that somebody holds a badge, as the ledger names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub holding: Digest,
    pub employee: EmployeeId,
    /// Whether it is from before holdings were dated.
    pub undated: bool,
}

/// The holders of badges, by number.
#[derive(Debug, Default)]
pub(super) struct Holders {
    by_number: HashMap<String, Vec<Holder>>,
    numbers: HashMap<Digest, String>,
}

impl Holders {
    /// Every holder of these numbers, and of the numbers of these holdings.
    pub(super) async fn read(
        pool: &Pool,
        numbers: &[String],
        holdings: &[Digest],
    ) -> Result<Self, AdjudicatorError> {
        let mut holders = Self::default();
        if numbers.is_empty() && holdings.is_empty() {
            return Ok(holders);
        }
        let holdings: Vec<&[u8]> = holdings.iter().map(|holding| holding.0.as_slice()).collect();
        let rows = sqlx::query(
            "select holding, employee, number, held_from = '-infinity' as undated \
             from badge_holdings where number = any($1) or number = any(array( \
                 select number from badge_holdings where holding = any($2))) order by holding",
        )
        .bind(numbers)
        .bind(holdings)
        .fetch_all(pool)
        .await?;
        for row in rows {
            let holding = super::memory::digest(row.try_get("holding")?)?;
            let number: String = row.try_get("number")?;
            holders.numbers.insert(holding, number.clone());
            holders.by_number.entry(number).or_default().push(Holder {
                holding,
                employee: EmployeeId(row.try_get("employee")?),
                undated: row.try_get("undated")?,
            });
        }
        Ok(holders)
    }

    /// The holders of a badge, as it was read.
    pub(super) fn of(&self, number: &str) -> &[Holder] {
        self.by_number.get(&normal(number)).map_or(&[], Vec::as_slice)
    }

    /// The badge's number.
    pub(super) fn number(&self, holding: Digest) -> Option<&String> {
        self.numbers.get(&holding)
    }

    /// The holders of the same badge.
    pub(super) fn beside(&self, holding: Digest) -> &[Holder] {
        self.number(holding)
            .and_then(|number| self.by_number.get(number))
            .map_or(&[], Vec::as_slice)
    }
}
