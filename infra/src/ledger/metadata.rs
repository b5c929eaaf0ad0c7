//! Who caused an event, and by what request: a flat JSON object of strings, as cqrs-es has it.

use punchtrail_domain::log::recorded::Actor;

/// An event's metadata. It never holds names, tokens or free text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    actor: Actor,
    request: Option<String>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self::new(Actor::CommandLine)
    }
}

impl Metadata {
    /// Caused by `actor`.
    pub fn new(actor: Actor) -> Self {
        Self { actor, request: None }
    }

    /// Caused by the request of that id.
    #[must_use]
    pub fn with_request(mut self, request: impl Into<String>) -> Self {
        self.request = Some(request.into());
        self
    }

    /// The exact text that is kept and hashed.
    pub fn to_text(&self) -> String {
        let mut object = serde_json::Map::new();
        object.insert("actor".to_owned(), self.actor.to_string().into());
        if let Some(request) = &self.request {
            object.insert("request".to_owned(), request.clone().into());
        }
        serde_json::Value::Object(object).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_a_flat_object_of_strings() {
        let text = Metadata::new(Actor::Policy).with_request("r1").to_text();
        assert_eq!(text, r#"{"actor":"policy","request":"r1"}"#);
    }
}
