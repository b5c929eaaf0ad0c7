//! cqrs-es's `EventStore` on this ledger, so that its framework and its users' code run on it.
//! Commands of this house go through [`Ledger::execute`](super::Ledger::execute), which also gives
//! positions.

use std::{collections::HashMap, marker::PhantomData};

use cqrs_es::{
    Aggregate, AggregateError, EventEnvelope, EventStore, persist::EventStoreAggregateContext,
};
use punchtrail_domain::{StoredEvent, log::recorded::Actor};

use super::{Append, AppendError, Ledger, Metadata, ReadError, StreamAppend, read};

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

fn refused<E: std::error::Error>(error: ReadError) -> AggregateError<E> {
    match error {
        ReadError::Database(error) => AggregateError::DatabaseConnectionError(Box::new(error)),
        unreadable => AggregateError::DeserializationError(Box::new(unreadable)),
    }
}

impl<A: Aggregate<Event: StoredEvent>> EventStore<A> for LedgerStore<A> {
    type AC = EventStoreAggregateContext<A>;

    async fn load_events(
        &self,
        aggregate_id: &str,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let ids = [aggregate_id.to_owned()];
        let events = read::streams(&self.ledger.writer, A::Event::AGGREGATE, &ids).await;
        events
            .map_err(refused)?
            .into_iter()
            .map(|event| {
                Ok(EventEnvelope {
                    sequence: usize::try_from(event.sequence).unwrap_or(usize::MAX),
                    payload: event.read().map_err(|error| refused(error.into()))?,
                    metadata: serde_json::from_str(&event.metadata)
                        .map_err(|error| AggregateError::DeserializationError(Box::new(error)))?,
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
        let sequence = context.current_sequence as u64;
        let stream = StreamAppend::of(&context.aggregate_id, sequence, &events);
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
