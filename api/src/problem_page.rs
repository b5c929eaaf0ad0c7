//! What each refusal comes from and what to do about it, as a page: where a problem's `type` leads.
//!
//! Made from the table of codes; the server gives it as HTML, a copy is committed as
//! docs/problems.md. A new code takes a line here, or nothing compiles.

use maud::{DOCTYPE, Markup, html};
use strum::VariantArray;

use crate::problem::Code;

/// Why a request is refused so, and what whoever sent it does then.
pub const fn explained(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::MalformedJson => (
            "The body is no strict JSON: a trailing comma, a duplicate key, a NUL, half a \
             surrogate pair, more than 32 levels.",
            "Send what a JSON library writes, in UTF-8.",
        ),
        Code::BadRequest => (
            "The request broke off, can't be read, or can be read in more than one way. Nothing of \
             it was taken.",
            "Send it again. If it comes back, look at what stands between you and the server.",
        ),
        Code::CursorInvalid => (
            "The cursor is of another list, filter, order or caller, was altered, or is from \
             before the ledger was restored.",
            "Begin again without a cursor. Only `limit` may change within a walk.",
        ),
        Code::Unauthenticated => (
            "No credentials came, or ones that are nobody's: mistyped, revoked or run out.",
            "Send `Authorization: Bearer` with a device's token or an operator's key that is in \
             force.",
        ),
        Code::SignInRefused => (
            "Login, password or code is wrong. Which of them is never said. By a provider: it \
             vouches for nobody who may come in here.",
            "Type them again. Whoever forgot theirs asks an admin for a link; an admin makes one \
             with `punchtrail admin link`. By a provider: docs/roles.md, Signing in by a provider.",
        ),
        Code::SecondFactorNeeded => (
            "The password is right, and the account has a second factor.",
            "Send `code` as well: of the authenticator, or one of the recovery codes.",
        ),
        Code::SecondFactorRequired => (
            "The caller's role needs a second factor, and none is set yet.",
            "Set one (`POST /v1/session/second-factor`), confirm it, and send the request again.",
        ),
        Code::CrossOrigin => (
            "A browser sent the session's cookie on behalf of another page, or said of none.",
            "Ask from the server's own pages. A program uses a key, and no cookie.",
        ),
        Code::SignInOver => (
            "A browser came back from the provider that didn't begin there, came twice, or took \
             longer than ten minutes.",
            "Begin again (`GET /v1/sign-in/provider`), and stay in that browser.",
        ),
        Code::LinkInvalid => (
            "The link is mistyped, was used, was voided by a later one, or is older than thirty \
             minutes.",
            "Ask an admin for another.",
        ),
        Code::Forbidden => (
            "The credentials are good, but not for this: the role or the key's scopes don't reach \
             so far.",
            "Ask with credentials that may, or ask whoever runs the server for the right. \
             docs/roles.md says who may call what.",
        ),
        Code::DeviceRevoked => (
            "The device's access was ended. It may still deliver what it holds.",
            "Let it deliver, then enrol it anew with a pairing code if it shall go on.",
        ),
        Code::PairingCodeInvalid => (
            "The code is mistyped, was used, or is older than ten minutes.",
            "Make a new code and type it within ten minutes.",
        ),
        Code::NotFound => (
            "There is nothing here, or nothing that the caller may know of.",
            "Look at the path and its ids; read the list that they come from.",
        ),
        Code::MethodNotAllowed => {
            ("The path is right, the method is not.", "Use one of the methods that `Allow` names.")
        }
        Code::RequestTimeout => (
            "The body took too long to come, or stood still while others came. Nothing was taken.",
            "Send it again; if it comes back, the connection is too slow or a proxy holds it up.",
        ),
        Code::RosterChanged => (
            "People came or went while the manifest was walked.",
            "Begin the walk again without a cursor.",
        ),
        Code::OwnRecord => (
            "It is about whoever asks, and nobody rules on their own.",
            "Ask somebody else who may.",
        ),
        Code::AlreadyRuled => (
            "Somebody ruled after you had looked; `detail` says who and when. Nothing was changed.",
            "Look again, and rule anew with the sequence that you see then, if need be.",
        ),
        Code::PunchChanged => (
            "Something came to be known of the punch after you had looked. Nothing was changed.",
            "Look again, then rule with the sequence that you see.",
        ),
        Code::Conflict => (
            "What stands already contradicts the request, or it was done before.",
            "Read what stands. `detail` says what is in the way.",
        ),
        Code::IdempotencyInFlight => (
            "A request with the same `Idempotency-Key` is at work, on this node or another.",
            "Send it again after the time in `Retry-After`, with the same key: then its answer is \
             there.",
        ),
        Code::AnswerNotKept => (
            "The request was done before under its `Idempotency-Key`, and its answer isn't given \
             again: it held a secret that is shown once (a code, a key, a token) or people's \
             names, or was too large.",
            "If the answer was lost, look at what there is, take it back if it can't be used, and \
             make another with a new key.",
        ),
        Code::IdempotencyKeyReused => (
            "The `Idempotency-Key` was used within 24 hours for another method, path or body.",
            "Give each request a key of its own, and send one again exactly as it was.",
        ),
        Code::LastAdmin => (
            "Nobody could change anything any more: they are the only admin who can sign in.",
            "Make another admin first.",
        ),
        Code::ErasureRefused => (
            "Something stands in the way of erasing the person: `errors` has a code for each \
             reason.",
            "Settle each of them, or wait until the retention has run; then ask again.",
        ),
        Code::PayloadTooLarge => {
            ("More came than is taken at once. Nothing was taken.", "Send less at once.")
        }
        Code::UnsupportedMediaType => (
            "Another type of content is needed, or the body has a `Content-Encoding`.",
            "Send JSON as `application/json`, or the picture as it is, and compress nothing.",
        ),
        Code::Invalid => (
            "A field, parameter or header is at fault; `errors` points to each.",
            "Put right what `errors` names. `detail` says what is taken.",
        ),
        Code::BadSignature => (
            "What a device sent isn't signed by the key that it enrolled with. Nothing was kept.",
            "Look whether the device's folder was copied or put back; enrol it anew if so.",
        ),
        Code::QuarantineFull => (
            "Too much of the device waits for a person. The punches of the batch were taken, the \
             rest was not, and stays on the device.",
            "Settle what waits in quarantine; the device sends the rest by itself.",
        ),
        Code::DisputesFull => (
            "Too many disputes of the person, or from the device, wait. It was not taken.",
            "Settle some of those that wait, then send it again.",
        ),
        Code::DigestMismatch => (
            "The bytes that came have another digest than the path names. Nothing was kept.",
            "Send them again; if it comes back, compute the SHA-256 of the bytes as they are sent.",
        ),
        Code::OneAtATime => (
            "The device's last batch is still being taken, or a newer one came.",
            "Send one batch at a time, the next after the answer to the last.",
        ),
        Code::QuotaExceeded => (
            "Too many requests of this kind: reads of a device or calls of a key within 24 hours, \
             records of workers, wrong codes. Deliveries are never counted. It isn't counted \
             itself.",
            "Wait for the time in `Retry-After`. `X-RateLimit-Reset` says when the next call fits.",
        ),
        Code::Internal => (
            "The server is broken. Nothing of the request was acknowledged.",
            "Give whoever runs the server the `request_id`: the log says under it what broke.",
        ),
        Code::Busy => (
            "More comes in than can be taken, or the database is out of reach. Nothing was \
             acknowledged.",
            "Send it again after the time in `Retry-After`. With an `Idempotency-Key` that is safe \
             for every write.",
        ),
        Code::ProviderUnavailable => (
            "The provider of sign-ins is away, too slow, or answers what can't be taken. Nobody \
             was signed in.",
            "Begin again after the time in `Retry-After`, or sign in with a password. If it comes \
             back, the server's log says why.",
        ),
        Code::ReadBehind => (
            "The read model isn't yet where `Punchtrail-After` wants it.",
            "Ask again in a moment. If it lasts, a follower has stopped: see `/readyz`.",
        ),
    }
}

/// The page as it is committed.
pub fn markdown() -> String {
    let mut page = "# Problems\n\nEvery refusal is `application/problem+json` (RFC 9457); its \
         `type` leads to its code here, on the server itself at `/docs/problems`. Made from the \
         server's own table.\n"
        .to_owned();
    for code in Code::VARIANTS {
        let (cause, cure) = explained(*code);
        let (name, status, title) = (code.as_str(), code.status().as_u16(), code.title());
        page.push_str(&format!(
            "\n## {name}\n\n{status}: {title}.\n\n- **Cause.** {cause}\n- **Cure.** {cure}\n"
        ));
    }
    page
}

/// A text whose parts between backticks are code.
fn with_code(text: &str) -> Markup {
    html! {
        @for (n, part) in text.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// The page as it is served.
pub fn page() -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Problems" }
            }
            body {
                h1 { "Problems" }
                p {
                    "Every refusal is " code { "application/problem+json" }
                    " (RFC 9457); its type leads to its code here."
                }
                @for code in Code::VARIANTS {
                    @let (cause, cure) = explained(*code);
                    section id=(code.as_str()) {
                        h2 { code { (code.as_str()) } }
                        p { (code.status().as_u16()) ": " (code.title()) "." }
                        dl {
                            dt { "Cause" }
                            dd { (with_code(cause)) }
                            dt { "Cure" }
                            dd { (with_code(cure)) }
                        }
                    }
                }
            }
        }
    }
    .into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_the_tables_own() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/problems.md");
        let made = markdown();
        if std::env::var_os("PUNCHTRAIL_UPDATE").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == made, "run this test with PUNCHTRAIL_UPDATE=1");
    }
}
