//! An event as the ledger keeps it, of whatever aggregate: its place, its time, its exact text.

use std::{fmt, str::FromStr};

use punchtrail_protocol::{
    DeviceId, Digest, DisputeId, EmployeeId, EpochId, Position, PunchId, SiteId,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    aggregate::{AggregateType, Stored, StoredEvent, Undecodable},
    device::DeviceEvent,
    dispute::DisputeEvent,
    employee::EmployeeEvent,
    epoch::EpochEvent,
    punch::PunchEvent,
    quarantine::QuarantineEvent,
    site::SiteEvent,
};

/// An event as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub position: Position,
    /// When it was committed, to the microsecond; never before that of a lower position.
    pub recorded_at: jiff::Timestamp,
    pub aggregate_type: AggregateType,
    pub aggregate_id: String,
    /// The event's number in its aggregate, from 1.
    pub sequence: u64,
    pub event_type: String,
    /// The version of its shape.
    pub event_version: String,
    /// The event, the exact text.
    pub payload: String,
    /// Who caused it and by what request: a flat JSON object of strings, the exact text.
    pub metadata: String,
}

/// An event of any aggregate, with the aggregate's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Punch(PunchId, PunchEvent),
    Device(DeviceId, DeviceEvent),
    Site(SiteId, SiteEvent),
    Employee(EmployeeId, EmployeeEvent),
    Quarantine(Digest, QuarantineEvent),
    Epoch(EpochId, EpochEvent),
    Dispute(DisputeId, DisputeEvent),
}

/// Who caused an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "type", content = "id")]
pub enum Actor {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    Device(DeviceId),
    /// The site's policy, through the adjudicator.
    Policy,
    /// An operator's key, by its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    Key(Uuid),
    /// A user who signed in, by their id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    User(Uuid),
    /// The command line on the server's machine.
    CommandLine,
    /// The server itself.
    Server,
}

impl Actor {
    /// Whether a person caused it, not a device or the server.
    pub const fn is_a_person(&self) -> bool {
        matches!(self, Self::Key(_) | Self::User(_) | Self::CommandLine)
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(id) => write!(f, "device:{id}"),
            Self::Policy => f.write_str("policy"),
            Self::Key(id) => write!(f, "key:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
            Self::CommandLine => f.write_str("command_line"),
            Self::Server => f.write_str("server"),
        }
    }
}

impl FromStr for Actor {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text == "policy" => Ok(Self::Policy),
            None if text == "command_line" => Ok(Self::CommandLine),
            None if text == "server" => Ok(Self::Server),
            Some(("device", id)) => id.parse().map(Self::Device).map_err(|_| ()),
            Some(("key", id)) => id.parse().map(Self::Key).map_err(|_| ()),
            Some(("user", id)) => id.parse().map(Self::User).map_err(|_| ()),
            _ => Err(()),
        }
    }
}

impl Recorded {
    /// Reads the event, as one of this kind of aggregate.
    ///
    /// # Errors
    /// When it is of another kind, or its version or payload isn't one that this program knows.
    pub fn read<E: StoredEvent>(&self) -> Result<E, Undecodable> {
        if self.aggregate_type != E::AGGREGATE {
            let (is, wanted) = (self.aggregate_type.as_str(), E::AGGREGATE.as_str());
            let what = format_args!("it is an event of a {is}, not of a {wanted}");
            return Err(Undecodable::new(self.position, what));
        }
        self.stored().read()
    }

    /// What of it it takes to read the event.
    pub fn stored(&self) -> Stored<'_> {
        let Self { position, event_type, event_version, payload, .. } = self;
        Stored { position: *position, event_type, event_version, payload }
    }

    /// Reads the event, whatever it happened to.
    ///
    /// # Errors
    /// When the id, the version or the payload isn't one that this program knows.
    pub fn event(&self) -> Result<Event, Undecodable> {
        Ok(match self.aggregate_type {
            AggregateType::Punch => Event::Punch(self.id()?, self.read()?),
            AggregateType::Device => Event::Device(self.id()?, self.read()?),
            AggregateType::Site => Event::Site(self.id()?, self.read()?),
            AggregateType::Employee => Event::Employee(self.id()?, self.read()?),
            AggregateType::Quarantine => Event::Quarantine(self.id()?, self.read()?),
            AggregateType::Epoch => Event::Epoch(self.id()?, self.read()?),
            AggregateType::Dispute => Event::Dispute(self.id()?, self.read()?),
        })
    }

    fn id<T: FromStr<Err: fmt::Display>>(&self) -> Result<T, Undecodable> {
        self.aggregate_id.parse().map_err(|error| Undecodable::new(self.position, error))
    }

    /// Who caused the event, as its metadata says.
    pub fn actor(&self) -> Option<Actor> {
        #[derive(Deserialize)]
        struct Metadata {
            actor: Option<String>,
        }
        serde_json::from_str::<Metadata>(&self.metadata).ok()?.actor?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(payload: &str) -> Recorded {
        Recorded {
            position: Position(7),
            recorded_at: jiff::Timestamp::UNIX_EPOCH,
            aggregate_type: AggregateType::Site,
            aggregate_id: "5f0c7a52-0000-4000-8000-000000000001".into(),
            sequence: 1,
            event_type: "Registered".into(),
            event_version: "1".into(),
            payload: payload.into(),
            metadata: r#"{"actor":"policy"}"#.into(),
        }
    }

    #[test]
    fn an_event_and_its_actor_are_read() {
        let recorded = recorded(r#"{"Registered":{"tz":"Europe/Berlin"}}"#);
        assert!(matches!(recorded.event(), Ok(Event::Site(_, SiteEvent::Registered { .. }))));
        assert_eq!(recorded.actor(), Some(Actor::Policy));
    }

    #[test]
    fn what_can_not_be_read_names_its_position() {
        assert_eq!(recorded(r#"{"Gone":{}}"#).event().unwrap_err().position, Position(7));
        let newer = Recorded { event_version: "2".into(), ..recorded("{}") };
        assert!(newer.event().unwrap_err().to_string().contains("version 2"));
    }

    #[test]
    fn actors_are_written_and_read_back() {
        let device = Actor::Device(DeviceId(Uuid::from_u128(5)));
        let people = [Actor::Key(Uuid::nil()), Actor::User(Uuid::nil()), Actor::CommandLine];
        for actor in [device, Actor::Policy, Actor::Server].into_iter().chain(people) {
            assert_eq!(actor.to_string().parse(), Ok(actor));
        }
    }
}
