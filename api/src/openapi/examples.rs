//! An example of what each operation takes and answers, as a server gave it: `examples.json`, by
//! the operations' ids.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use serde_json::Value;
use utoipa::openapi::{
    Content, RefOr, Response,
    path::{Operation, ParameterBuilder},
};

/// The file. What can't be read in it leaves the operations without examples, which a test finds.
static EXAMPLES: LazyLock<BTreeMap<String, Example>> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).unwrap_or_default());

/// Of one operation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    /// The body that was sent.
    request: Option<Value>,
    /// The body that was answered, with the first status that isn't a refusal.
    response: Option<Value>,
    /// What stood in the path and the query.
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
}

/// Shows an operation's example in it.
pub(super) fn add(operation: &mut Operation) {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    let Some(example) = EXAMPLES.get(id) else { return };
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        show(body.content.iter_mut(), example.request.as_ref());
    }
    let answers = operation.responses.responses.iter_mut().filter(|(of, _)| of.starts_with('2'));
    if let Some((_, RefOr::T(Response { content, .. }))) = { answers }.next() {
        show(content.iter_mut(), example.response.as_ref());
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && let Some(value) = example.parameters.get(&parameter.name)
        {
            let shown = ParameterBuilder::from(parameter.clone()).example(Some(value.clone()));
            *parameter = shown.build();
        }
    }
}

/// What is JSON is shown where JSON is taken or given, a text elsewhere.
fn show<'a>(
    contents: impl Iterator<Item = (&'a String, &'a mut RefOr<Content>)>,
    example: Option<&Value>,
) {
    for (kind, content) in contents {
        if let RefOr::T(content) = content {
            content.example = example.filter(|of| kind.contains("json") != of.is_string()).cloned();
        }
    }
}
