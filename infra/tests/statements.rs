//! A ratchet: how many statements an append costs, whatever its size. A change that raises a number
//! here has to be worth it, and says so.
//!
//! Counted is what sqlx logs as a query, the commit among them. The begin, and one COPY a table,
//! are not logged by it and come on top.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};

use punchtrail_infra::adjudicator::Adjudicator;
use punchtrail_infra::testing::world::{NOON_MS, World};
use tracing::{Event, Subscriber};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

static STATEMENTS: AtomicUsize = AtomicUsize::new(0);

struct Count;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            struct Text(String);
            impl tracing::field::Visit for Text {
                fn record_debug(
                    &mut self,
                    field: &tracing::field::Field,
                    value: &dyn std::fmt::Debug,
                ) {
                    if field.name() == "summary" {
                        self.0 = format!("{value:?}");
                    }
                }
            }
            let mut text = Text(String::new());
            event.record(&mut text);
            // The head is polled for other nodes' appends, and a pool may open another connection
            // by the way; neither is an append's statement.
            let by_the_way = ["select coalesce((select", "current_setting"];
            if !by_the_way.iter().any(|other| text.0.contains(other)) {
                STATEMENTS.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn since(before: usize) -> usize {
    STATEMENTS.load(Ordering::Relaxed) - before
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_costs_few_statements_whatever_its_size() {
    tracing_subscriber::registry().with(Count).init();
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let mut at_ms = NOON_MS - 80_000_000;
    let mut counts = Vec::new();
    let mut adjudicator = Adjudicator::new(world.ledger.clone());
    while adjudicator.step().await.unwrap().is_some() {}
    for size in [1, 20, 500] {
        let captures = kiosk.captures(size, &mut at_ms, 100_000);
        let items = captures.iter().map(|capture| kiosk.item(capture)).collect();
        let before = STATEMENTS.load(Ordering::Relaxed);
        world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
        let delivered = since(before);
        let before = STATEMENTS.load(Ordering::Relaxed);
        let mut adjudicator = Adjudicator::new(world.ledger.clone());
        adjudicator.step().await.unwrap();
        let judged = since(before);
        // Its own events, which it passes over.
        adjudicator.step().await.unwrap();
        counts.push((delivered, judged));
    }
    // A delivery: lock the head; clock and devices; punches; progress; move the head; commit. Its
    // place in the device's chain is a COPY. A walk by an adjudicator that knows nothing yet: its
    // place; devices, sites and employees, a page each; what is to be looked at again; neighbours;
    // chains; and in the append lock, clock, sequences, place, chain, place, head, commit.
    assert_eq!(counts, [(6, 15), (6, 15), (6, 15)]);
    world.close().await;
}
