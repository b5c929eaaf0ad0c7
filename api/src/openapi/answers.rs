//! What each operation may answer: every answer described, every refusal that it may give listed.

use axum::http::{Method, StatusCode};
use strum::VariantArray;
use utoipa::openapi::{
    Components, Content, Ref, RefOr, Response, ResponseBuilder,
    path::{Operation, Parameter, ParameterIn},
    schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type},
};

use crate::{
    auth::table::{Rule, Who},
    problem::{Code, PROBLEM_TYPE, PROBLEMS_PATH},
};

/// What is said of an answer that its route says nothing of.
const IN_WORDS: &[(&str, &str)] = &[
    ("200", "Done, or what was asked for"),
    ("201", "Made"),
    ("202", "Taken; it goes on by itself"),
    ("204", "Done; there is nothing more to say"),
    ("503", "Not now"),
];

/// What some operations answer beside what follows from their form.
const OWN: &[(&str, StatusCode)] = &[
    ("acceptLink", StatusCode::FORBIDDEN),
    ("addPunch", StatusCode::NOT_FOUND),
    // Where no provider is set up.
    ("beginProviderSignIn", StatusCode::NOT_FOUND),
    ("endProviderSignIn", StatusCode::NOT_FOUND),
    ("confirmProviderSignIn", StatusCode::NOT_FOUND),
    ("tieToProvider", StatusCode::NOT_FOUND),
    ("beginProviderSignIn", StatusCode::TOO_MANY_REQUESTS),
    ("endProviderSignIn", StatusCode::TOO_MANY_REQUESTS),
    ("confirmProviderSignIn", StatusCode::UNAUTHORIZED),
    ("confirmProviderSignIn", StatusCode::FORBIDDEN),
    ("confirmProviderSignIn", StatusCode::TOO_MANY_REQUESTS),
    ("countReviews", StatusCode::NOT_FOUND),
    ("endProviderSignIn", StatusCode::UNAUTHORIZED),
    ("endProviderSignIn", StatusCode::FORBIDDEN),
    ("endProviderSignIn", StatusCode::CONFLICT),
    ("enrollDevice", StatusCode::FORBIDDEN),
    ("enrollDevice", StatusCode::TOO_MANY_REQUESTS),
    ("getManifest", StatusCode::CONFLICT),
    ("getTimeline", StatusCode::NOT_FOUND),
    ("hireEmployee", StatusCode::NOT_FOUND),
    ("listDevices", StatusCode::NOT_FOUND),
    ("listDisputes", StatusCode::NOT_FOUND),
    ("listEmployees", StatusCode::NOT_FOUND),
    ("listEvents", StatusCode::NOT_FOUND),
    ("listFigures", StatusCode::NOT_FOUND),
    ("listPunches", StatusCode::NOT_FOUND),
    ("listReviews", StatusCode::NOT_FOUND),
    ("listTimecards", StatusCode::NOT_FOUND),
    ("openDispute", StatusCode::NOT_FOUND),
    ("previewAddedPunch", StatusCode::NOT_FOUND),
    ("returnDevice", StatusCode::FORBIDDEN),
    ("signIn", StatusCode::UNAUTHORIZED),
    ("signIn", StatusCode::FORBIDDEN),
    ("signIn", StatusCode::TOO_MANY_REQUESTS),
];

/// One refusal a status, with all codes that it may bear; operations refer to them by name.
pub(super) fn add_refusals(components: &mut Components) {
    let mut codes: Vec<&Code> = Code::VARIANTS.iter().collect();
    codes.sort_by_key(|code| code.status());
    for of_status in codes.chunk_by(|one, next| one.status() == next.status()) {
        let status = of_status[0].status();
        let words: Vec<_> = of_status
            .iter()
            .map(|code| format!("[`{0}`]({PROBLEMS_PATH}#{0}) {1}", code.as_str(), code.title()))
            .collect();
        let problem: RefOr<Schema> = RefOr::Ref(Ref::from_schema_name("Problem"));
        let refusal = ResponseBuilder::new()
            .description(format!("Refused: {}", words.join("; ")))
            .content(PROBLEM_TYPE, Content::new(Some(problem)))
            .build();
        components.responses.insert(name(status), RefOr::T(refusal));
    }
}

/// The name of the refusals of a status: its phrase in HTTP, as one word.
fn name(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or_default().replace(' ', "")
}

/// Describes what an operation answers, and adds how it may refuse.
pub(super) fn complete(operation: &mut Operation, method: &Method, rule: Option<&Rule>) {
    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        if let RefOr::T(Response { description, .. }) = response
            && description.is_empty()
            && let Some((_, words)) = IN_WORDS.iter().find(|(of, _)| of == status)
        {
            (*words).clone_into(description);
        }
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        say_binary(body.content.iter_mut());
    }
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            say_binary(response.content.iter_mut());
        }
    }
    for status in refusals(operation, method, rule) {
        let refusal = RefOr::Ref(Ref::from_response_name(name(status)));
        let responses = &mut operation.responses.responses;
        responses.entry(status.as_str().to_owned()).or_insert(refusal);
    }
}

/// What is no text is bytes as they are, not a list of numbers.
fn say_binary<'a>(contents: impl Iterator<Item = (&'a String, &'a mut RefOr<Content>)>) {
    for (kind, content) in contents {
        if kind.starts_with("image/") || kind == "application/zip" {
            let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
            let bytes = ObjectBuilder::new().schema_type(Type::String).format(Some(binary));
            *content = RefOr::T(Content::new(Some(Schema::Object(bytes.build()))));
        }
    }
}

fn refusals(operation: &Operation, method: &Method, rule: Option<&Rule>) -> Vec<StatusCode> {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    let own = OWN.iter().filter(|(of, _)| *of == id).map(|(_, status)| *status);
    // What any request may meet: one that can't be read, a server that is broken or has no room.
    let mut all = vec![
        StatusCode::BAD_REQUEST,
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    all.extend(own);
    if operation.security.is_some() && rule.is_none_or(|rule| rule.who != Who::Anybody) {
        all.extend([
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::TOO_MANY_REQUESTS,
        ]);
    }
    let mut parameters = operation.parameters.iter().flatten();
    let takes_any = parameters.clone().next().is_some();
    let is_in_path = |parameter: &RefOr<Parameter>| match parameter {
        RefOr::T(parameter) => parameter.parameter_in == ParameterIn::Path,
        RefOr::Ref(_) => false,
    };
    if parameters.any(is_in_path) {
        all.push(StatusCode::NOT_FOUND);
    }
    if operation.request_body.is_some() {
        all.extend([
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ]);
    }
    let changes = *method != Method::GET;
    if changes || takes_any {
        all.push(StatusCode::UNPROCESSABLE_ENTITY);
    }
    if changes {
        all.push(StatusCode::CONFLICT);
    }
    all
}
