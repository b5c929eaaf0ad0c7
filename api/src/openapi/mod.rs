//! The API described as OpenAPI 3.1, made from the routes themselves. A copy is committed as
//! docs/openapi.json; a test compares the two, so that a change of the API shows in a review.

mod answers;
mod examples;
mod parameters;

use axum::{
    Router,
    http::{HeaderValue, Method, header},
    middleware,
    response::Response,
};
use utoipa::openapi::{
    Components, InfoBuilder, OpenApi, OpenApiBuilder, RefOr,
    extensions::ExtensionsBuilder,
    path::Operation,
    security::{
        ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
    },
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_swagger_ui::{Config, SwaggerUi};

use punchtrail_protocol::wire::{FieldError, Problem};
use serde_json::json;

use crate::{
    auth::table::{self, Rule, Who},
    door::gate::SESSION_COOKIE,
    state::App,
};

/// Where the description is served.
pub(crate) const DESCRIPTION_PATH: &str = "/openapi.json";
/// Where it can be read and tried out.
const PAGES_PATH: &str = "/docs/api";
/// Scripts and pictures from the server alone; the pages style themselves.
const PAGES_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
                            img-src 'self' data:; frame-ancestors 'none'";

/// What stands above the routes.
pub(crate) fn head() -> OpenApi {
    let bearer = |format: &str, about: &str| {
        SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .bearer_format(format)
                .description(Some(about))
                .build(),
        )
    };
    let mut components = Components::new();
    components.add_security_scheme("device_token", bearer("ptd_…", "Given at enrolment"));
    components.add_security_scheme("operator_key", bearer("ptk_…", "Made by `punchtrail key new`"));
    let session = "Of who has signed in (`/v1/sign-in`); what changes something has to come from \
                   the server's own pages";
    let session = ApiKeyValue::with_description(SESSION_COOKIE, session);
    components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(session)));
    add::<Problem>(&mut components);
    add::<FieldError>(&mut components);
    answers::add_refusals(&mut components);
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Punchtrail")
                .version("1")
                .description(Some(
                    "Punches, and why they stand as they do. Times are RFC 3339 in UTC with \
                     milliseconds. Refusals are RFC 9457 problems with a stable `code`. A read may \
                     say `Punchtrail-After: <position>` to see at least what was written up to \
                     there.",
                ))
                .build(),
        )
        .components(Some(components))
        .build()
}

fn add<T: ToSchema + PartialSchema>(components: &mut Components) {
    components.schemas.insert(T::name().into_owned(), T::schema());
}

/// What the routes say of themselves, with what holds for all of them.
pub(crate) fn complete(mut api: OpenApi) -> OpenApi {
    for (path, item) in &mut api.paths.paths {
        let operations = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::DELETE, &mut item.delete),
            (Method::PATCH, &mut item.patch),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            let rule = table::rule(&method, path);
            if let Some(rule) = rule {
                add_rule(operation, rule);
                if method != Method::GET && rule.who != Who::Anybody {
                    let key = RefOr::T(parameters::idempotency_key());
                    operation.parameters.get_or_insert_default().push(key);
                }
            }
            parameters::complete(operation);
            answers::complete(operation, &method, rule);
            examples::add(operation);
        }
    }
    api
}

/// Who may call it, as the table has it.
fn add_rule(operation: &mut Operation, rule: &Rule) {
    let needs = |name: &str| SecurityRequirement::new::<_, _, String>(name, []);
    let by = match rule.who {
        Who::Anybody => Vec::new(),
        Who::User => vec![needs("session")],
        Who::Roles(_) => vec![needs("operator_key"), needs("session")],
    };
    operation.security = Some(by);
    let scopes = rule.scope.map(|scope| vec![scope]).unwrap_or_default();
    // One extension: of several utoipa would write another one first each time.
    let access = json!({ "roles": rule.who_in_words(), "scopes": scopes });
    operation.extensions = Some(ExtensionsBuilder::new().add("x-access", access).build());
}

/// The description to read and try out in a browser. All that the pages need comes with them.
pub(crate) fn pages() -> Router<App> {
    let config = Config::from(DESCRIPTION_PATH)
        .use_base_layout()
        .validator_url("none")
        .doc_expansion("none")
        .default_models_expand_depth(0)
        .filter(true);
    let pages: Router<App> = SwaggerUi::new(PAGES_PATH).config(config).into();
    pages.layer(middleware::map_response(async |mut answer: Response| {
        let policy = HeaderValue::from_static(PAGES_POLICY);
        answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        answer
    }))
}

/// The description as it is served and committed: JSON, indented, with a newline at its end.
///
/// # Errors
/// When it can't be written as JSON, which a test excludes.
pub(crate) fn document(api: &OpenApi) -> Result<String, serde_json::Error> {
    Ok(api.to_pretty_json()? + "\n")
}
