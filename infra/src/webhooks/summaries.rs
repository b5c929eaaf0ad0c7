//! What an endpoint's contact is written: once an hour at most, and only when there is something to
//! do about. Deliveries that failed for good, an endpoint that takes nothing any more, and when it
//! will be disabled, so that nobody finds that out by himself.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::{Timestamp as Kept, ToSqlx as _};
use punchtrail_protocol::Time;
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::queue::FAILING_MAX;
use crate::{
    mail::{self, Mail},
    postgres::{Pool, Transaction, within},
};

/// Between two mails about an endpoint.
pub const EVERY: SignedDuration = SignedDuration::from_hours(1);
/// An endpoint that takes nothing for so long is worth a mail …
const FAILING_FOR: SignedDuration = SignedDuration::from_hours(1);
/// … and another one each day.
const AGAIN: SignedDuration = SignedDuration::from_hours(24);
/// How long a look may take.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(30);
/// Endpoints that are looked at together.
const LOOK_MAX: i64 = 200;

/// What is to be said of an endpoint.
struct Said {
    endpoint: Uuid,
    name: String,
    contact: String,
    failed: i64,
    failing_since: Option<Timestamp>,
    disabled: Option<(Timestamp, String)>,
    last_error: Option<String>,
}

/// Writes the mails that are due; how many.
///
/// # Errors
/// When the database is out of reach.
pub async fn look(pool: &Pool, now: Timestamp) -> Result<usize, sqlx::Error> {
    within(LOOK_WAIT_MAX, async {
        let mut tx = pool.begin().await?;
        let said = due(&mut tx, now).await?;
        for about in &said {
            mail::write(&mut tx, &about.mail(), now).await?;
            sqlx::query("update webhook_endpoints set mailed_at = $2 where id = $1")
                .bind(about.endpoint)
                .bind(now.to_sqlx())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(said.len())
    })
    .await
}

async fn due(tx: &mut Transaction, now: Timestamp) -> Result<Vec<Said>, sqlx::Error> {
    sqlx::query(
        "select * from (select id, name, contact, failing_since, disabled_at, disabled_because, \
             last_error, mailed_at, (select count(*) from webhook_deliveries one \
                 where one.endpoint = endpoint.id and state = 'failed' \
                 and finished_at > coalesce(mailed_at, made_at)) as failed \
         from webhook_endpoints endpoint where contact is not null and removed_at is null \
         and (mailed_at is null or mailed_at <= $1) limit $4 for update skip locked) as endpoint \
         where failed > 0 \
         or (disabled_because <> 'person' and disabled_at > coalesce(mailed_at, '-infinity')) \
         or (disabled_at is null and failing_since <= $2 \
             and (mailed_at is null or mailed_at <= $3 or mailed_at < failing_since))",
    )
    .bind((now - EVERY).to_sqlx())
    .bind((now - FAILING_FOR).to_sqlx())
    .bind((now - AGAIN).to_sqlx())
    .bind(LOOK_MAX)
    .try_map(|row: PgRow| {
        let time = |column: &str| {
            Ok::<_, sqlx::Error>(row.try_get::<Option<Kept>, _>(column)?.map(|at| at.to_jiff()))
        };
        Ok(Said {
            endpoint: row.try_get("id")?,
            name: row.try_get("name")?,
            contact: row.try_get("contact")?,
            failed: row.try_get("failed")?,
            failing_since: time("failing_since")?,
            disabled: time("disabled_at")?.zip(row.try_get("disabled_because")?),
            last_error: row.try_get("last_error")?,
        })
    })
    .fetch_all(&mut **tx)
    .await
}

impl Said {
    fn mail(&self) -> Mail {
        let Self { endpoint, name, contact, failed, .. } = self;
        let at = |at: Timestamp| Time::from(at).to_string();
        let mut lines = Vec::new();
        if let Some((when, because)) = &self.disabled {
            let because = match because.as_str() {
                "gone" => "it answered 410, that it is gone",
                "failing" => "nothing but failures came for days",
                _ => "somebody disabled it",
            };
            lines.push(format!(
                "It is told nothing any more since {}: {because}. What happens meanwhile is \
                 delivered when it is enabled again:\n\n    punchtrail webhook enable {endpoint}\n",
                at(*when)
            ));
        } else if let Some(since) = self.failing_since {
            lines.push(format!(
                "It took nothing since {}. If that goes on it is disabled from {} on.\n",
                at(since),
                at(since + FAILING_MAX)
            ));
        }
        if *failed > 0 {
            lines.push(format!(
                "{failed} deliveries failed for good since the last mail: seven tries each. When \
                 the receiver is well again, have them sent once more:\n\n    \
                 punchtrail webhook redeliver {endpoint} --since TIME\n"
            ));
        }
        if let Some(error) = &self.last_error {
            lines.push(format!("What went wrong last: {error}.\n"));
        }
        let what = if self.disabled.is_some() { "is disabled" } else { "fails" };
        Mail {
            to: contact.clone(),
            subject: format!("Punchtrail: the webhook {name} {what}"),
            body: format!(
                "The webhook endpoint {name} ({endpoint}) {what}.\n\n{}\n\
                 No more than one such mail comes in an hour.\n",
                lines.join("\n")
            ),
        }
    }
}
