//! The table of all routes.

use axum::{Router, extract::DefaultBodyLimit, middleware, routing::get};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    admission::{Admission, Class, Door, admit},
    envelope::envelope,
    openapi,
    problem::Refusal,
    routes::{
        batches, devices, employees, enrolment, explanations, feed, heartbeats, ledger, operations,
        photos, punches, quarantine, roster, sites, timecards,
    },
    seats::Seats,
    state::App,
};

/// Every route, class by class.
fn table(door: &Door) -> OpenApiRouter<App> {
    let classed = |class, routes: OpenApiRouter<App>| {
        routes.route_layer(middleware::from_fn_with_state((door.clone(), class), admit))
    };
    OpenApiRouter::with_openapi(openapi::head())
        .merge(classed(Class::Heartbeat, OpenApiRouter::new().routes(routes!(heartbeats::take))))
        .merge(classed(Class::Delivery, OpenApiRouter::new().routes(routes!(batches::deliver))))
        .merge(classed(Class::Photo, OpenApiRouter::new().routes(routes!(photos::put))))
        .merge(classed(
            Class::Sync,
            OpenApiRouter::new().routes(routes!(roster::manifest)).routes(routes!(feed::since)),
        ))
        .merge(classed(Class::Interactive, interactive()))
        // Whoever runs it asks in an overload first of all: never refused.
        .routes(routes!(operations::livez))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
}

/// What people and integrators read and rule, and what a person at a door waits for.
fn interactive() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(enrolment::enroll))
        .routes(routes!(roster::search))
        .routes(routes!(punches::list))
        .routes(routes!(punches::one))
        .routes(routes!(punches::events))
        .routes(routes!(punches::decide))
        .routes(routes!(explanations::of_punch))
        .routes(routes!(explanations::of_day))
        .routes(routes!(timecards::timeline))
        .routes(routes!(timecards::cards))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::one))
        .routes(routes!(quarantine::admit))
        .routes(routes!(quarantine::dismiss))
        .routes(routes!(employees::list))
        .routes(routes!(employees::one))
        .routes(routes!(employees::depart))
        .routes(routes!(sites::list))
        .routes(routes!(sites::one))
        .routes(routes!(sites::change_policy))
        .routes(routes!(sites::make_pairing_code))
        .routes(routes!(devices::list))
        .routes(routes!(devices::one))
        .routes(routes!(devices::revoke))
        .routes(routes!(devices::assign))
        .routes(routes!(ledger::state))
        .routes(routes!(ledger::events))
}

/// Every route, inside the envelope.
pub fn router(app: App) -> Router {
    let (routes, _) = table(&Door { admission: app.admission.clone(), seats: app.seats.clone() })
        .split_for_parts();
    routes
        .route("/openapi.json", get(operations::openapi))
        .fallback(async || Refusal::not_found())
        // Bodies are bounded where they are read, each by its own limit.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(envelope))
        .with_state(app)
}

/// The routes of the address that only metrics are served on.
pub fn metrics_router(app: App) -> Router {
    Router::new()
        .route("/metrics", get(operations::open_metrics))
        .fallback(async || Refusal::not_found())
        .layer(middleware::from_fn(envelope))
        .with_state(app)
}

/// What the routes say of themselves.
pub(crate) fn described() -> OpenApi {
    table(&Door { admission: Admission::off(), seats: Seats::new(0, 0) }).into_openapi()
}
