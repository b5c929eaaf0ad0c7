//! What requests with an `Idempotency-Key` were answered, for a day.
//!
//! A caller may name a request by a key of its own, and send it again when it got no answer. What
//! was done is written in one transaction with the answer (`crate::ledger::Once`), so a key that
//! has an answer has done its work, and one that has none has done nothing. That the work goes on
//! is noted before, for [`IN_FLIGHT_S`] at most: nothing rests on it but what others are told
//! meanwhile, and a node that dies leaves nothing behind that lasts.

use punchtrail_protocol::Digest;
use sqlx::{PgConnection, PgExecutor, Row};

use crate::{
    ledger::{Places, SideWrite},
    postgres::Pool,
};

/// How long an answer is kept, in hours.
pub const KEPT_HOURS: u32 = 24;
/// For how long others are told at most that a request is at work, in seconds.
pub const IN_FLIGHT_S: u32 = 15;
/// The largest answer that is kept, in bytes.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;

/// A request that is to be done once.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Who asks, as events name an actor.
    pub caller: String,
    /// Of the key.
    pub key: Digest,
    /// Of what is asked.
    pub fingerprint: Digest,
    pub request: String,
}

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    pub status: u16,
    pub content_type: Option<String>,
    /// None for one that isn't kept.
    pub body: Option<Vec<u8>>,
}

/// What a key stands for.
#[derive(Debug)]
pub enum Standing {
    /// Nothing yet: the work may be done.
    Free,
    /// The same key is at work, on some node.
    InFlight,
    /// It was used for something else.
    Reused,
    /// It was done, and answered so.
    Answered(KeptAnswer),
}

impl Claim {
    /// Looks what the key stands for; if it is free, others are told for a while that it is at
    /// work.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn begin(&self, writer: &Pool) -> Result<Standing, sqlx::Error> {
        let taken = sqlx::query(
            "insert into kept_answers as kept (caller, key, fingerprint, request, expires_at) \
             values ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5)) \
             on conflict (caller, key) do update set fingerprint = excluded.fingerprint, \
             request = excluded.request, expires_at = excluded.expires_at, status = null, \
             content_type = null, body = null, position = null \
             where kept.expires_at < clock_timestamp()",
        )
        .bind(&self.caller)
        .bind(self.key.0.as_slice())
        .bind(self.fingerprint.0.as_slice())
        .bind(&self.request)
        .bind(f64::from(IN_FLIGHT_S))
        .execute(writer)
        .await?;
        match taken.rows_affected() {
            0 => self.standing(writer).await,
            _ => Ok(Standing::Free),
        }
    }

    /// What the key stands for now, whether it is over or not.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn standing(&self, executor: impl PgExecutor<'_>) -> Result<Standing, sqlx::Error> {
        let kept = sqlx::query(
            "select fingerprint, status, content_type, body from kept_answers \
             where caller = $1 and key = $2",
        )
        .bind(&self.caller)
        .bind(self.key.0.as_slice())
        .fetch_optional(executor)
        .await?;
        // It ended since without an answer: who asks again does it.
        let Some(kept) = kept else { return Ok(Standing::InFlight) };
        if kept.try_get::<&[u8], _>("fingerprint")? != self.fingerprint.0 {
            return Ok(Standing::Reused);
        }
        let Some(status) = kept.try_get::<Option<i16>, _>("status")? else {
            return Ok(Standing::InFlight);
        };
        Ok(Standing::Answered(KeptAnswer {
            status: status.cast_unsigned(),
            content_type: kept.try_get("content_type")?,
            body: kept.try_get("body")?,
        }))
    }

    /// It ended without an answer that is kept: whoever asks again does the work.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn end(&self, writer: &Pool) -> Result<(), sqlx::Error> {
        sqlx::query(
            "delete from kept_answers where caller = $1 and key = $2 and request = $3 \
             and status is null",
        )
        .bind(&self.caller)
        .bind(self.key.0.as_slice())
        .bind(&self.request)
        .execute(writer)
        .await
        .map(drop)
    }

    /// Keeps the answer, in the transaction of what was done; refused by `RowNotFound` when one is
    /// kept already.
    pub fn keeping(&self, answer: KeptAnswer, places: Places) -> SideWrite {
        let (claim, answer) = (self.clone(), answer);
        SideWrite::at(move |connection, next| {
            let (claim, mut answer) = (claim.clone(), answer.clone());
            answer.body = answer.body.map(|body| places.put(&body, next));
            let position = places.last(next).map(punchtrail_protocol::Position::to_db);
            Box::pin(async move { claim.keep(&answer, position, connection).await })
        })
    }

    async fn keep(
        &self,
        answer: &KeptAnswer,
        position: Option<i64>,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        let done = sqlx::query(
            "insert into kept_answers as kept (caller, key, fingerprint, request, status, \
             content_type, body, position, expires_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, \
             clock_timestamp() + make_interval(hours => $9)) \
             on conflict (caller, key) do update set fingerprint = excluded.fingerprint, \
             request = excluded.request, status = excluded.status, \
             content_type = excluded.content_type, body = excluded.body, \
             position = excluded.position, expires_at = excluded.expires_at \
             where kept.status is null or kept.expires_at < clock_timestamp()",
        )
        .bind(&self.caller)
        .bind(self.key.0.as_slice())
        .bind(self.fingerprint.0.as_slice())
        .bind(&self.request)
        .bind(answer.status.cast_signed())
        .bind(&answer.content_type)
        .bind(&answer.body)
        .bind(position)
        .bind(KEPT_HOURS.cast_signed())
        .execute(connection)
        .await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
    }
}

/// Forgets what is over.
///
/// # Errors
/// When the database is out of reach.
pub async fn forget(writer: &Pool) -> Result<(), sqlx::Error> {
    sqlx::query("delete from kept_answers where expires_at < now()").execute(writer).await.map(drop)
}
