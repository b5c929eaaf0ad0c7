//! `Idempotency-Key`, as the draft draft-ietf-httpapi-idempotency-key-header-07 has it, a string of
//! RFC 9651 in quotes, or bare, as many clients send it.

use axum::http::{HeaderMap, HeaderName};

use crate::problem::Refusal;

/// The header's name.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest key, in characters.
pub const KEY_CHARS_MAX: usize = 255;

/// The key of a request, the same quoted and bare; none if it has none.
///
/// # Errors
/// When it isn't 1 to 255 characters of ASCII, or is there more than once.
pub fn of(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut named = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = named.next() else { return Ok(None) };
    if named.next().is_some() {
        return Err(wrong("`Idempotency-Key` is there more than once. Send one."));
    }
    let text = value.to_str().ok().map(str::trim);
    let key = text.and_then(|text| match text.strip_prefix('"') {
        Some(rest) => unquoted(rest),
        None => Some(text.to_owned()),
    });
    let fits = |key: &String| (1..=KEY_CHARS_MAX).contains(&key.chars().count());
    key.filter(fits).map(Some).ok_or_else(|| {
        wrong(
            "`Idempotency-Key` has 1 to 255 characters of ASCII, bare or in double quotes. Nothing \
             was done; send it with another key.",
        )
    })
}

fn wrong(detail: &'static str) -> Refusal {
    Refusal::field("Idempotency-Key", "invalid_value", detail)
}

/// What stands before the closing quote, which has to be the end (RFC 9651, 4.2.5).
fn unquoted(rest: &str) -> Option<String> {
    let (mut key, mut letters) = (String::new(), rest.chars());
    loop {
        match letters.next()? {
            '"' => return letters.next().is_none().then_some(key),
            '\\' => key.push(letters.next().filter(|letter| matches!(letter, '"' | '\\'))?),
            letter => key.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, value.parse().unwrap());
        of(&headers).ok().flatten()
    }

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        for (sent, key) in [
            ("8e03978e", Some("8e03978e")),
            ("\"8e03978e\"", Some("8e03978e")),
            ("  \"a b\" ", Some("a b")),
            (r#""a\"b\\""#, Some(r#"a"b\"#)),
            ("", None),
            ("\"\"", None),
            ("\"open", None),
            ("\"a\"b", None),
            ("\"a\";x=1", None),
            (r#""\n""#, None),
        ] {
            assert_eq!(read(sent).as_deref(), key, "{sent}");
        }
        assert_eq!(read(&"k".repeat(255)).map(|key| key.len()), Some(255));
        assert_eq!(read(&format!("\"{}\"", "k".repeat(255))).map(|key| key.len()), Some(255));
        assert_eq!(read(&"k".repeat(256)), None);
        let mut twice = HeaderMap::new();
        twice.append(IDEMPOTENCY_KEY, "a".parse().unwrap());
        twice.append(IDEMPOTENCY_KEY, "a".parse().unwrap());
        assert!(of(&twice).is_err());
        assert_eq!(of(&HeaderMap::new()).unwrap(), None);
    }
}
