//! What devices call: docs/device-protocol.md is the authority on all of it.

pub mod attachments;
pub mod batches;
pub mod commands;
pub mod disputes;
pub mod enrolment;
pub mod feed;
pub mod heartbeats;
pub(crate) mod history;
pub mod manifest;
pub mod photos;
pub mod records;
pub mod references;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{door::admission::Class, state::App};

/// Every route that devices call, and its class.
pub(crate) fn table() -> Vec<(Class, OpenApiRouter<App>)> {
    let routes = OpenApiRouter::new;
    vec![
        (
            Class::Heartbeat,
            routes().routes(routes!(heartbeats::take)).routes(routes!(commands::finish)),
        ),
        (Class::Delivery, routes().routes(routes!(batches::deliver))),
        (
            Class::Photo,
            routes()
                .routes(routes!(photos::put))
                .routes(routes!(attachments::attach))
                .routes(routes!(disputes::open)),
        ),
        (Class::Verdict, routes().routes(routes!(attachments::verdict))),
        (
            Class::Sync,
            routes()
                .routes(routes!(manifest::manifest))
                .routes(routes!(feed::since))
                .routes(routes!(commands::waiting)),
        ),
        (
            Class::Enrolment,
            routes().routes(routes!(enrolment::enroll)).routes(routes!(enrolment::come_back)),
        ),
        // A person at the door waits for it.
        (
            Class::Interactive,
            routes()
                .routes(routes!(manifest::search))
                .routes(routes!(references::take))
                .routes(routes!(records::of_worker)),
        ),
    ]
}
