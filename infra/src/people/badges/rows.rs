//! The holdings as they stand beside the ledger: read, and moved along with the events that move
//! them, in one transaction. It runs under the head's lock, so what is looked at there is exact.

use std::collections::HashMap;

use jiff_sqlx::{Timestamp, ToSqlx};
use punchtrail_domain::employee::{self, EmployeeEvent};
use punchtrail_protocol::{Digest, EmployeeId, Time};
use sqlx::{PgConnection, PgExecutor, Row, postgres::PgRow};
use uuid::Uuid;

const SALT_BYTES: usize = 16;

/// That somebody holds a badge, with its number.
#[derive(Clone, PartialEq, Eq)]
pub struct HoldingRow {
    pub holding: Digest,
    pub employee: EmployeeId,
    pub number: String,
    /// None: since before holdings were dated.
    pub from: Option<Time>,
    pub until: Option<Time>,
}

impl HoldingRow {
    /// Whether it goes on at that time or after it.
    pub fn goes_on(&self, at: Time) -> bool {
        self.until.is_none_or(|until| at < until && self.from.is_none_or(|from| from < until))
    }

    /// Whether it was ever held: one that ended when it began wasn't.
    pub fn is_any(&self) -> bool {
        self.until.is_none_or(|until| self.from.is_none_or(|from| from < until))
    }
}

fn read(row: &PgRow) -> Result<HoldingRow, sqlx::Error> {
    let bytes: &[u8] = row.try_get("holding")?;
    let time = |column| -> Result<Option<Time>, sqlx::Error> {
        Ok(row.try_get::<Option<Timestamp>, _>(column)?.map(|at| at.to_jiff().into()))
    };
    Ok(HoldingRow {
        holding: bytes.try_into().map(Digest).map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
        employee: EmployeeId(row.try_get("employee")?),
        number: row.try_get("number")?,
        from: time("held_from")?,
        until: time("held_until")?,
    })
}

const SELECT: &str = "select holding, employee, number, nullif(held_from, '-infinity') as \
     held_from, held_until from badge_holdings";
const ORDER: &str = "order by badge_holdings.held_from, holding";

/// Every time that a person held or holds a badge, the earliest first.
///
/// # Errors
/// When the database is out of reach.
pub async fn of_employee(
    executor: impl PgExecutor<'_>,
    employee: EmployeeId,
) -> Result<Vec<HoldingRow>, sqlx::Error> {
    let statement = format!("{SELECT} where employee = $1 {ORDER}");
    let found = sqlx::query(&statement).bind(employee.uuid());
    found.try_map(|row| read(&row)).fetch_all(executor).await
}

/// Every time that somebody held or holds one of these badges, the earliest first.
///
/// # Errors
/// When the database is out of reach.
pub async fn of_numbers(
    executor: impl PgExecutor<'_>,
    numbers: &[String],
) -> Result<Vec<HoldingRow>, sqlx::Error> {
    let statement = format!("{SELECT} where number = any($1) {ORDER}");
    let found = sqlx::query(&statement).bind(numbers);
    found.try_map(|row| read(&row)).fetch_all(executor).await
}

/// Those of badges that are one of these but for leading zeros.
pub(in crate::people) async fn but_for_zeros(
    executor: impl PgExecutor<'_>,
    without_zeros: &[&str],
) -> Result<Vec<HoldingRow>, sqlx::Error> {
    let statement = format!("{SELECT} where ltrim(number, '0') = any($1) {ORDER}");
    let found = sqlx::query(&statement).bind(without_zeros);
    found.try_map(|row| read(&row)).fetch_all(executor).await
}

/// Those of people.
pub(in crate::people) async fn of_employees(
    executor: impl PgExecutor<'_>,
    employees: &[Uuid],
) -> Result<Vec<HoldingRow>, sqlx::Error> {
    let statement = format!("{SELECT} where employee = any($1) {ORDER}");
    let found = sqlx::query(&statement).bind(employees);
    found.try_map(|row| read(&row)).fetch_all(executor).await
}

/// A number that is about to be held, under a salt of its own.
#[derive(Clone)]
pub(in crate::people) struct Fresh {
    pub holding: Digest,
    salt: [u8; SALT_BYTES],
    number: String,
}

impl Fresh {
    pub(in crate::people) fn of(number: &str) -> Self {
        let salt: [u8; SALT_BYTES] = rand::random();
        Self { holding: employee::holding(&salt, number), salt, number: number.to_owned() }
    }
}

/// What events make of one row.
#[derive(Clone)]
struct Move {
    employee: EmployeeId,
    from: Option<Time>,
    until: Option<Time>,
}

/// What is to be written of holdings with the events of an append.
#[derive(Clone, Default)]
pub(in crate::people) struct Moves {
    moves: HashMap<Digest, Move>,
    fresh: HashMap<Digest, Fresh>,
}

impl Moves {
    /// Takes a person's events, and the numbers that they name for the first time.
    pub(in crate::people) fn take(
        &mut self,
        employee: EmployeeId,
        events: &[EmployeeEvent],
        fresh: impl IntoIterator<Item = Fresh>,
    ) {
        self.fresh.extend(fresh.into_iter().map(|fresh| (fresh.holding, fresh)));
        for event in events {
            match event {
                EmployeeEvent::BadgeIssued { holding, from } => {
                    let from = Some(*from);
                    self.moves.insert(*holding, Move { employee, from, until: None });
                }
                EmployeeEvent::BadgeEnded { holding, until, .. } => {
                    let unmoved = Move { employee, from: None, until: None };
                    self.moves.entry(*holding).or_insert(unmoved).until = Some(*until);
                }
                _ => {}
            }
        }
    }

    pub(in crate::people) fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// Writes the rows. Refused by `RowNotFound` when a number would be two holdings' at once.
    pub(in crate::people) async fn write(
        &self,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        if self.is_empty() {
            return Ok(());
        }
        let known = self.moves.iter().filter(|(holding, _)| !self.fresh.contains_key(*holding));
        let (mut ids, mut from, mut until) = (vec![], vec![], vec![]);
        for (holding, moved) in known {
            ids.push(holding.0.as_slice());
            from.push(moved.from.map(|at| at.timestamp().to_sqlx()));
            until.push(moved.until.map(|at| at.timestamp().to_sqlx()));
        }
        sqlx::query(
            "update badge_holdings held set held_from = coalesce(moved.held_from, \
             held.held_from), held_until = moved.held_until from unnest($1::bytea[], \
             $2::timestamptz[], $3::timestamptz[]) as moved (holding, held_from, held_until) \
             where held.holding = moved.holding",
        )
        .bind(ids)
        .bind(from)
        .bind(until)
        .execute(&mut *connection)
        .await?;
        self.insert(connection).await?;
        let touched: Vec<&[u8]> = self.moves.keys().map(|holding| holding.0.as_slice()).collect();
        let twice: bool = sqlx::query_scalar(
            "select exists (select from badge_holdings held join badge_holdings other \
             on other.number = held.number and other.holding <> held.holding \
             and tstzrange(other.held_from, other.held_until) \
                 && tstzrange(held.held_from, held.held_until) \
             where held.holding = any($1))",
        )
        .bind(touched)
        .fetch_one(connection)
        .await?;
        if twice { Err(sqlx::Error::RowNotFound) } else { Ok(()) }
    }

    async fn insert(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (mut ids, mut people, mut numbers, mut salts) = (vec![], vec![], vec![], vec![]);
        let (mut from, mut until) = (vec![], vec![]);
        for (holding, fresh) in &self.fresh {
            let Some(moved) = self.moves.get(holding) else { continue };
            ids.push(holding.0.as_slice());
            people.push(moved.employee.uuid());
            numbers.push(fresh.number.as_str());
            salts.push(fresh.salt.as_slice());
            from.push(moved.from.unwrap_or_default().timestamp().to_sqlx());
            until.push(moved.until.map(|at| at.timestamp().to_sqlx()));
        }
        sqlx::query(
            "insert into badge_holdings (holding, employee, number, salt, held_from, held_until) \
             select * from unnest($1::bytea[], $2::uuid[], $3::text[], $4::bytea[], \
             $5::timestamptz[], $6::timestamptz[])",
        )
        .bind(ids)
        .bind(people)
        .bind(numbers)
        .bind(salts)
        .bind(from)
        .bind(until)
        .execute(connection)
        .await
        .map(drop)
    }
}
