//! Mail: written into a table with what it is about, sent from there until it was taken, so that a
//! mail server that is away loses none.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx as _;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use sqlx::PgConnection;

use crate::postgres::Pool;

/// How long a mail server may take for one.
const SEND_MAX: Duration = Duration::from_secs(20);
/// Mails that are sent one after the other.
const AT_ONCE: i64 = 20;
/// One that is being sent is left alone for so long.
const IN_HAND: SignedDuration = SignedDuration::from_mins(10);
/// The first pause after a failure; doubled with each …
const PAUSE_FIRST_S: i64 = 30;
/// … up to this.
const PAUSE_S_MAX: i64 = 1_800;
/// Mails that nobody took for so long are given up, loudly.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A mail to be sent.
#[derive(Debug, Clone)]
pub struct Mail {
    pub to: String,
    pub subject: String,
    pub body: String,
}

/// Whether mail can be sent there.
pub fn is_address(text: &str) -> bool {
    text.parse::<Mailbox>().is_ok_and(|mailbox| mailbox.name.is_none()) && text.contains('@')
}

/// Writes a mail: it is sent once the transaction is committed.
///
/// # Errors
/// When the database is out of reach.
pub async fn write(
    connection: &mut PgConnection,
    mail: &Mail,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into mails (recipient, subject, body, made_at, due_at) values ($1, $2, $3, $4, $4)",
    )
    .bind(&mail.to)
    .bind(&mail.subject)
    .bind(&mail.body)
    .bind(now.to_sqlx())
    .execute(connection)
    .await
    .map(drop)
}

/// Why mail can't be sent as it was set.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("mail can't be sent by that server: {0}; give it as smtps://user@host or smtp://host")]
    Server(String),
    #[error("mail can't be sent from `{0}`; give an address like punchtrail@example.com")]
    From(String),
}

/// Who sends mail. Cheap to clone.
#[derive(Clone)]
pub struct Postman {
    smtp: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl fmt::Debug for Postman {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postman {{ from: {} }}", self.from)
    }
}

impl Postman {
    /// One that sends by the server of that URL (`smtps://user@host`, `smtp://host:25`, or
    /// `smtp://host?tls=required`), with that password if any, from that address.
    ///
    /// # Errors
    /// When the URL or the address can't be used.
    pub fn new(server: &str, password: Option<&str>, from: &str) -> Result<Self, MailError> {
        let mut url =
            url::Url::parse(server).map_err(|error| MailError::Server(error.to_string()))?;
        if let Some(password) = password
            && url.set_password(Some(password.trim_end())).is_err()
        {
            return Err(MailError::Server("it takes no password".to_owned()));
        }
        let smtp = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.as_str())
            // What it says may quote the password.
            .map_err(|_| MailError::Server("it can't be read".to_owned()))?
            .timeout(Some(SEND_MAX))
            .build();
        let from = from.parse().map_err(|_| MailError::From(from.to_owned()))?;
        Ok(Self { smtp, from })
    }

    async fn send(&self, mail: &Mail) -> Result<(), String> {
        let to = mail.to.parse().map_err(|_| "it has no address".to_owned())?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(mail.subject.as_str())
            .header(ContentType::TEXT_PLAIN)
            .body(mail.body.clone())
            .map_err(|error| error.to_string())?;
        let sending = tokio::time::timeout(SEND_MAX, self.smtp.send(message));
        match sending.await {
            Ok(sent) => sent.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err(format!("it took more than {} s", SEND_MAX.as_secs())),
        }
    }

    /// Sends what is due; how many were taken.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn round(&self, pool: &Pool, now: Timestamp) -> Result<usize, sqlx::Error> {
        let due: Vec<(i64, String, String, String, i32)> = sqlx::query_as(
            "update mails set due_at = $2, tries = tries + 1 where id in (select id from mails \
             where due_at <= $1 order by due_at limit $3 for update skip locked) \
             returning id, recipient, subject, body, tries",
        )
        .bind(now.to_sqlx())
        .bind((now + IN_HAND).to_sqlx())
        .bind(AT_ONCE)
        .fetch_all(pool)
        .await?;
        let mut taken = 0;
        for (id, to, subject, body, tries) in due {
            match self.send(&Mail { to, subject, body }).await {
                Ok(()) => {
                    sqlx::query("delete from mails where id = $1").bind(id).execute(pool).await?;
                    taken += 1;
                }
                Err(error) => {
                    tracing::warn!(mail = id, tries, "a mail was not taken; it is sent again");
                    put_off(pool, (id, tries), &error, now).await?;
                }
            }
        }
        Ok(taken)
    }
}

async fn put_off(
    pool: &Pool,
    (id, tries): (i64, i32),
    error: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let doubled = u32::try_from(tries - 1).unwrap_or_default().min(16);
    let pause_s = (PAUSE_FIRST_S << doubled).min(PAUSE_S_MAX);
    let error: String = error.chars().take(200).collect::<String>().replace('\0', "");
    sqlx::query("update mails set due_at = $2, error = $3 where id = $1")
        .bind(id)
        .bind((now + SignedDuration::from_secs(pause_s)).to_sqlx())
        .bind(error)
        .execute(pool)
        .await
        .map(drop)
}

/// Gives up mails that nobody took for a month.
///
/// # Errors
/// When the database is out of reach.
pub async fn sweep(pool: &Pool, now: Timestamp) -> Result<(), sqlx::Error> {
    let given_up = sqlx::query("delete from mails where made_at < $1")
        .bind((now - KEPT_FOR).to_sqlx())
        .execute(pool)
        .await?
        .rows_affected();
    if given_up > 0 {
        tracing::error!(given_up, "mails that nobody took for 30 days were given up");
    }
    Ok(())
}
