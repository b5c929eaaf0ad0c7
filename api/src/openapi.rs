//! The API described as OpenAPI 3.1, made from the routes themselves. A copy is committed as
//! docs/openapi.json; a test compares the two, so that a change of the API shows in a review.

use axum::http::Method;
use utoipa::openapi::{
    Components, Content, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, Required, Response,
    ResponseBuilder,
    extensions::ExtensionsBuilder,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
    schema::{ObjectBuilder, Ref, Schema, Type},
    security::{
        ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
    },
};
use utoipa::{PartialSchema, ToSchema};

use punchtrail_protocol::wire::{FieldError, Problem};
use serde_json::json;

use crate::{
    auth::table::{self, Rule, Who},
    door::gate::SESSION_COOKIE,
    problem::PROBLEM_TYPE,
};

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
        if let Some(read) = item.get.as_mut().filter(|_| rests_on_a_model(path)) {
            read.parameters.get_or_insert_default().push(RefOr::T(after_header()));
        }
        let operations = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::DELETE, &mut item.delete),
            (Method::PATCH, &mut item.patch),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            add_refusal(operation);
            if let Some(rule) = table::rule(&method, path) {
                add_rule(operation, rule);
                if method != Method::GET && rule.who != Who::Anybody {
                    operation.parameters.get_or_insert_default().push(RefOr::T(key_header()));
                }
            }
        }
    }
    api
}

/// Reads of the API that don't come from the ledger itself.
fn rests_on_a_model(path: &str) -> bool {
    let exact = ["/v1/events", "/v1/ledger", "/v1/punches/{punch}/events", "/v1/audit"];
    let access = ["session", "users", "grants", "roles", "keys"];
    let of_access = |path: &str| access.iter().any(|of| path.starts_with(&format!("/v1/{of}")));
    path.starts_with("/v1/") && !exact.contains(&path) && !of_access(path)
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

fn key_header() -> Parameter {
    let key = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).build();
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "A name that you give this request, 1 to 255 characters, bare or in double quotes: \
             sent again with it within 24 hours it is answered as before, and not done twice",
        ))
        .schema(Some(Schema::Object(key)))
        .build()
}

fn after_header() -> Parameter {
    ParameterBuilder::new()
        .name("Punchtrail-After")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Wait until what was written up to this position is shown"))
        .schema(Some(Ref::from_schema_name("Position")))
        .build()
}

/// Every route can refuse, and always in the same form.
fn add_refusal(operation: &mut Operation) {
    let problem: RefOr<Schema> = RefOr::Ref(Ref::from_schema_name("Problem"));
    let refusal: Response = ResponseBuilder::new()
        .description("A refusal")
        .content(PROBLEM_TYPE, Content::new(Some(problem)))
        .build();
    operation.responses.responses.entry("default".to_owned()).or_insert(RefOr::T(refusal));
}

/// The description as it is served and committed: JSON, indented, with a newline at its end.
///
/// # Errors
/// When it can't be written as JSON, which a test excludes.
pub(crate) fn document(api: &OpenApi) -> Result<String, serde_json::Error> {
    Ok(api.to_pretty_json()? + "\n")
}
