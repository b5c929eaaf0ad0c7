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

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!("punchtrail_http_requests_total", "Requests answered, by route and status");
    describe_histogram!(
        "punchtrail_http_request_duration_seconds",
        Unit::Seconds,
        "From a request's head to its answer"
    );
    describe_counter!("punchtrail_items_total", "Items of batches, by what became of them");
    describe_counter!(
        "punchtrail_photos_swept_total",
        "Photos removed, or found removed, since no punch named them for 90 days"
    );
    describe_gauge!("punchtrail_connections", "Connections being served");
    describe_gauge!("punchtrail_admission_working", "Requests being worked on, by class");
    describe_gauge!("punchtrail_admission_coming", "Requests let in whose bodies are to come");
    describe_gauge!(
        "punchtrail_admission_waiting",
        "Requests that are there and wait for their turn, by class"
    );
    describe_histogram!(
        "punchtrail_admission_wait_duration_seconds",
        Unit::Seconds,
        "From a request's body to its turn, by class"
    );
    describe_counter!(
        "punchtrail_admission_refused_total",
        "Requests refused as busy before any work, by class and why: the wait would have been too \
         long, it came before the time it was given, or no seat was left"
    );
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
