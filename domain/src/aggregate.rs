//! What all aggregates of this house share: which kinds there are, how an event is kept and read
//! back, a pure decision, and cqrs-es's trait built on it. [`Stored::read`] is the one place that
//! turns what is kept into an event, and refuses versions that it doesn't know.

use std::fmt;

use punchtrail_protocol::Position;
use serde::{Deserialize, Serialize};

/// The kinds of aggregate in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::VariantNames, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
#[strum(parse_err_ty = UnknownAggregateType, parse_err_fn = UnknownAggregateType::of)]
pub enum AggregateType {
    Punch,
    Device,
    Site,
    Employee,
    Quarantine,
    Epoch,
    Dispute,
}

impl AggregateType {
    /// The type as the ledger writes it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A text that names no kind of aggregate that this program knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown aggregate type `{0}`")]
pub struct UnknownAggregateType(String);

impl UnknownAggregateType {
    fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// An event of one kind of aggregate: how it is named in the ledger, and how it is read back.
pub trait StoredEvent: cqrs_es::DomainEvent + 'static {
    /// The kind of aggregate that it happens to.
    const AGGREGATE: AggregateType;

    /// The event's type as the ledger keeps it.
    fn name(&self) -> &'static str;

    /// The version that it is written under.
    fn version(&self) -> &'static str;

    /// Reads what was written under that version, lifting an older shape to today's; none for a
    /// version that this program doesn't know.
    fn of_version(version: &str, payload: &str) -> Option<Result<Self, serde_json::Error>> {
        (version == "1").then(|| serde_json::from_str(payload))
    }
}

/// What of an event's row it takes to read the event.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    pub position: Position,
    pub event_type: &'a str,
    /// The version of its shape.
    pub event_version: &'a str,
    /// The event, the exact text.
    pub payload: &'a str,
}

impl Stored<'_> {
    /// Reads it as an event of this kind of aggregate.
    ///
    /// # Errors
    /// When the version or the payload isn't one that this program knows.
    pub fn read<E: StoredEvent>(&self) -> Result<E, Undecodable> {
        let wrong = |what: &dyn fmt::Display| Undecodable::new(self.position, what);
        match E::of_version(self.event_version, self.payload) {
            Some(read) => read.map_err(|error| wrong(&error)),
            None => Err(wrong(&format_args!(
                "version {} of {} is not known",
                self.event_version, self.event_type
            ))),
        }
    }
}

/// An event that this version of the program can't read. Whoever follows the ledger stops there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event at position {position} can't be read: {what}")]
pub struct Undecodable {
    pub position: Position,
    what: String,
}

impl Undecodable {
    /// What is wrong at `position`.
    pub fn new(position: Position, what: impl fmt::Display) -> Self {
        Self { position, what: what.to_string() }
    }
}

/// Implements [`cqrs_es::Aggregate`] and [`cqrs_es::DomainEvent`] for an aggregate that has
/// `decide(&self, Command) -> Result<Vec<Event>, Error>` and `evolve(&mut self, Event)`.
macro_rules! aggregate {
    (
        $aggregate:ident, $command:ident, $event:ident, $error:ident,
        { $($variant:ident),+ $(,)? }
        $(, second { $($second:ident),+ $(,)? })?
    ) => {
        impl cqrs_es::Aggregate for $aggregate {
            // A constant, which `as_str` can't give.
            const TYPE: &'static str = <$crate::AggregateType as strum::VariantNames>::VARIANTS
                [$crate::AggregateType::$aggregate as usize];
            type Command = $command;
            type Event = $event;
            type Error = $error;
            type Services = ();

            async fn handle(
                &mut self,
                command: $command,
                (): &(),
                sink: &cqrs_es::event_sink::EventSink<Self>,
            ) -> Result<(), $error> {
                for event in self.decide(command)? {
                    sink.write(event, self).await;
                }
                Ok(())
            }

            fn apply(&mut self, event: $event) {
                self.evolve(event);
            }
        }

        impl $crate::aggregate::StoredEvent for $event {
            const AGGREGATE: $crate::AggregateType = $crate::AggregateType::$aggregate;

            fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => stringify!($variant)),+ }
            }
            fn version(&self) -> &'static str {
                let is_second = false $($(|| matches!(self, Self::$second { .. }))+)?;
                if is_second { "2" } else { "1" }
            }
            $(
                // A second version only adds fields, each with a default that says what the first
                // could not.
                fn of_version(
                    version: &str,
                    payload: &str,
                ) -> Option<Result<Self, serde_json::Error>> {
                    let is_second = false
                        $(|| payload.starts_with(concat!("{\"", stringify!($second), "\":")))+;
                    let known = version == "1" || version == "2" && is_second;
                    known.then(|| serde_json::from_str(payload))
                }
            )?
        }

        impl cqrs_es::DomainEvent for $event {
            fn event_type(&self) -> String {
                $crate::aggregate::StoredEvent::name(self).to_owned()
            }
            fn event_version(&self) -> String {
                $crate::aggregate::StoredEvent::version(self).to_owned()
            }
        }
    };
}
pub(crate) use aggregate;
