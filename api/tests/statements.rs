//! A ratchet: how many statements a page costs, however much is on it. A change that raises a
//! number here has to be worth it, and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use std::sync::Mutex;

use common::House;
use hyper::StatusCode;
use punchtrail_protocol::{Time, capture::PunchKind};
use tracing::{Event, Subscriber};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

static STATEMENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keep;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if ["summary", "db.statement"].contains(&field.name()) {
                    self.0.push_str(&format!("{value:?} "));
                }
            }
        }
        if event.metadata().target() == "sqlx::query" {
            let mut text = Text(String::new());
            event.record(&mut text);
            // What readers ask: views of models, and directories. What feeds the models names
            // their generation, in quotes.
            let read = text.0.replace("read.projections", "");
            if read.contains("read.") && !read.contains("read.\\\"") || read.contains("directory") {
                STATEMENTS.lock().unwrap().push(read);
            }
        }
    }
}

async fn cost(house: &House, path: &str) -> usize {
    // The second time, so that whatever is asked once and remembered is.
    for _ in 0..2 {
        STATEMENTS.lock().unwrap().clear();
        let answer = house.read(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    STATEMENTS.lock().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_costs_the_same_few_statements_whatever_is_on_it() {
    tracing_subscriber::registry().with(Keep).init();
    let house = House::new().await;
    let site = house.site().await;
    let mut device = house.device(site).await;
    let mut items = Vec::new();
    for n in 0..60 {
        let employee = house.employee(site, &format!("B{n}"), &format!("Worker {n}")).await;
        // Twice in a row: the second is doubted.
        for _ in 0..2 {
            let capture = device.chain.capture_with(|capture| {
                (capture.employee, capture.kind) = (Some(employee), PunchKind::In);
                capture.captured_at = Time::from(jiff::Timestamp::now());
                capture.uptime_ms = 60_000 + capture.seq;
            });
            items.push(device.item(&capture));
        }
    }
    house.deliver(&device, &items).await;
    house.settled().await;
    let page = house.read("/v1/reviews?limit=50").await;
    assert_eq!(page.body["data"].as_array().unwrap().len(), 50, "{}", page.text);
    for limit in [1, 50] {
        // Reviews, their punches, people's names, deadlines of sites.
        let path = format!("/v1/reviews?limit={limit}");
        let cost = cost(&house, &path).await;
        assert_eq!(cost, 4, "{limit}: {:#?}", STATEMENTS.lock().unwrap());
    }
    for weeks in ["", "&from=2025-01-01&to=2026-12-01"] {
        // The newest week; counts, waits, what waits now.
        let path = format!("/v1/figures?site={site}{weeks}");
        assert_eq!(cost(&house, &path).await, 4, "{:#?}", STATEMENTS.lock().unwrap());
        // And which sites.
        let path = format!("/v1/figures?format=json{weeks}");
        assert_eq!(cost(&house, &path).await, 5, "{:#?}", STATEMENTS.lock().unwrap());
    }
    house.close().await;
}
