//! The API described as OpenAPI 3.1, made from the routes themselves. A copy is committed as
//! docs/openapi.json; a test compares the two, so that a change of the API shows in a review.

use std::sync::OnceLock;

use utoipa::openapi::{
    Components, Content, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, Required, Response,
    ResponseBuilder,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
    schema::{Ref, Schema},
    security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa::{PartialSchema, ToSchema};

use punchtrail_protocol::wire::{FieldError, Problem};

use crate::{problem::PROBLEM_TYPE, router};

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
                     say `Punchtrail-After: <position>` to see at least what was written up to there.",
                ))
                .build(),
        )
        .components(Some(components))
        .build()
}

fn add<T: ToSchema + PartialSchema>(components: &mut Components) {
    components.schemas.insert(T::name().into_owned(), T::schema());
}

/// The whole description.
pub fn describe() -> OpenApi {
    let mut api = router::described();
    for (path, item) in &mut api.paths.paths {
        if let Some(read) = item.get.as_mut().filter(|_| rests_on_a_model(path)) {
            read.parameters.get_or_insert_default().push(RefOr::T(after_header()));
        }
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            add_refusal(operation);
        }
    }
    api
}

/// Reads of the API that don't come from the ledger itself.
fn rests_on_a_model(path: &str) -> bool {
    let exact = ["/v1/events", "/v1/ledger", "/v1/punches/{punch}/events"];
    path.starts_with("/v1/") && !exact.contains(&path)
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
pub fn document() -> Result<&'static str, serde_json::Error> {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    if let Some(text) = DOCUMENT.get() {
        return Ok(text);
    }
    let text = describe().to_pretty_json()? + "\n";
    Ok(DOCUMENT.get_or_init(|| text))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_committed_description_is_the_routes_own() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let made = document().unwrap();
        if std::env::var_os("PUNCHTRAIL_UPDATE").is_some() {
            std::fs::write(path, made).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == made,
            "docs/openapi.json is not what the routes say; run this test with PUNCHTRAIL_UPDATE=1"
        );
    }

    /// Two types of one name would silently share the first one's schema: each name in the sources may
    /// stand for one type only.
    #[test]
    fn no_two_types_share_a_schema_name() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut places = BTreeMap::<String, BTreeSet<String>>::new();
        for crate_dir in ["domain", "infra", "projections", "api"] {
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
        let api = describe();
        let text = document().unwrap();
        let known: BTreeSet<_> =
            api.components.iter().flat_map(|all| all.schemas.keys().cloned()).collect();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(known.contains(name), "{name} is not described");
        }
    }
}
