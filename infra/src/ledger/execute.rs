//! Commands to one aggregate: load, let it decide, append; again when another came first.

use cqrs_es::{Aggregate, event_sink::EventSink};
use punchtrail_domain::{AggregateType, Recorded};
use punchtrail_protocol::Position;

use super::{Append, AppendError, Ledger, Metadata, NewEvent, SideWrite, StreamAppend, read};

/// How often a command is decided anew when other appends keep coming first.
const TRIES_MAX: u32 = 8;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<E: std::error::Error> {
    /// The aggregate refuses it.
    #[error("{0}")]
    Refused(E),
    /// The append was not made.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The aggregate can't be loaded.
    #[error("the aggregate can't be loaded")]
    Load(#[source] sqlx::Error),
}

/// An aggregate as its events make it.
#[derive(Debug, Clone)]
pub struct Loaded<A> {
    /// The aggregate.
    pub aggregate: A,
    /// The sequence of its last event; 0 when it has none.
    pub sequence: u64,
    /// Position of its last event, if it has one.
    pub position: Option<Position>,
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
    /// When the database is out of reach, or an event can't be read.
    pub async fn load<A: Aggregate>(&self, id: &str) -> Result<Loaded<A>, sqlx::Error> {
        let kind: AggregateType = A::TYPE.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
        fold(&read::stream(&self.writer, kind, id).await?)
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
        A: Aggregate<Services = ()>,
        A::Command: Clone,
    {
        self.execute_with(id, command, metadata, || None).await
    }

    /// Carries out a command on one aggregate, with rows beside the ledger that stand or fall with it.
    /// They are written also when the command leads to no event.
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
        A: Aggregate<Services = ()>,
        A::Command: Clone,
    {
        let kind: AggregateType =
            A::TYPE.parse().map_err(|e| ExecuteError::Load(sqlx::Error::Decode(Box::new(e))))?;
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
            let stream = StreamAppend {
                aggregate_type: kind,
                aggregate_id: id.to_owned(),
                expected: sequence,
                events: events.iter().map(new_event).collect(),
            };
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

/// Any cqrs-es event, as it goes into the ledger.
pub(super) fn new_event<E: cqrs_es::DomainEvent>(event: &E) -> NewEvent {
    let payload = serde_json::to_string(event).unwrap_or_default();
    NewEvent::from_text(event.event_type(), event.event_version(), payload)
}

pub(super) fn fold<A: Aggregate>(events: &[Recorded]) -> Result<Loaded<A>, sqlx::Error> {
    let mut aggregate = A::default();
    for event in events {
        aggregate.apply(
            serde_json::from_str(&event.payload)
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        );
    }
    let last = events.last();
    Ok(Loaded {
        aggregate,
        sequence: last.map_or(0, |event| event.sequence),
        position: last.map(|event| event.position),
    })
}
