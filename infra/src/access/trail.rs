//! The audit trail: who did what that bears on security, from where and when. It is added to and
//! never changed, by the ledger's own role and triggers, and holds ids and codes: no names, no
//! texts that somebody typed.
//!
//! Failed sign-ins are counted where they would be many: a minute's first from an address is kept,
//! then its tenth, its hundredth …, and of all addresses together so many a minute one by one. So
//! ten thousand guesses leave a few lines and hide nothing.

use std::net::IpAddr;

use jiff_sqlx::{Timestamp, ToSqlx as _};
use punchtrail_domain::log::recorded::Actor;
use punchtrail_protocol::{Digest, Time};
use sqlx::{PgExecutor, Postgres, QueryBuilder, Row, postgres::PgRow};

use super::tries;
use crate::postgres::Pool;

/// Failures of all addresses that are kept one by one in a minute.
const FAILURES_A_MINUTE_MAX: u64 = 60;
const MINUTE_S: u32 = 60;

/// Who does something, from where and by what request.
#[derive(Debug, Clone, Default)]
pub struct Doer {
    /// None for whoever isn't known.
    pub actor: Option<Actor>,
    pub address: Option<IpAddr>,
    pub request: Option<String>,
}

impl Doer {
    /// Whoever sits at the server's own command line.
    pub fn command_line() -> Self {
        Self { actor: Some(Actor::CommandLine), ..Self::default() }
    }

    /// The same, known to be that user.
    #[must_use]
    pub fn known_as(&self, user: super::ids::UserId) -> Self {
        Self { actor: Some(Actor::User(user.0)), ..self.clone() }
    }

    fn named(&self) -> String {
        self.actor.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string)
    }
}

/// What was done.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Act {
    SignedIn,
    SignInFailed,
    SignInThrottled,
    SignedOut,
    SessionsEnded,
    LinkMade,
    LinkUsed,
    PasswordChanged,
    SecondFactorSet,
    SecondFactorRemoved,
    RecoveryCodeUsed,
    UserInvited,
    RoleChanged,
    UserDisabled,
    UserEnabled,
    UserTied,
    UserErased,
    ProviderTied,
    ProviderUntied,
    RoleRuleChanged,
    KeyMade,
    KeyRevoked,
    GrantMade,
    GrantEnded,
    PhotoRead,
    PersonExported,
    PersonErased,
    FaceErased,
    NoteErased,
    DeviceRevoked,
    PairingCodeMade,
    WebhookMade,
    WebhookChanged,
    WebhookSecretMade,
    WebhookDisabled,
    WebhookEnabled,
    WebhookRemoved,
}

impl Act {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Writes a line.
///
/// # Errors
/// When the database is out of reach: then it must not be done.
pub async fn note(
    executor: impl PgExecutor<'_>,
    doer: &Doer,
    act: Act,
    subject: Option<String>,
    detail: Option<&str>,
) -> Result<(), sqlx::Error> {
    write(executor, doer, act, (subject, detail), 1).await
}

async fn write(
    executor: impl PgExecutor<'_>,
    doer: &Doer,
    act: Act,
    (subject, detail): (Option<String>, Option<&str>),
    count: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into trail (actor, act, subject, address, request, detail, count) \
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(doer.named())
    .bind(act.as_str())
    .bind(subject)
    .bind(doer.address.map(|address| address.to_string()))
    .bind(&doer.request)
    .bind(detail)
    .bind(count.cast_signed())
    .execute(executor)
    .await
    .map(drop)
}

/// Writes that somebody failed, unless so many did in this minute that they are counted.
///
/// # Errors
/// When the database is out of reach.
pub async fn note_failure(
    writer: &Pool,
    doer: &Doer,
    act: Act,
    subject: Option<String>,
) -> Result<(), sqlx::Error> {
    let address = doer.address.map(|address| address.to_string()).unwrap_or_default();
    let bucket = |whose: &str| {
        Digest::of_parts(&[b"punchtrail.trail.v1", act.as_str().as_bytes(), whose.as_bytes()])
    };
    let of_address = tries::count(writer, bucket(&address), MINUTE_S).await?.tries;
    if !is_told(of_address) {
        return Ok(());
    }
    let of_all = tries::count(writer, bucket("all"), MINUTE_S).await?.tries;
    if of_all > FAILURES_A_MINUTE_MAX && !is_told(of_all) {
        return Ok(());
    }
    write(writer, doer, act, (subject, None), of_address).await
}

/// 1, 10, 100 …
fn is_told(count: u64) -> bool {
    count > 0 && 10_u64.pow(count.ilog10()) == count
}

/// Which lines; what is none is not asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// As events name one.
    pub actor: Option<String>,
    pub act: Option<Act>,
    pub subject: Option<String>,
    pub from: Option<Time>,
    pub to: Option<Time>,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number; later lines have higher ones.
    pub id: u64,
    pub at: Time,
    /// As events name one; `nobody` for whoever isn't known.
    pub actor: String,
    pub act: String,
    pub subject: Option<String>,
    pub address: Option<String>,
    pub request: Option<String>,
    pub detail: Option<String>,
    /// How many such there had been from there in that minute.
    pub count: u64,
}

/// The lines that `filter` asks for, the newest first, before that one; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn list(
    reader: &Pool,
    filter: &Filter,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<Line>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("select * from trail where true");
    if let Some(actor) = &filter.actor {
        query.push(" and actor = ").push_bind(actor);
    }
    if let Some(act) = filter.act {
        query.push(" and act = ").push_bind(act.as_str());
    }
    if let Some(subject) = &filter.subject {
        query.push(" and subject = ").push_bind(subject);
    }
    if let Some(from) = filter.from {
        query.push(" and at >= ").push_bind(from.timestamp().to_sqlx());
    }
    if let Some(to) = filter.to {
        query.push(" and at < ").push_bind(to.timestamp().to_sqlx());
    }
    if let Some(before) = before {
        query.push(" and id < ").push_bind(before.cast_signed());
    }
    query.push(" order by id desc limit ").push_bind(i64::from(limit));
    query.build().try_map(|row: PgRow| line(&row)).fetch_all(reader).await
}

fn line(row: &PgRow) -> Result<Line, sqlx::Error> {
    Ok(Line {
        id: row.try_get::<i64, _>("id")?.cast_unsigned(),
        at: row.try_get::<Timestamp, _>("at")?.to_jiff().into(),
        actor: row.try_get("actor")?,
        act: row.try_get("act")?,
        subject: row.try_get("subject")?,
        address: row.try_get("address")?,
        request: row.try_get("request")?,
        detail: row.try_get("detail")?,
        count: row.try_get::<i64, _>("count")?.cast_unsigned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDatabase;

    #[test]
    fn every_tenfold_is_told() {
        let told: Vec<u64> = (0..=100_000).filter(|count| is_told(*count)).collect();
        assert_eq!(told, [1, 10, 100, 1_000, 10_000, 100_000]);
    }

    #[tokio::test]
    async fn lines_are_added_and_never_changed_and_failures_are_counted() {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let address = Some("192.0.2.7".parse().unwrap());
        let doer = Doer { address, ..Doer::default() };
        for _ in 0..150 {
            note_failure(&pools.writer, &doer, Act::SignInFailed, None).await.unwrap();
        }
        let lines = list(&pools.reader, &Filter::default(), None, 100).await.unwrap();
        let counts: Vec<u64> = lines.iter().rev().map(|line| line.count).collect();
        // A minute may end in between; it is told of anew then.
        assert!(counts.len() <= 6 && counts.starts_with(&[1, 10]), "{counts:?}");
        for change in ["update trail set actor = 'x'", "delete from trail", "truncate trail"] {
            assert!(sqlx::query(change).execute(&pools.writer).await.is_err(), "{change}");
            assert!(sqlx::query(change).execute(&pools.owner).await.is_err(), "{change}");
        }
        pools.close().await;
        database.close().await;
    }
}
