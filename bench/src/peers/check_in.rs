//! The pattern of most check-in products: a request brings a batch, and each item is inserted into
//! a table of its own unless it is there already; one transaction a request, eight at once.
//!
//! One row a punch holds what its three events hold here, with the fields that such products query
//! in columns of their own. The only index is the unique one.

use std::str::FromStr;

use jiff_sqlx::ToSqlx;
use punchtrail_protocol::{DeviceId, EmployeeId, Time, capture::Capture, signing::Signature};
use sqlx::postgres::{PgConnectOptions, PgPool};
use uuid::Uuid;

use super::{PEOPLE, connect, finish, side_by_side};
use crate::load;

const BATCH_PUNCHES: usize = 100;
const SCHEMA: &str = "create table check_ins (punch uuid primary key, device uuid not null, \
    employee uuid, kind text not null, captured_at timestamptz not null, \
    received_at timestamptz not null default now(), capture text not null, signature bytea not \
    null)";
const INSERT: &str = "insert into check_ins (punch, device, employee, kind, captured_at, capture, \
    signature) values ($1, $2, $3, $4, $5, $6, $7) on conflict (punch) do nothing";

/// An item of a request, as the product would have read it.
struct CheckIn {
    punch: Uuid,
    device: DeviceId,
    employee: Option<EmployeeId>,
    kind: &'static str,
    captured_at: Time,
    capture: String,
    signature: Signature,
}

/// Inserts every punch.
///
/// # Errors
/// When Postgres refuses, or holds another number of rows in the end.
pub async fn insert(url: &str, count: usize) -> anyhow::Result<f64> {
    let pool = connect(PgConnectOptions::from_str(url)?).await?;
    sqlx::query(SCHEMA).execute(&pool).await?;
    let requests = requests(count)?;
    let receivers = pool.clone();
    let rate = side_by_side(count, requests, move |request| take(receivers.clone(), request));
    let rate = rate.await?;
    finish(pool, "check_ins", count).await?;
    Ok(rate)
}

fn requests(count: usize) -> anyhow::Result<Vec<Vec<CheckIn>>> {
    let mut kiosk = load::Kiosk::unknown(PEOPLE);
    (0..count)
        .step_by(BATCH_PUNCHES)
        .map(|done| {
            let items = BATCH_PUNCHES.min(count - done);
            (0..items).map(|_| check_in(kiosk.punch())).collect()
        })
        .collect()
}

fn check_in(signed: load::Signed) -> anyhow::Result<CheckIn> {
    let capture = Capture::parse(signed.text.as_bytes())?;
    Ok(CheckIn {
        punch: capture.punch.uuid(),
        device: capture.device,
        employee: capture.employee,
        kind: capture.kind.as_str(),
        captured_at: capture.captured_at,
        capture: signed.text,
        signature: signed.signature,
    })
}

async fn take(pool: PgPool, request: Vec<CheckIn>) -> anyhow::Result<()> {
    let mut transaction = pool.begin().await?;
    for item in &request {
        sqlx::query(INSERT)
            .bind(item.punch)
            .bind(item.device.uuid())
            .bind(item.employee.map(EmployeeId::uuid))
            .bind(item.kind)
            .bind(item.captured_at.timestamp().to_sqlx())
            .bind(&item.capture)
            .bind(item.signature.0.as_slice())
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}
