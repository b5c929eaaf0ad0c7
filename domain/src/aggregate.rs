//! What all aggregates of this house share: a pure decision, and cqrs-es's trait built on it.

/// Implements [`cqrs_es::Aggregate`] and [`cqrs_es::DomainEvent`] for an aggregate that has
/// `decide(&self, Command) -> Result<Vec<Event>, Error>` and `evolve(&mut self, Event)`.
macro_rules! aggregate {
    ($aggregate:ident, $command:ident, $event:ident, $error:ident, { $($variant:ident),+ $(,)? }) => {
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

        impl $crate::log::recorded::StoredEvent for $event {
            const AGGREGATE: $crate::AggregateType = $crate::AggregateType::$aggregate;

            fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => stringify!($variant)),+ }
            }
            fn version(&self) -> &'static str {
                "1"
            }
        }

        impl cqrs_es::DomainEvent for $event {
            fn event_type(&self) -> String {
                $crate::log::recorded::StoredEvent::name(self).to_owned()
            }
            fn event_version(&self) -> String {
                $crate::log::recorded::StoredEvent::version(self).to_owned()
            }
        }
    };
}
pub(crate) use aggregate;
