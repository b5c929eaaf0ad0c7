//! cqrs-es's `EventStore` on this ledger, so that its framework and its users' code run on it. Commands
//! of this house go through [`Ledger::execute`](super::Ledger::execute), which also gives positions.

use std::{collections::HashMap, marker::PhantomData};

use cqrs_es::{
    Aggregate, AggregateError, EventEnvelope, EventStore, persist::EventStoreAggregateContext,
};
use punchtrail_domain::{AggregateType, log::recorded::Actor};

use super::{Append, AppendError, Ledger, Metadata, StreamAppend, execute::new_event, read};

/// The metadata's key that names who caused an event.
const ACTOR: &str = "actor";

/// The ledger as the event store of one kind of aggregate.
pub struct LedgerStore<A> {
    ledger: Ledger,
    aggregate: PhantomData<fn() -> A>,
}

impl<A> LedgerStore<A> {
    /// The store on `ledger`.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, aggregate: PhantomData }
    }
}

fn kind<A: Aggregate>() -> Result<AggregateType, AggregateError<A::Error>> {
    A::TYPE.parse().map_err(|error| AggregateError::UnexpectedError(Box::new(error)))
}

fn unreachable_database<E: std::error::Error>(error: sqlx::Error) -> AggregateError<E> {
    AggregateError::DatabaseConnectionError(Box::new(error))
}

impl<A: Aggregate> EventStore<A> for LedgerStore<A> {
    type AC = EventStoreAggregateContext<A>;

    async fn load_events(
        &self,
        aggregate_id: &str,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let kind = kind::<A>()?;
        let events = read::stream(&self.ledger.writer, kind, aggregate_id).await;
        let events = events.map_err(unreachable_database)?;
        let parse = |error| AggregateError::DeserializationError(Box::new(error));
        events
            .into_iter()
            .map(|event| {
                Ok(EventEnvelope {
                    sequence: usize::try_from(event.sequence).unwrap_or(usize::MAX),
                    payload: serde_json::from_str(&event.payload).map_err(parse)?,
                    metadata: serde_json::from_str(&event.metadata).map_err(parse)?,
                    aggregate_id: event.aggregate_id,
                })
            })
            .collect()
    }

    async fn load_aggregate(
        &self,
        aggregate_id: &str,
    ) -> Result<Self::AC, AggregateError<A::Error>> {
        let events = self.load_events(aggregate_id).await?;
        let mut context = EventStoreAggregateContext {
            aggregate_id: aggregate_id.to_owned(),
            aggregate: A::default(),
            current_sequence: 0,
            current_snapshot: None,
        };
        for event in events {
            context.current_sequence = event.sequence;
            context.aggregate.apply(event.payload);
        }
        Ok(context)
    }

    async fn commit(
        &self,
        events: Vec<A::Event>,
        context: Self::AC,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let aggregate_type = kind::<A>()?;
        let stream = StreamAppend {
            aggregate_type,
            aggregate_id: context.aggregate_id.clone(),
            expected: context.current_sequence as u64,
            events: events.iter().map(new_event).collect(),
        };
        let actor = metadata.get(ACTOR).and_then(|actor| actor.parse().ok());
        let append = Append {
            streams: vec![stream],
            metadata: Metadata::new(actor.unwrap_or(Actor::CommandLine)),
            side: None,
        };
        let appended = self.ledger.append(append).await;
        appended.map_err(|error| match error {
            AppendError::Stale => AggregateError::AggregateConflict,
            other => AggregateError::UnexpectedError(Box::new(other)),
        })?;
        let first = context.current_sequence + 1;
        Ok(events
            .into_iter()
            .zip(first..)
            .map(|(payload, sequence)| EventEnvelope {
                aggregate_id: context.aggregate_id.clone(),
                sequence,
                payload,
                metadata: metadata.clone(),
            })
            .collect())
    }
}
