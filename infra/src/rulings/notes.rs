//! People's notes: free text beside the ledger, bound to it by a salted digest. The event says
//! which note was there; the note can be erased, and the salt with it, and then the digest says
//! nothing.

use std::{collections::HashMap, fmt};

use punchtrail_domain::log::recorded::Actor;
use punchtrail_protocol::Digest;
use sqlx::{PgConnection, PgExecutor};

use crate::{
    ledger::{self, SideWrite},
    postgres::Pool,
};

const SALT_BYTES: usize = 16;

/// A note that is to be kept with an event.
#[derive(Clone)]
pub struct Note {
    salt: [u8; SALT_BYTES],
    body: String,
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Note")
    }
}

impl Note {
    /// A note of that text, with a new salt.
    pub fn new(body: String) -> Self {
        Self { salt: rand::random(), body }
    }

    /// What the event holds of it.
    pub fn digest(&self) -> Digest {
        digest(&self.salt, &self.body)
    }

    /// What it says.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Keeps many of one author.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn insert_all(
        notes: &[Self],
        connection: &mut PgConnection,
        author: &Actor,
    ) -> Result<(), sqlx::Error> {
        let digests: Vec<Vec<u8>> = notes.iter().map(|note| note.digest().0.to_vec()).collect();
        let salts: Vec<&[u8]> = notes.iter().map(|note| note.salt.as_slice()).collect();
        let bodies: Vec<&str> = notes.iter().map(|note| note.body.as_str()).collect();
        sqlx::query(
            "insert into notes (digest, salt, author, body) \
             select digest, salt, $3, body from unnest($1::bytea[], $2::bytea[], $4::text[]) \
             as new (digest, salt, body)",
        )
        .bind(digests)
        .bind(salts)
        .bind(author.to_string())
        .bind(bodies)
        .execute(connection)
        .await
        .map(drop)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn insert(
        &self,
        connection: &mut PgConnection,
        author: &Actor,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("insert into notes (digest, salt, author, body) values ($1, $2, $3, $4)")
            .bind(self.digest().0.as_slice())
            .bind(self.salt.as_slice())
            .bind(author.to_string())
            .bind(&self.body)
            .execute(connection)
            .await
            .map(drop)
    }
}

/// A note as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptNote {
    /// Who wrote it, as events name an actor.
    pub author: String,
    pub body: String,
}

/// Those of the notes that are there.
///
/// # Errors
/// When the database is out of reach.
pub async fn kept(
    executor: impl PgExecutor<'_>,
    digests: &[Digest],
) -> Result<HashMap<Digest, KeptNote>, sqlx::Error> {
    if digests.is_empty() {
        return Ok(HashMap::new());
    }
    let asked: Vec<&[u8]> = digests.iter().map(|digest| digest.0.as_slice()).collect();
    let rows: Vec<(Vec<u8>, String, String)> =
        sqlx::query_as("select digest, author, body from notes where digest = any($1)")
            .bind(asked)
            .fetch_all(executor)
            .await?;
    let note = |(digest, author, body): (Vec<u8>, String, String)| {
        Some((Digest(digest.try_into().ok()?), KeptNote { author, body }))
    };
    Ok(rows.into_iter().filter_map(note).collect())
}

/// Erases a note and its salt; what the event holds of it says nothing then. Whether it was there.
///
/// # Errors
/// When the database is out of reach.
pub async fn erase(writer: &Pool, note: Digest) -> Result<bool, sqlx::Error> {
    let delete = SideWrite::new(move |connection| {
        Box::pin(async move {
            let done = sqlx::query("delete from notes where digest = $1")
                .bind(note.0.as_slice())
                .execute(connection)
                .await?;
            if done.rows_affected() > 0 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
        })
    });
    match ledger::beside(writer, delete).await {
        Err(sqlx::Error::RowNotFound) => Ok(false),
        done => done.map(|()| true),
    }
}

/// The digest that binds a note to its event.
pub fn digest(salt: &[u8], body: &str) -> Digest {
    Digest::of_parts(&[b"punchtrail.note.v1", salt, body.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_notes_of_one_text_can_not_be_told_to_be_alike() {
        let [a, b] = [Note::new("late bus".to_owned()), Note::new("late bus".to_owned())];
        assert_ne!(a.digest(), b.digest());
        assert!(!format!("{a:?}").contains("bus"));
    }
}
