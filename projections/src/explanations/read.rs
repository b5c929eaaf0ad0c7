//! Explanations of punches: three statements, for one punch or for many at once.

use std::{collections::BTreeMap, sync::Arc};

use punchtrail_domain::{
    AggregateType, Recorded,
    aggregate::Undecodable,
    explanation::{Account, Explanation, Names},
};
use punchtrail_infra::{
    ledger::{self, ReadError},
    postgres::Pool,
};
use punchtrail_protocol::{EmployeeId, PunchId};

use super::{
    cards,
    context::{Surroundings, Wanted},
    disputed,
};

/// Why a punch could not be explained.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExplainError {
    /// The events of the punch, or of what surrounds it, can't be read, now or by this program.
    #[error(transparent)]
    Read(Arc<ReadError>),
    /// Too many ask at once, or the server is stopping. Nothing was read; ask again.
    #[error("too many ask for explanations just now")]
    Busy,
}

impl From<ReadError> for ExplainError {
    fn from(error: ReadError) -> Self {
        Self::Read(Arc::new(error))
    }
}

impl From<Undecodable> for ExplainError {
    fn from(error: Undecodable) -> Self {
        ReadError::from(error).into()
    }
}

/// Explains a punch; none if the ledger has no punch of that id.
///
/// # Errors
/// See [`ExplainError`].
pub async fn explain(pool: &Pool, punch: PunchId) -> Result<Option<Explanation>, ExplainError> {
    let explained = explain_many(pool, &[punch]).await?;
    explained.into_iter().next().unwrap_or(Ok(None))
}

/// Explains many punches, answers in the order asked; none for an id that the ledger has no punch
/// of.
///
/// # Errors
/// When the database is out of reach. What can't be read fails only its own punch.
pub async fn explain_many(
    pool: &Pool,
    punches: &[PunchId],
) -> Result<Vec<Result<Option<Explanation>, ExplainError>>, ExplainError> {
    let found = accounts(pool, punches).await?;
    let surroundings = surroundings(pool, &found).await?;
    Ok(found.into_iter().map(|account| Ok(account?.map(|a| told(a, &surroundings)))).collect())
}

/// The same, told to one person about their own punches: nobody else is named.
///
/// # Errors
/// See [`explain_many`].
pub async fn explain_many_to(
    pool: &Pool,
    employee: EmployeeId,
    punches: &[PunchId],
) -> Result<Vec<Result<Option<Explanation>, ExplainError>>, ExplainError> {
    let found = accounts(pool, punches).await?;
    let mut surroundings = surroundings(pool, &found).await?;
    surroundings.names.employees.retain(|named, _| *named == employee);
    surroundings.names.erased.retain(|named, _| *named == employee);
    Ok(found.into_iter().map(|account| Ok(account?.map(|a| told(a, &surroundings)))).collect())
}

/// What the ledger says of a punch, or why it can't be read.
pub(super) type Found = Result<Option<Account>, Undecodable>;

/// The punches' own events, read.
pub(super) async fn accounts(pool: &Pool, punches: &[PunchId]) -> Result<Vec<Found>, ReadError> {
    let ids: Vec<String> = punches.iter().map(PunchId::to_string).collect();
    let events = ledger::streams(pool, AggregateType::Punch, &ids).await?;
    let streams: Vec<&[Recorded]> =
        events.chunk_by(|a, b| a.aggregate_id == b.aggregate_id).collect();
    let of = |id: &String| {
        let at = streams.binary_search_by(|stream| stream[0].aggregate_id.cmp(id));
        Account::of(at.map_or(&[], |at| streams[at]))
    };
    Ok(ids.iter().map(of).collect())
}

/// What surrounds them.
async fn surroundings(pool: &Pool, found: &[Found]) -> Result<Surroundings, ReadError> {
    let mut around = Surroundings::read_from(pool, &Wanted::of(&readable(found))).await?;
    disputed::add(pool, found, &mut around).await?;
    cards::add(pool, found, &mut around).await?;
    Ok(around)
}

/// The punches that were found and can be read.
pub(super) fn readable(found: &[Found]) -> Vec<&Account> {
    found.iter().filter_map(|account| account.as_ref().ok()?.as_ref()).collect()
}

/// A punch amid what surrounds it.
pub(super) fn told(account: Account, surroundings: &Surroundings) -> Explanation {
    let context = surroundings.around(&account);
    account.told(&context, &surroundings.names)
}

/// The same without workers' names and without the texts of notes, for whoever may not see them.
pub(super) fn told_without_names(account: Account, surroundings: &Surroundings) -> Explanation {
    let context = surroundings.around(&account);
    let nobody = (BTreeMap::new(), BTreeMap::new());
    let names = Names { employees: nobody.0, notes: nobody.1, ..surroundings.names.clone() };
    account.told(&context, &names)
}
