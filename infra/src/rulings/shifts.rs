//! Two punches that a person joins to one exceptionally long shift.

use std::time::Duration;

use jiff_sqlx::ToSqlx;
use punchtrail_domain::punch::{Punch, PunchError, PunchEvent};
use punchtrail_protocol::{EmployeeId, PunchId, Time, capture::PunchKind};
use uuid::Uuid;

use super::{Author, Fault, RuleError};
use crate::ledger::{Ledger, Loaded, ReadError, StreamAppend, load};

/// The longest shift that two punches may be joined to.
pub const SHIFT_JOINED_MAX: Duration = Duration::from_hours(72);
/// The most punches before an `out` that are asked whether they are joined with it.
const BEFORE_MAX: i64 = 500;

/// Whether `out` can end the shift that `opening` begins: both count, for the same person, and the
/// one is after the other, in time.
///
/// # Errors
/// What is in the way.
pub fn fits(opening: &Punch, out: &Punch) -> Result<(), Fault> {
    let (Some((began, _)), Some((ended, kind))) = (opening.effective(), out.effective()) else {
        return Err(Fault::NoSuchOut);
    };
    let counts = |punch: &Punch| punch.standing().counts() && !punch.is_nobodys();
    let same = opening.employee() == out.employee();
    if kind != PunchKind::Out || !same || !counts(opening) || !counts(out) {
        return Err(Fault::NoOut);
    }
    let apart_ms = ended.millis_since(began);
    let most_ms = i64::try_from(SHIFT_JOINED_MAX.as_millis()).unwrap_or(i64::MAX);
    if apart_ms <= 0 || apart_ms > most_ms { Err(Fault::TooFarApart) } else { Ok(()) }
}

/// That the `out` of a shift is such that it ends the shift, until the shift is joined.
pub(super) async fn held(
    ledger: &Ledger,
    author: &Author,
    (punch, opening): (PunchId, &Punch),
    out: PunchId,
) -> Result<Vec<StreamAppend>, RuleError<PunchError>> {
    // What is no `in` that counts is refused as such.
    match opening.effective() {
        Some((_, PunchKind::In)) if opening.standing().counts() => {}
        _ => return Ok(Vec::new()),
    }
    let loaded: Loaded<Punch> = ledger.load(&out.to_string()).await?;
    if loaded.aggregate.origin().is_none() {
        return Err(Fault::NoSuchOut.into());
    }
    super::rests::concerned(author, &loaded.aggregate)?;
    fits(opening, &loaded.aggregate)?;
    if let (Some(employee), Some((ended, _))) = (opening.employee(), loaded.aggregate.effective())
        && is_taken(ledger, employee, (out, ended), punch).await?
    {
        return Err(Fault::Taken.into());
    }
    Ok(vec![StreamAppend::of::<PunchEvent>(out, loaded.sequence, &[])])
}

/// Whether another `in` of the person, made in time before an `out`, is joined with it.
async fn is_taken(
    ledger: &Ledger,
    employee: EmployeeId,
    (out, ended): (PunchId, Time),
    but: PunchId,
) -> Result<bool, ReadError> {
    let most_ms = i64::try_from(SHIFT_JOINED_MAX.as_millis()).unwrap_or(i64::MAX);
    let before: Vec<Uuid> = sqlx::query_scalar(
        "select punch from judged_punches where employee = $1 and true_at between $2 and $3 \
         and punch <> $4 order by true_at desc limit $5",
    )
    .bind(employee.uuid())
    .bind(ended.plus_millis(-most_ms).timestamp().to_sqlx())
    .bind(ended.timestamp().to_sqlx())
    .bind(but.uuid())
    .bind(BEFORE_MAX)
    .fetch_all(ledger.pool())
    .await?;
    let ids: Vec<String> = before.iter().map(Uuid::to_string).collect();
    let punches = load::<Punch>(ledger.pool(), &ids).await?;
    let joined = |punch: &Punch| punch.joined() == Some(out) && punch.standing().counts();
    Ok(punches.values().any(|loaded| joined(&loaded.aggregate)))
}
