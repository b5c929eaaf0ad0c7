//! Commands to one aggregate: load, let it decide, append; again when another came first.

use cqrs_es::{Aggregate, event_sink::EventSink};
use punchtrail_domain::StoredEvent;
use punchtrail_protocol::Position;

use super::{
    Append, AppendError, Ledger, Loaded, Metadata, ReadError, SideWrite, StreamAppend, read,
};

/// How often a command is decided anew when other appends keep coming first.
const TRIES_MAX: u32 = 8;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<E: std::error::Error> {
    /// The aggregate refuses it.
    #[error("{0}")]
    Refused(E),
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The aggregate can't be loaded.
    #[error("the aggregate can't be loaded")]
    Load(#[source] ReadError),
}

/// What a command led to.
#[derive(Debug, Clone)]
pub struct Executed<A: Aggregate> {
    /// The aggregate afterwards.
    pub aggregate: A,
    /// The events; none when nothing was left to do.
    pub events: Vec<A::Event>,
    /// The head after the commit, or as it was loaded when there was nothing to append.
    pub position: Position,
}

impl Ledger {
    /// Loads an aggregate; one without events is its default.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn load<A>(&self, id: &str) -> Result<Loaded<A>, ReadError>
    where
        A: Aggregate<Event: StoredEvent>,
    {
        let mut loaded = read::load(&self.writer, &[id.to_owned()]).await?;
        Ok(loaded.remove(id).unwrap_or_default())
    }

    /// Carries out a command on one aggregate.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute<A>(
        &self,
        id: &str,
        command: A::Command,
        metadata: &Metadata,
    ) -> Result<Executed<A>, ExecuteError<A::Error>>
    where
        A: Aggregate<Services = (), Event: StoredEvent>,
        A::Command: Clone,
    {
        self.execute_with(id, command, metadata, || None).await
    }

    /// Carries out a command on one aggregate, with rows beside the ledger that stand or fall with
    /// it. They are written also when the command leads to no event.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute_with<A>(
        &self,
        id: &str,
        command: A::Command,
        metadata: &Metadata,
        side: impl Fn() -> Option<SideWrite>,
    ) -> Result<Executed<A>, ExecuteError<A::Error>>
    where
        A: Aggregate<Services = (), Event: StoredEvent>,
        A::Command: Clone,
    {
        for _ in 0..TRIES_MAX {
            let Loaded { mut aggregate, sequence, position } =
                self.load::<A>(id).await.map_err(ExecuteError::Load)?;
            let sink = EventSink::default();
            aggregate.handle(command.clone(), &(), &sink).await.map_err(ExecuteError::Refused)?;
            let events = sink.collect().await;
            let side = side();
            if events.is_empty() && side.is_none() {
                let position = position.unwrap_or_default();
                return Ok(Executed { aggregate, events, position });
            }
            let stream = StreamAppend::of(id, sequence, &events);
            let append = Append { streams: vec![stream], metadata: metadata.clone(), side };
            match self.append(append).await {
                Ok(appended) => {
                    return Ok(Executed { aggregate, events, position: appended.last });
                }
                Err(AppendError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AppendError::Stale.into())
    }
}
