//! All routes: the tables of `routes`, each route behind its class's admission, all in the
//! envelope.

use std::{future::ready, sync::Arc};

use axum::{Router, extract::DefaultBodyLimit, middleware, routing::get};
use bytes::Bytes;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::check,
    door::{
        Door,
        address::TrustedProxies,
        admission::{Admission, Class, admit, gated},
        connection_limit::ConnectionLimit,
        envelope::{Envelope, envelope},
        gate::Gate,
        limits::Timeouts,
        refusals::Refusals,
    },
    once, openapi,
    problem::{PROBLEMS_PATH, Refusal},
    quota,
    routes::{
        device::{self, history},
        office, operations,
    },
    state::App,
};

/// Every route, class by class; with an `app`, devices are told of its ledger on each, and the
/// office is let in by the table of who may call what.
fn table(door: &Door, app: Option<&App>) -> OpenApiRouter<App> {
    let admitted = |(class, routes): (Class, OpenApiRouter<App>)| {
        routes.route_layer(middleware::from_fn_with_state((door.clone(), class), admit))
    };
    let told = |routes: OpenApiRouter<App>| match app {
        Some(app) => {
            let tell = history::on_every_answer;
            routes
                .route_layer(middleware::from_fn(quota::of_devices))
                .route_layer(middleware::from_fn_with_state(app.clone(), tell))
        }
        None => routes,
    };
    let checked = |routes: OpenApiRouter<App>| match app {
        Some(app) => {
            routes.route_layer(middleware::from_fn_with_state(app.clone(), check::authorise))
        }
        None => routes,
    };
    let devices = device::table().into_iter().map(admitted).map(told);
    let let_in = |(class, routes): (Class, OpenApiRouter<App>)| match app {
        Some(app) => {
            let once = middleware::from_fn_with_state(app.clone(), once::once);
            let count = middleware::from_fn_with_state(app.clone(), quota::of_keys);
            (class, checked(routes.route_layer(once).route_layer(count)))
        }
        None => (class, routes),
    };
    let office = office::table().into_iter().map(let_in).map(admitted);
    devices
        .chain(office)
        .fold(OpenApiRouter::with_openapi(openapi::head()), OpenApiRouter::merge)
        // Whoever runs it asks in an overload first of all: never refused.
        .routes(routes!(operations::livez))
        .routes(routes!(operations::readyz))
        .merge(
            checked(OpenApiRouter::new().routes(routes!(operations::metrics)))
                .route_layer(middleware::from_fn_with_state(door.clone(), gated)),
        )
}

/// Every route, inside the envelope.
pub fn router(app: App) -> Router {
    let (routes, api) = table(&app.door, Some(&app)).split_for_parts();
    // Shared by all who ask, however slowly they read.
    let description = Arc::new(openapi::document(&openapi::complete(api)).map(Bytes::from));
    let served = move || ready(operations::openapi((*description).as_ref()));
    routes
        .route(openapi::DESCRIPTION_PATH, get(served))
        .route(PROBLEMS_PATH, get(operations::problems))
        .merge(openapi::pages())
        .fallback(async || Refusal::not_found())
        // Bodies are bounded where they are read, each by its own limit.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Envelope::of(&app.door), envelope))
        .with_state(app)
}

/// The routes of the address that only metrics are served on.
pub fn metrics_router(app: App) -> Router {
    Router::new()
        .route("/metrics", get(operations::open_metrics))
        .fallback(async || Refusal::not_found())
        .layer(middleware::from_fn_with_state(Envelope::of(&app.door), envelope))
        .with_state(app)
}

/// What the routes say of themselves.
pub fn described() -> OpenApi {
    let door = Door {
        timeouts: Timeouts::default(),
        gate: Gate::open(),
        admission: Admission::off(),
        connections: ConnectionLimit::new(0, 0),
        proxies: TrustedProxies::default(),
        refusals: Refusals::default(),
    };
    openapi::complete(table(&door, None).into_openapi())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_committed_description_is_the_routes_own() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let made = openapi::document(&described()).unwrap();
        if std::env::var_os("PUNCHTRAIL_UPDATE").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == made,
            "docs/openapi.json is not what the routes say; run this test with PUNCHTRAIL_UPDATE=1"
        );
    }

    /// Clients are generated from it: names that aren't unique, or an answer without a word, break
    /// them; and whoever reads it begins with the examples.
    #[test]
    fn each_operation_has_a_name_of_its_own_words_and_examples() {
        let api = serde_json::to_value(described()).unwrap();
        let paths = api["paths"].as_object().unwrap().values();
        let operations: Vec<_> =
            paths.flat_map(|path| path.as_object().unwrap().values()).collect();
        let mut names = BTreeSet::new();
        let has_example = |of: &serde_json::Value| {
            let mut kinds = of.as_object().into_iter().flatten();
            kinds.clone().all(|(kind, _)| !kind.contains("json") && !kind.contains("text"))
                || kinds.any(|(_, content)| !content["example"].is_null())
        };
        for operation in operations {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} is there twice");
            assert!(operation["summary"].is_string(), "{name}");
            assert!(has_example(&operation["requestBody"]["content"]), "{name}: its body");
            let answers = operation["responses"].as_object().unwrap();
            for answer in answers.values().filter(|answer| answer["$ref"].is_null()) {
                assert!(
                    answer["description"].as_str().is_some_and(|text| !text.is_empty()),
                    "{name}"
                );
            }
            let done = answers.iter().find(|(status, _)| status.starts_with('2'));
            assert!(
                done.is_none_or(|(_, done)| has_example(&done["content"])),
                "{name}: its answer"
            );
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let is_shown = parameter["in"] != "path" || !parameter["example"].is_null();
                assert!(is_shown, "{name}: {}", parameter["name"]);
            }
        }
    }

    /// Two types of one name would silently share the first one's schema: each name in the sources
    /// may stand for one type only.
    #[test]
    fn no_two_types_share_a_schema_name() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut places = BTreeMap::<String, BTreeSet<String>>::new();
        for crate_dir in ["protocol", "domain", "infra", "projections", "api"] {
            collect(&root.join(crate_dir).join("src"), &mut places);
        }
        let shared: Vec<_> = places.iter().filter(|(_, files)| files.len() > 1).collect();
        assert!(places.contains_key("Problem") && places.contains_key("PunchView"));
        assert!(shared.is_empty(), "{shared:?}");
    }

    fn collect(dir: &std::path::Path, places: &mut BTreeMap<String, BTreeSet<String>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, places);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let mut described = false;
            for line in text.lines().map(str::trim) {
                described |= line.starts_with("#[") && line.contains("ToSchema");
                let declared = line
                    .strip_prefix("pub struct ")
                    .or_else(|| line.strip_prefix("pub enum "))
                    .filter(|_| described);
                if let Some(rest) = declared {
                    let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                    places.entry(name).or_default().insert(path.display().to_string());
                    described = false;
                }
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let api = described();
        let text = openapi::document(&described()).unwrap();
        let known: BTreeSet<_> =
            api.components.iter().flat_map(|all| all.schemas.keys().cloned()).collect();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(known.contains(name), "{name} is not described");
        }
    }
}
