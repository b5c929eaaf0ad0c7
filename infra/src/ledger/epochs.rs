//! The ledger's epochs: how the database is asked whether it still has the history that somebody
//! knew, and how a new epoch begins when it hasn't.

use std::collections::VecDeque;

use punchtrail_domain::{
    AggregateType,
    epoch::{Anchor, EpochEvent, History, NoticedBy, Whereabouts},
    log::recorded::Event,
};
use punchtrail_protocol::{Digest, EpochId, Position};
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{read, witness::Seen};

/// The longest time that the rows beside the ledger may take to be put back, in minutes: a
/// hundred million rows of chains are read once.
pub(super) const SET_BACK_MINUTES_MAX: u64 = 15;

/// The head, and what stands where somebody remembers an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub head: Position,
    /// When the event there was recorded, in microseconds since 1970.
    pub recorded_us: i64,
    pub epoch: EpochId,
    /// The leaf hash at the position that was asked for; none where no event stands.
    pub stored: Option<Digest>,
}

impl Look {
    /// Whether the ledger is as it was when `anchor` was its newest event, in `epoch`.
    pub(super) fn agrees(&self, epoch: EpochId, anchor: Anchor) -> bool {
        let stands = anchor.position == Position::START || self.stored == Some(anchor.leaf_hash);
        stands && self.epoch == epoch
    }

    pub(super) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            head: Position::from_db(row.try_get("head")?),
            recorded_us: row.try_get("recorded_us")?,
            epoch: EpochId(row.try_get("epoch")?),
            stored: digest(row, "stored")?,
        })
    }
}

/// A digest in a column that may be null.
pub(super) fn digest(row: &PgRow, column: &str) -> Result<Option<Digest>, sqlx::Error> {
    let bytes: Option<Vec<u8>> = row.try_get(column)?;
    let digest = |bytes: Vec<u8>| bytes.try_into().map(Digest);
    bytes.map(digest).transpose().map_err(|_| {
        sqlx::Error::Decode(format!("{column} doesn't have the length of a digest").into())
    })
}

/// Nobody else appends from here to the commit.
pub(super) async fn lock_head(
    connection: &mut PgConnection,
    at: Position,
) -> Result<Look, sqlx::Error> {
    let row = sqlx::query(
        "select position as head, (extract(epoch from recorded_at) * 1000000)::bigint as \
         recorded_us, epoch, (select leaf_hash from events where position = $1) as stored \
         from ledger_head for update",
    )
    .bind(at.to_db())
    .fetch_one(connection)
    .await?;
    Look::of(&row)
}

/// The epochs, and the event at the head.
///
/// # Errors
/// When the database is out of reach, or an epoch's event can't be read.
pub(super) async fn history(
    connection: &mut PgConnection,
) -> Result<(History, Anchor), sqlx::Error> {
    let row = sqlx::query(
        "select epoch, position, (select leaf_hash from events event \
         where event.position = head.position) as leaf_hash from ledger_head head",
    )
    .fetch_one(&mut *connection)
    .await?;
    let head = Anchor {
        position: Position::from_db(row.try_get("position")?),
        leaf_hash: digest(&row, "leaf_hash")?.unwrap_or_default(),
    };
    let events = read::of_kind(connection, AggregateType::Epoch).await?;
    let mut opened = Vec::with_capacity(events.len());
    for recorded in events {
        if let Event::Epoch(epoch, event) = recorded.event().map_err(read::undecodable)? {
            opened.push((epoch, event));
        }
    }
    Ok((History::new(EpochId(row.try_get("epoch")?), opened), head))
}

/// Those of the anchors, oldest first, that the ledger still has: up to the newest one that it has.
async fn standing(
    connection: &mut PgConnection,
    anchors: &VecDeque<Anchor>,
) -> Result<VecDeque<Anchor>, sqlx::Error> {
    let positions: Vec<_> = anchors.iter().map(|anchor| anchor.position.to_db()).collect();
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("select position, leaf_hash from events where position = any($1)")
            .bind(positions)
            .fetch_all(connection)
            .await?;
    let stands = |anchor: &Anchor| {
        anchor.position == Position::START
            || rows.iter().any(|(position, leaf_hash)| {
                *position == anchor.position.to_db() && *leaf_hash == anchor.leaf_hash.0
            })
    };
    let through = anchors.iter().rposition(stands).map_or(0, |newest| newest + 1);
    Ok(anchors.iter().take(through).copied().collect())
}

/// What somebody else than this node remembers of the ledger: a device, say, that was told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recollection {
    pub epoch: EpochId,
    pub anchor: Anchor,
}

/// Why the database's history is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doubt {
    /// It may not be the one that this node knows.
    Own,
    /// Somebody was told another one.
    Told(Recollection),
    /// An older copy was put back, which ends at `end`: what came after it is gone, whether or not
    /// anybody here remembers. `seen` is the highest position that is known of.
    PutBack { end: Position, seen: Position },
}

/// What a look under the head's lock came to.
pub(super) struct Found {
    /// What stood there when it was looked.
    pub before: Look,
    pub history: History,
    /// The event at the head.
    pub newest: Anchor,
    /// What this node remembers and still stands.
    pub standing: VecDeque<Anchor>,
    /// The epoch that has to begin, if the database went back and nobody has noticed yet.
    pub begins: Option<EpochEvent>,
    /// How many rows beside the ledger belonged to events that are gone.
    pub strays: i64,
}

/// Compares the database with what this node remembers, and with what is in doubt; all under the
/// head's lock, in the caller's transaction. Where a new epoch has to begin, the rows beside the
/// ledger have been put back to its events.
///
/// # Errors
/// When the database is out of reach, or an epoch's event can't be read.
pub(super) async fn compare(
    connection: &mut PgConnection,
    seen: &Seen,
    doubt: Doubt,
) -> Result<Found, sqlx::Error> {
    let known = seen.newest();
    let before = lock_head(connection, known.position).await?;
    let (history, newest) = history(connection).await?;
    if newest.position > Position::START && newest.leaf_hash == Digest::ZERO {
        let what = format!(
            "the ledger's head is {newest}, and no event stands there: rows were removed from its \
             end, and its head was not put back with them. Nothing is appended behind that hole; \
             look with `punchtrail ledger verify`",
            newest = newest.position
        );
        return Err(sqlx::Error::Protocol(what));
    }
    let standing = standing(connection, &seen.anchors).await?;
    let agreed = standing.back().map_or(Position::START, |anchor| anchor.position);
    let own = match history.whereabouts(seen.epoch, known, before.stored) {
        // What was said to stand must.
        Whereabouts::Gone { after } if standing.len() < up_to(seen, after) => {
            Whereabouts::Unnoticed
        }
        other => other,
    };
    let unknown = |epoch| history.stands_through(epoch).is_none().then_some(epoch);
    let ends = history.current();
    let begins = if let Doubt::PutBack { end, seen: known_of } = doubt {
        // Longer by now: the step back was noticed before, and stands there.
        (newest.position == end).then_some(EpochEvent::Opened {
            after: end,
            ends,
            lost: unknown(seen.epoch),
            seen: known.position.max(end).max(known_of),
            noticed_by: NoticedBy::Node,
        })
    } else if own == Whereabouts::Unnoticed {
        Some(EpochEvent::Opened {
            after: agreed,
            ends,
            lost: unknown(seen.epoch),
            seen: known.position,
            noticed_by: NoticedBy::Node,
        })
    } else if let Doubt::Told(told) = doubt {
        let stored = lock_head(connection, told.anchor.position).await?.stored;
        let whereabouts = history.whereabouts(told.epoch, told.anchor, stored);
        // Where the histories parted can't be told from one event that is gone.
        (whereabouts == Whereabouts::Unnoticed).then_some(EpochEvent::Opened {
            after: Position::START,
            ends,
            lost: unknown(told.epoch),
            seen: told.anchor.position,
            noticed_by: NoticedBy::Device,
        })
    } else {
        None
    };
    let strays = match begins {
        None => 0,
        Some(EpochEvent::Opened { noticed_by: NoticedBy::Node, after, .. }) => {
            set_back(connection, after).await?
        }
        // Rows of events that are there needn't be looked at one by one.
        Some(EpochEvent::Opened { .. }) => set_back(connection, before.head).await?,
    };
    Ok(Found { before, history, newest, standing, begins, strays })
}

/// How many of the anchors lie up to there.
fn up_to(seen: &Seen, after: Position) -> usize {
    seen.anchors.iter().filter(|anchor| anchor.position <= after).count()
}

async fn set_back(connection: &mut PgConnection, after: Position) -> Result<i64, sqlx::Error> {
    sqlx::query(&format!("set local statement_timeout = '{SET_BACK_MINUTES_MAX}min'"))
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar("select set_back($1)").bind(after.to_db()).fetch_one(connection).await
}
