//! Metrics, as Prometheus reads them: of requests here, of the rest where it happens.
//!
//! They tell how many and how fast, never who. Labels are taken from fixed lists (a route is its
//! pattern), so that no client can make new ones.

use std::{sync::OnceLock, time::Duration};

use axum::http::{Method, StatusCode};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the buckets of request durations, in seconds.
const DURATION_BUCKETS_S: [f64; 11] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// How often what was recorded is folded into the buckets.
pub const UPKEEP: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// The recorder of this process; none when somebody else records already.
pub fn handle() -> Option<&'static PrometheusHandle> {
    HANDLE.get_or_init(install).as_ref()
}

fn install() -> Option<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("duration_seconds".to_owned()), &DURATION_BUCKETS_S)
        .ok()?
        .build_recorder();
    let handle = recorder.handle();
    match metrics::set_global_recorder(recorder) {
        Ok(()) => {
            describe();
            Some(handle)
        }
        Err(error) => {
            tracing::warn!(%error, "metrics are recorded elsewhere");
            None
        }
    }
}

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric, with one set of labels that it has from the start; where those are many, or made by
/// what follows the ledger, one stands for all.
type Described = (&'static str, Kind, &'static [(&'static str, &'static str)], &'static str);

/// All there are. Each is there before anything happened, so that an alarm needn't mind one that
/// is missing.
const ALL: &[Described] = {
    use Kind::{Counter, Gauge, Histogram};
    const CLASS: &[(&str, &str)] = &[("class", "interactive")];
    const FACES: &[(&str, &str)] = &[("provider", "local"), ("outcome", "match")];
    const ROUTE: &[(&str, &str)] = &[("method", "GET"), ("route", "/livez")];
    const ADJUDICATOR: &[(&str, &str)] = &[("follower", "adjudicator")];
    const UPKEEP: &[(&str, &str)] = &[("task", "upkeep")];
    &[
        (
            "punchtrail_http_requests_total",
            Counter,
            &[("method", "GET"), ("route", "/livez"), ("status", "200")],
            "Requests answered, by route and status",
        ),
        (
            "punchtrail_http_request_duration_seconds",
            Histogram,
            ROUTE,
            "From a request's head to its answer, by route",
        ),
        ("punchtrail_connections", Gauge, &[], "Connections being served"),
        ("punchtrail_tls_refused_total", Counter, &[], "New certificates that can't be served"),
        ("punchtrail_admission_working", Gauge, CLASS, "Requests being worked on, by class"),
        (
            "punchtrail_admission_waiting",
            Gauge,
            CLASS,
            "Requests that are there and wait for their turn, by class",
        ),
        ("punchtrail_admission_coming", Gauge, &[], "Requests let in whose bodies are to come"),
        (
            "punchtrail_admission_wait_duration_seconds",
            Histogram,
            CLASS,
            "From a request's body to its turn, by class",
        ),
        (
            "punchtrail_admission_refused_total",
            Counter,
            &[("class", "interactive"), ("why", "wait")],
            "Requests refused as busy before any work, by class and why",
        ),
        (
            "punchtrail_items_total",
            Counter,
            &[("status", "applied")],
            "Items of batches, by what became of them",
        ),
        (
            "punchtrail_photos_swept_total",
            Counter,
            &[],
            "Photos removed, or found removed, since no punch named them for 90 days",
        ),
        (
            "punchtrail_webhook_tries_total",
            Counter,
            &[("outcome", "failed")],
            "Tries of webhooks, by what came of them",
        ),
        ("punchtrail_ledger_events_total", Counter, &[], "Events that this node appended"),
        (
            "punchtrail_ledger_commit_seconds",
            Histogram,
            &[],
            "From an append's beginning to its commit on disk",
        ),
        ("punchtrail_ledger_head", Gauge, &[], "The newest position that this node appended"),
        ("punchtrail_ledger_position", Gauge, &[], "The newest position that this node has seen"),
        ("punchtrail_ledger_commits_able", Gauge, &[], "Whether this node can commit: 1 or 0"),
        ("punchtrail_ledger_went_back_total", Counter, &[], "Times that the database went back"),
        (
            "punchtrail_database_unanswered_total",
            Counter,
            &[],
            "Waits for the database that were given up",
        ),
        (
            "punchtrail_postgres_restarts_total",
            Counter,
            &[],
            "Times that the private Postgres had to be started again",
        ),
        (
            "punchtrail_clock_offset_seconds",
            Gauge,
            &[],
            "How far this node's clock is ahead of the database's",
        ),
        (
            "punchtrail_follower_position",
            Gauge,
            ADJUDICATOR,
            "How far a follower has come, by follower",
        ),
        (
            "punchtrail_follower_lag_events",
            Gauge,
            ADJUDICATOR,
            "How many events a follower is behind, by follower",
        ),
        (
            "punchtrail_follower_stopped",
            Gauge,
            ADJUDICATOR,
            "Whether a follower stopped at what it can't take: 1 or 0, by follower",
        ),
        (
            "punchtrail_follower_here",
            Gauge,
            ADJUDICATOR,
            "Whether this node runs a follower: 1 or 0, by follower",
        ),
        (
            "punchtrail_follower_events_total",
            Counter,
            ADJUDICATOR,
            "Events that a follower took on this node, by follower",
        ),
        (
            "punchtrail_follower_step_seconds",
            Histogram,
            ADJUDICATOR,
            "How long a follower's steps take, by follower",
        ),
        ("punchtrail_task_up", Gauge, UPKEEP, "Whether a task of this node runs: 1 or 0, by task"),
        (
            "punchtrail_task_restarts_total",
            Counter,
            UPKEEP,
            "Times that a task died and was started again, by task",
        ),
        ("punchtrail_queue_able", Gauge, &[], "Whether the queue of checks can be reached: 1 or 0"),
        ("punchtrail_queue_waiting", Gauge, &[], "Checks that wait"),
        ("punchtrail_queue_in_hand", Gauge, &[], "Checks that somebody has taken"),
        ("punchtrail_queue_dead", Gauge, &[], "Checks that were given up"),
        ("punchtrail_queue_oldest_age_seconds", Gauge, &[], "How long the oldest check has waited"),
        (
            "punchtrail_sqs_calls_total",
            Counter,
            &[("action", "ReceiveMessage")],
            "Calls to SQS, by action",
        ),
        (
            "punchtrail_face_checks_total",
            Counter,
            FACES,
            "Checks of pictures, by provider and what came of them",
        ),
        (
            "punchtrail_face_verdicts_total",
            Counter,
            FACES,
            "Verdicts on pictures, by site, device, provider and outcome",
        ),
    ]
};

/// Says of each what it is, and lets it begin. A gauge that is measured later begins at 0 until
/// then.
fn describe() {
    use metrics::{
        Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
    };
    for &(name, kind, labels, help) in ALL {
        match kind {
            Kind::Counter => {
                describe_counter!(name, help);
                counter!(name, labels).absolute(0);
            }
            Kind::Gauge => {
                describe_gauge!(name, help);
                // As it stands, if somebody has set it already.
                gauge!(name, labels).increment(0.0);
            }
            Kind::Histogram => {
                describe_histogram!(name, Unit::Seconds, help);
                drop(histogram!(name, labels));
            }
        }
    }
}

/// Counts an answered request.
pub fn answered(method: &Method, route: &str, status: StatusCode, took: Duration) {
    let method = match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        _ => "other",
    };
    let labels = [("method", method.to_owned()), ("route", route.to_owned())];
    metrics::histogram!("punchtrail_http_request_duration_seconds", &labels).record(took);
    let status = status.as_u16().to_string();
    metrics::counter!(
        "punchtrail_http_requests_total",
        "method" => method, "route" => route.to_owned(), "status" => status
    )
    .increment(1);
}

/// Counts an item of a batch by what became of it.
pub fn items(status: &'static str, count: u64) {
    metrics::counter!("punchtrail_items_total", "status" => status).increment(count);
}

/// Counts a photo that was removed since no punch named it.
pub fn photo_swept() {
    metrics::counter!("punchtrail_photos_swept_total").increment(1);
}

/// Counts connections up and down.
pub fn connections(change: f64) {
    metrics::gauge!("punchtrail_connections").increment(change);
}
