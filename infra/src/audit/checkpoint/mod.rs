//! Signed checkpoints of the ledger, written outside the database.
//!
//! A checkpoint is the Merkle root over all leaves up to a size, as a C2SP signed note. It is
//! written at most [`EVERY_MS`] after a change, after the commit, next to the database and not in
//! it, so that whoever alters the database can't alter what was said of it before. Copy the folder
//! elsewhere, as often as you like: that copy is what an alteration can't reach.
//!
//! A checkpoint is refused, and readiness says so, when the database is behind the newest one or
//! disagrees with it: then rows were removed or changed, or an older copy was put back. Punches are
//! taken all the same; devices bring back what a restored copy lacks. After a restore that was
//! meant, an operator opens a new epoch ([`Checkpoints::open_epoch`]): a new tree under a new
//! origin, with the old one kept as it was. What was signed before must still hold up to the fork
//! point, which stands signed in the new epoch; so nothing is washed away by opening one.

mod folder;
mod fork;

use std::sync::Arc;

use futures::future::BoxFuture;
use punchtrail_domain::log::{merkle::Frontier, signed_note::Checkpoint};
use punchtrail_protocol::{Digest, OrgId, Position};

pub use folder::{Epoch, Folder, FolderError, Kept};
pub use fork::Fork;

use crate::{
    follower::{Failure, Follower, Followers, Pace, Scope, Step, Tell},
    ledger::Ledger,
    postgres::Pool,
};

/// The follower's name.
pub const NAME: &str = "checkpoints";
/// The longest time from a change to its checkpoint, in milliseconds.
pub const EVERY_MS: u64 = 5_000;
/// How many leaves are read at once.
const LEAVES_MAX: i64 = 20_000;

/// Why no checkpoint was made.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The database holds fewer events than the newest checkpoint covers.
    #[error(
        "the database ends at position {head}, but the newest checkpoint covers {size} events: \
         rows \
         were removed, or an older copy was put back. Nothing was signed. Look with `punchtrail \
         ledger \
         verify`; if the copy was put back on purpose, open a new epoch with `punchtrail \
         checkpoint new-epoch --reason …`"
    )]
    Behind { head: Position, size: u64 },
    /// The database holds another event where the newest checkpoint ends.
    #[error(
        "the event at position {0} is not the one that the newest checkpoint covers: rows were \
         changed, \
         or an older copy was put back and written on. Nothing was signed. Look with `punchtrail \
         ledger \
         verify`; if the copy was put back on purpose, open a new epoch with `punchtrail \
         checkpoint new-epoch --reason …`"
    )]
    Disagrees(Position),
    #[error(
        "the ledger has a hole: position {0} is missing. Nothing was signed. Look with `punchtrail \
         ledger verify`"
    )]
    Hole(Position),
    /// What stands beside an event isn't a leaf hash.
    #[error(
        "the event at position {0} has a leaf hash of another length: it was changed. Nothing was \
         signed. Look with `punchtrail ledger verify`"
    )]
    Leaf(Position),
    /// Nothing is wrong, so nothing may be begun anew.
    #[error(
        "the ledger agrees with all that was signed of it in epoch {epoch}, up to position \
         {through}. A new epoch is for a database that was put back to an earlier state; nothing \
         was opened"
    )]
    Agrees { epoch: u32, through: u64 },
    /// The folder could not be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The database was out of reach.
    #[error("the leaves can't be read now")]
    Database(#[from] sqlx::Error),
}

/// Signs what the ledger holds.
pub struct Checkpoints {
    pool: Pool,
    folder: Arc<Folder>,
}

impl Checkpoints {
    /// Checkpoints of the ledger in `pool`, kept in `folder`.
    pub fn new(pool: Pool, folder: Arc<Folder>) -> Self {
        Self { pool, folder }
    }

    /// Signs everything committed by now, if it is more than the newest checkpoint covers.
    ///
    /// # Errors
    /// See [`CheckpointError`]. Nothing is signed then.
    pub async fn advance(&self) -> Result<Position, CheckpointError> {
        self.advance_from().await.map(|(_, to)| to)
    }

    /// Opens a new epoch over a ledger that no longer agrees with what was signed of it, or whose
    /// key is gone: the epoch, and the size of the largest checkpoint of the one that ended.
    ///
    /// # Errors
    /// [`CheckpointError::Agrees`] when there is no reason for one, or when it can't be done.
    pub async fn open_epoch(&self, reason: &str) -> Result<(Epoch, u64), CheckpointError> {
        self.open(reason, false).await
    }

    /// The same over a copy that was just put back. It may agree with all that is kept here: what
    /// was signed after it stands elsewhere, and nothing else may be signed under that origin.
    ///
    /// # Errors
    /// When it can't be done.
    pub async fn open_epoch_of_copy(&self, reason: &str) -> Result<(Epoch, u64), CheckpointError> {
        self.open(reason, true).await
    }

    async fn open(&self, reason: &str, is_copy: bool) -> Result<(Epoch, u64), CheckpointError> {
        let folder = Arc::clone(&self.folder);
        let (epoch, signed, sound) = blocking(move || {
            let epoch = folder.current()?;
            let (kept, damaged) = folder.kept(epoch)?;
            let sound = match folder.signer(epoch) {
                Ok(_) => damaged.is_empty(),
                Err(FolderError::KeyGone { .. }) => false,
                Err(error) => return Err(error),
            };
            let signed: Vec<_> = kept.into_iter().map(|kept| kept.checkpoint).collect();
            Ok((epoch, signed, sound))
        })
        .await?;
        let covered = signed.last().map_or(0, |checkpoint| checkpoint.size);
        let (agreeing, root) = self.agreeing(&signed).await?;
        if sound && agreeing == covered && !is_copy {
            return Err(CheckpointError::Agrees { epoch, through: covered });
        }
        let (folder, reason) = (Arc::clone(&self.folder), reason.to_owned());
        let opened = blocking(move || folder.open_epoch(&reason, (agreeing, root))).await?;
        Ok((opened, covered))
    }

    /// Up to where the ledger agrees with checkpoints, smallest first, and the root there.
    async fn agreeing(&self, signed: &[Checkpoint]) -> Result<(u64, Digest), CheckpointError> {
        let head = crate::ledger::head(&self.pool).await?;
        let mut frontier = Frontier::new();
        let mut agreed = (0, frontier.root());
        for checkpoint in signed.iter().filter(|checkpoint| checkpoint.size <= head.0) {
            let to = Position(checkpoint.size);
            while frontier.size() < to.0 {
                match self.leaves(Position(frontier.size()), to).await {
                    Ok(leaves) if !leaves.is_empty() => frontier.extend(leaves),
                    Ok(_) | Err(CheckpointError::Hole(_)) => return Ok(agreed),
                    Err(error) => return Err(error),
                }
            }
            if !covers(checkpoint, &frontier) {
                break;
            }
            agreed = (checkpoint.size, checkpoint.root);
        }
        Ok(agreed)
    }

    /// From where, and to where.
    async fn advance_from(&self) -> Result<(Position, Position), CheckpointError> {
        let (covered, covered_leaf) = self.frontier().await?;
        let (mut frontier, last) = (covered.clone(), covered_leaf);
        let head = crate::ledger::head(&self.pool).await?;
        self.agrees(&frontier, last, head).await?;
        let before = Position(frontier.size());
        if head == before {
            return Ok((before, head));
        }
        let mut last = last;
        while frontier.size() < head.0 {
            let leaves = self.leaves(Position(frontier.size()), head).await?;
            if leaves.is_empty() {
                return Err(CheckpointError::Hole(Position(frontier.size() + 1)));
            }
            for leaf in leaves {
                frontier.push(leaf);
                last = leaf;
            }
        }
        let folder = Arc::clone(&self.folder);
        blocking(move || folder.keep((&frontier, last), (&covered, covered_leaf))).await?;
        Ok((before, head))
    }

    /// The edge of the tree under the newest checkpoint, made anew from the leaves if its files are
    /// spoilt: that it is the right one is what the checkpoint says, which is signed.
    async fn frontier(&self) -> Result<(Frontier, Digest), CheckpointError> {
        let folder = Arc::clone(&self.folder);
        let latest = match blocking(move || Ok((folder.frontier(), folder.latest()?))).await? {
            (Err(error @ FolderError::Edge { .. }), Some(latest)) => {
                tracing::warn!(%error, "it is made anew from the ledger's leaves");
                latest.checkpoint
            }
            (edge, _) => return Ok(edge?),
        };
        let (mut frontier, mut last, size) = (Frontier::new(), Digest::ZERO, Position(latest.size));
        while frontier.size() < size.0 {
            let leaves = self.leaves(Position(frontier.size()), size).await?;
            if leaves.is_empty() {
                let head = crate::ledger::head(&self.pool).await?;
                return Err(match head < size {
                    true => CheckpointError::Behind { head, size: size.0 },
                    false => CheckpointError::Hole(Position(frontier.size() + 1)),
                });
            }
            for leaf in leaves {
                frontier.push(leaf);
                last = leaf;
            }
        }
        match covers(&latest, &frontier) {
            true => Ok((frontier, last)),
            false => Err(CheckpointError::Disagrees(size)),
        }
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
    async fn leaves(&self, after: Position, to: Position) -> Result<Vec<Digest>, CheckpointError> {
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
                    return Err(CheckpointError::Hole(Position(expected)));
                }
                let hash = hash.try_into().map(Digest);
                hash.map_err(|_| CheckpointError::Leaf(Position(expected)))
            })
            .collect()
    }
}

impl Follower for Checkpoints {
    fn place(&mut self) -> BoxFuture<'_, Result<Option<Position>, Failure>> {
        Box::pin(async {
            let folder = Arc::clone(&self.folder);
            let latest = blocking(move || folder.latest()).await?;
            Ok(Some(Position(latest.map_or(0, |latest| latest.checkpoint.size))))
        })
    }

    fn step<'a>(&'a mut self, _: &'a Tell) -> BoxFuture<'a, Result<Step, Failure>> {
        Box::pin(async {
            let (before, to) = self.advance_from().await?;
            let events = usize::try_from(to.0 - before.0).unwrap_or(usize::MAX);
            Ok(if events == 0 { Step::AtHead(to) } else { Step::Moved { to, events } })
        })
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Database(error) => error.into(),
            refusal => Self::Refused(refusal.to_string()),
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

/// Starts signing what this node's ledger holds into `folder`, among the followers of this node.
pub fn start(followers: &Followers, ledger: &Ledger, folder: Arc<Folder>) {
    let pool = ledger.pool().clone();
    followers.start(NAME, Scope::Node, Pace::Every(EVERY_MS), move || {
        Checkpoints::new(pool.clone(), Arc::clone(&folder))
    });
}

/// The origin under which an epoch's checkpoints are signed.
pub fn origin(org: OrgId, epoch: u32) -> String {
    format!("punchtrail/{org}/{epoch}")
}

/// Whether a checkpoint covers exactly these leaves.
pub fn covers(checkpoint: &Checkpoint, frontier: &Frontier) -> bool {
    checkpoint.size == frontier.size() && checkpoint.root == frontier.root()
}
