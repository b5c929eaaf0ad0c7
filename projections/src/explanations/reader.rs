//! Explanations for many callers at once: those who ask while a read is under way share the next
//! one.
//!
//! A read of one punch costs a round trip or two; a read of sixty-four costs the same. So callers
//! queue, and one task takes all that wait, up to [`EXPLAIN_BATCH_MAX`]. Nobody waits for company:
//! with no read under way, a single caller goes at once. The words are made in the caller's own
//! task.

use std::sync::Arc;

use punchtrail_domain::explanation::Explanation;
use punchtrail_infra::{ledger::ReadError, postgres::Pool, supervision::Supervisor};
use punchtrail_protocol::PunchId;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    cards,
    context::Surroundings,
    disputed,
    memory::Memory,
    read::{self, ExplainError, Found},
};

/// The most punches explained by one read.
pub const EXPLAIN_BATCH_MAX: usize = 64;
/// How many callers may wait; one more is refused as busy.
pub const EXPLAIN_WAITING_MAX: usize = 1_024;

type Answer = Result<(Found, Arc<Surroundings>), ExplainError>;

struct Asked {
    punch: PunchId,
    answer: oneshot::Sender<Answer>,
}

/// Explains punches to whoever asks, many at once. Cheap to clone; ends when its last clone is
/// dropped.
#[derive(Debug, Clone)]
pub struct Explanations {
    /// First, so that it is dropped first: the task ends with the last clone.
    _running: Arc<DropGuard>,
    asking: mpsc::Sender<Asked>,
}

impl Explanations {
    /// Starts it. `pool` is the reading role's; must be called within a tokio runtime.
    pub fn start(pool: Pool, supervisor: &Supervisor) -> Self {
        let (asking, asked) = mpsc::channel(EXPLAIN_WAITING_MAX);
        let (stop, asked) = (CancellationToken::new(), Arc::new(Mutex::new(asked)));
        supervisor
            .spawn("explanations", stop.clone(), move || serve(pool.clone(), Arc::clone(&asked)));
        Self { _running: Arc::new(stop.drop_guard()), asking }
    }

    /// Explains a punch; none if the ledger has no punch of that id. Without workers' names and the
    /// texts of notes for whoever may not see them.
    ///
    /// # Errors
    /// See [`ExplainError`].
    pub async fn explain(
        &self,
        punch: PunchId,
        with_names: bool,
    ) -> Result<Option<Explanation>, ExplainError> {
        let (answer, answered) = oneshot::channel();
        self.asking.try_send(Asked { punch, answer }).map_err(|_| ExplainError::Busy)?;
        let (found, surroundings) = answered.await.unwrap_or(Err(ExplainError::Busy))?;
        let told = if with_names { read::told } else { read::told_without_names };
        Ok(found?.map(|account| told(account, &surroundings)))
    }
}

async fn serve(pool: Pool, asked: Arc<Mutex<mpsc::Receiver<Asked>>>) {
    let mut asked = asked.lock().await;
    let mut memory = Memory::new();
    let mut batch = Vec::with_capacity(EXPLAIN_BATCH_MAX);
    while asked.recv_many(&mut batch, EXPLAIN_BATCH_MAX).await > 0 {
        answer(&pool, &mut memory, std::mem::take(&mut batch)).await;
    }
}

/// A caller who has gone meanwhile is no matter.
async fn answer(pool: &Pool, memory: &mut Memory, batch: Vec<Asked>) {
    let punches: Vec<PunchId> = batch.iter().map(|asked| asked.punch).collect();
    match read_all(pool, memory, &punches).await {
        Ok((found, surroundings)) => {
            let surroundings = Arc::new(surroundings);
            for (asked, found) in batch.into_iter().zip(found) {
                drop(asked.answer.send(Ok((found, Arc::clone(&surroundings)))));
            }
        }
        Err(error) => {
            let error = ExplainError::from(error);
            for asked in batch {
                drop(asked.answer.send(Err(error.clone())));
            }
        }
    }
}

async fn read_all(
    pool: &Pool,
    memory: &mut Memory,
    punches: &[PunchId],
) -> Result<(Vec<Found>, Surroundings), ReadError> {
    let found = read::accounts(pool, punches).await?;
    let mut surroundings = memory.around(pool, &read::readable(&found)).await?;
    disputed::add(pool, &found, &mut surroundings).await?;
    cards::add(pool, &found, &mut surroundings).await?;
    Ok((found, surroundings))
}
