//! Signed checkpoints of the ledger, written outside the database.
//!
//! A checkpoint is the Merkle root over all leaves up to a size, as a C2SP signed note. It is written
//! at most [`EVERY_MS`] after a change, after the commit, next to the database and not in it, so that
//! whoever alters the database can't alter what was said of it before. Copy the folder elsewhere, as
//! often as you like: that copy is what an alteration can't reach.
//!
//! A checkpoint is refused, and readiness says so, when the database is behind the newest one or
//! disagrees with it: then rows were removed or changed, or an older copy was put back. Punches are
//! taken all the same; devices bring back what a restored copy lacks. After a restore that was meant, an
//! operator opens a new epoch ([`Folder::open_epoch`]): a new tree under a new origin, with the old one
//! kept as it was.

mod folder;

use std::{sync::Arc, time::Duration};

use punchtrail_domain::log::{merkle::Frontier, signed_note::Checkpoint};
use punchtrail_protocol::{Digest, OrgId, Position};
use sqlx::PgPool;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

pub use folder::{Epoch, Folder, FolderError, Kept};

use crate::ledger::Ledger;

/// The longest time from a change to its checkpoint, in milliseconds.
pub const EVERY_MS: u64 = 5_000;
/// How many leaves are read at once.
const LEAVES_MAX: i64 = 20_000;

/// What the follower of checkpoints is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The newest checkpoint covers this many events.
    At(Position),
    /// No checkpoint is made, for this reason, until an operator has looked.
    Refused(String),
}

/// Why no checkpoint was made.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The database holds fewer events than the newest checkpoint covers.
    #[error(
        "the database ends at position {head}, but the newest checkpoint covers {size} events: rows \
         were removed, or an older copy was put back. Nothing was signed. Look with `punchtrail ledger \
         verify`; if the copy was put back on purpose, open a new epoch with `punchtrail checkpoint \
         new-epoch --reason …`"
    )]
    Behind {
        /// The head.
        head: Position,
        /// The checkpoint's size.
        size: u64,
    },
    /// The database holds another event where the newest checkpoint ends.
    #[error(
        "the event at position {0} is not the one that the newest checkpoint covers: rows were changed, \
         or an older copy was put back and written on. Nothing was signed. Look with `punchtrail ledger \
         verify`; if the copy was put back on purpose, open a new epoch with `punchtrail checkpoint \
         new-epoch --reason …`"
    )]
    Disagrees(Position),
    /// The folder could not be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The database was out of reach.
    #[error("the leaves can't be read now")]
    Database(#[from] sqlx::Error),
}

/// Signs what the ledger holds.
pub struct Checkpoints {
    pool: PgPool,
    folder: Arc<Folder>,
}

impl Checkpoints {
    /// Checkpoints of the ledger in `pool`, kept in `folder`.
    pub fn new(pool: PgPool, folder: Arc<Folder>) -> Self {
        Self { pool, folder }
    }

    /// Signs everything committed by now, if it is more than the newest checkpoint covers.
    ///
    /// # Errors
    /// See [`CheckpointError`]. Nothing is signed then.
    pub async fn advance(&self) -> Result<Position, CheckpointError> {
        let folder = Arc::clone(&self.folder);
        let (mut frontier, last) = blocking(move || folder.frontier()).await?;
        let head = crate::ledger::head(&self.pool).await?;
        self.agrees(&frontier, last, head).await?;
        if head.0 == frontier.size() {
            return Ok(head);
        }
        let mut last = last;
        while frontier.size() < head.0 {
            let leaves = self.leaves(Position(frontier.size()), head).await?;
            if leaves.is_empty() {
                return Err(CheckpointError::Behind { head, size: frontier.size() + 1 });
            }
            for leaf in leaves {
                frontier.push(leaf);
                last = leaf;
            }
        }
        let folder = Arc::clone(&self.folder);
        blocking(move || folder.keep(&frontier, last)).await?;
        Ok(head)
    }

    async fn agrees(
        &self,
        frontier: &Frontier,
        last: Digest,
        head: Position,
    ) -> Result<(), CheckpointError> {
        let size = frontier.size();
        if size == 0 {
            return Ok(());
        }
        if head.0 < size {
            return Err(CheckpointError::Behind { head, size });
        }
        match self.leaves(Position(size - 1), Position(size)).await?.first() {
            Some(leaf) if *leaf == last => Ok(()),
            _ => Err(CheckpointError::Disagrees(Position(size))),
        }
    }

    /// Leaf hashes after one position and up to another, dense.
    async fn leaves(&self, after: Position, to: Position) -> Result<Vec<Digest>, sqlx::Error> {
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "select position, leaf_hash from events where position > $1 and position <= $2 \
             order by position limit $3",
        )
        .bind(after.to_db())
        .bind(to.to_db())
        .bind(LEAVES_MAX)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .zip(after.0 + 1..)
            .map(|((position, hash), expected)| {
                if Position::from_db(position).0 != expected {
                    return Err(sqlx::Error::Protocol(format!(
                        "the ledger has a hole: position {expected} is missing"
                    )));
                }
                hash.try_into()
                    .map(Digest)
                    .map_err(|_| sqlx::Error::Protocol("a leaf hash has another length".into()))
            })
            .collect()
    }

    async fn run(self, ledger: Ledger, progress: watch::Sender<Progress>, stop: CancellationToken) {
        let mut feed = ledger.feed();
        let mut refused = false;
        loop {
            let covered = match self.advance().await {
                Ok(position) => {
                    refused = false;
                    progress.send_replace(Progress::At(position));
                    metrics::gauge!("punchtrail_checkpoint_refused").set(0.0);
                    metrics::gauge!("punchtrail_checkpoint_position").set(position.0 as f64);
                    position
                }
                Err(CheckpointError::Database(error)) => {
                    tracing::debug!(%error, "no checkpoint now; it is tried again");
                    feed.seen()
                }
                Err(error) => {
                    if !refused {
                        tracing::error!(%error, "no checkpoint is made");
                    }
                    refused = true;
                    progress.send_replace(Progress::Refused(error.to_string()));
                    metrics::gauge!("punchtrail_checkpoint_refused").set(1.0);
                    feed.seen()
                }
            };
            if stop.is_cancelled() {
                return;
            }
            let pause = tokio::time::sleep(Duration::from_millis(EVERY_MS));
            tokio::select! { () = stop.cancelled() => continue, () = pause => {} }
            let deadline = Instant::now() + Duration::from_millis(EVERY_MS);
            tokio::select! {
                () = stop.cancelled() => {}
                _ = feed.wait_beyond(covered, deadline) => {}
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FolderError> + Send + 'static,
) -> Result<T, CheckpointError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(FolderError::Interrupted(error.to_string()).into()),
    }
}

/// A running follower.
#[derive(Debug)]
pub struct Running {
    /// What it is doing.
    pub progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
}

impl Running {
    /// Waits for the last checkpoint, after its token was cancelled.
    pub async fn settled(self) {
        let _ = self.task.await;
    }
}

/// Starts signing what this node's ledger holds into `folder`.
pub fn spawn(ledger: Ledger, folder: Arc<Folder>, stop: CancellationToken) -> Running {
    let (publish, progress) = watch::channel(Progress::At(Position::START));
    let checkpoints = Checkpoints::new(ledger.pool().clone(), folder);
    let task = tokio::spawn(checkpoints.run(ledger, publish, stop));
    Running { progress, task }
}

/// The origin under which an epoch's checkpoints are signed.
pub fn origin(org: OrgId, epoch: u32) -> String {
    format!("punchtrail/{org}/{epoch}")
}

/// Whether a checkpoint covers exactly these leaves.
pub fn covers(checkpoint: &Checkpoint, frontier: &Frontier) -> bool {
    checkpoint.size == frontier.size() && checkpoint.root == frontier.root()
}
