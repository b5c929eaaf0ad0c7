//! For whoever runs the server: alive, ready, metrics, and the description of the API.

use axum::{
    Json as Answer,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use bytes::Bytes;

use crate::{
    auth::Operator, health::Readiness, metrics, problem::Refusal, problem_page, state::App,
};

/// Whether the process answers. Depends on nothing.
#[utoipa::path(
    get, path = "/livez", tag = "operations",
    operation_id = "getLiveness",
    responses((status = 200, description = "It does", body = String)),
)]
pub async fn livez() -> &'static str {
    "alive\n"
}

/// Whether this node can serve: it made a commit within the last seconds, and the adjudicator and
/// the read models follow. Answered at once, whatever the database does. Says, too, when
/// checkpoints are refused.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    operation_id = "getReadiness",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)),
)]
pub async fn readyz(State(app): State<App>) -> (StatusCode, Answer<Readiness>) {
    let readiness = app.health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Answer(readiness))
}

/// Metrics, as Prometheus reads them. Without a key only on the address of `--metrics-listen`.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    operation_id = "getMetrics",
    responses((status = 200, body = String, content_type = "text/plain")),
    security(("operator_key" = [])),
)]
pub async fn metrics(State(app): State<App>, _operator: Operator) -> Response {
    rendered(&app)
}

/// The same for the address that only metrics are served on.
pub async fn open_metrics(State(app): State<App>) -> Response {
    rendered(&app)
}

fn rendered(app: &App) -> Response {
    match metrics::handle() {
        Some(handle) => {
            app.health.measure();
            app.door.admission.publish();
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (kind, handle.render()).into_response()
        }
        None => Refusal::internal().into_response(),
    }
}

/// The description of the API, as it was written when the server started.
pub fn openapi(description: Result<&Bytes, &serde_json::Error>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    match description {
        Ok(text) => (kind, text.clone()).into_response(),
        Err(error) => {
            tracing::error!(%error, "the description of the API can't be written");
            Refusal::internal().into_response()
        }
    }
}

/// What each refusal comes from and what to do about it.
pub async fn problems() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (header::CACHE_CONTROL, "max-age=3600"),
    ];
    (headers, problem_page::page())
}
