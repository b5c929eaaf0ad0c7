//! Holds each answer that a test gets to the description of the API: its status and its type are
//! among those that the operation names.

use std::sync::LazyLock;

use hyper::{Method, header};
use punchtrail_api::router::described;
use serde_json::Value;

use super::Answer;

/// A path of the description, by its parts, and its operations.
struct Path {
    parts: Vec<String>,
    operations: Value,
}

static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(described()).unwrap());
static PATHS: LazyLock<Vec<Path>> = LazyLock::new(|| {
    let paths = DESCRIPTION["paths"].as_object().unwrap().iter();
    let parts = |path: &str| path.split('/').map(str::to_owned).collect();
    paths.map(|(path, of)| Path { parts: parts(path), operations: of.clone() }).collect()
});

impl Path {
    fn is_of(&self, parts: &[&str]) -> bool {
        let alike = |(own, part): (&String, &&str)| own.starts_with('{') || own == part;
        self.parts.len() == parts.len() && self.parts.iter().zip(parts).all(alike)
    }

    fn places(&self) -> usize {
        self.parts.iter().filter(|part| part.starts_with('{')).count()
    }
}

/// The operation that a request asks for; none for what the description doesn't have.
fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let parts: Vec<_> = path.split('/').collect();
    let of = PATHS.iter().filter(|of| of.is_of(&parts)).min_by_key(|of| of.places())?;
    let method =
        if *method == Method::HEAD { "get".into() } else { method.as_str().to_lowercase() };
    of.operations.get(&method)
}

/// That the description knows such an answer.
///
/// # Panics
/// When it doesn't.
pub fn hold(method: &Method, path: &str, answer: &Answer) {
    let Some(operation) = operation(method, path) else { return };
    let (status, id) = (answer.status.as_str(), &operation["operationId"]);
    let said = &operation["responses"][status];
    let said = match said["$ref"].as_str() {
        Some(named) => DESCRIPTION.pointer(named.trim_start_matches('#')).unwrap(),
        None => said,
    };
    let text = &answer.text;
    assert!(said.is_object(), "{id}: {method} {path} is answered {status}, undescribed: {text}");
    let kind = answer.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap());
    let Some(kind) = kind.filter(|_| !answer.bytes.is_empty()) else { return };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_said = said["content"].get(kind).is_some();
    assert!(is_said, "{id}: {method} {path} is answered {status} as {kind}, undescribed: {text}");
}
