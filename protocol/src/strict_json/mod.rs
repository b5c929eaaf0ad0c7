//! JSON as the wire takes it (RFC 8259, I-JSON in spirit): no duplicate keys, no NUL, no lone
//! surrogates, no trailing bytes, at most [`DEPTH_MAX`] deep. Two parsers that disagree on such a
//! text would let one party see another punch than the other signed, so none of it is let in. For
//! the same reason types are read from it in the one shape that is written ([`Exact`]).

mod exact;

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};

pub use exact::Exact;

/// How deep arrays and objects may nest.
pub const DEPTH_MAX: usize = 32;

/// `serde_json` reads an object with this key as the text that it holds, not as an object.
const OWN_KEY: &str = "$serde_json::private::RawValue";

/// Why a text is not JSON that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedJson(String);

/// Checks that `bytes` are one strict JSON text.
///
/// # Errors
/// With what is wrong, and where, as far as the parser can tell.
pub fn check(bytes: &[u8]) -> Result<(), MalformedJson> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Strict { depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| MalformedJson(error.to_string()))
}

/// Parses `bytes` as a `T` after [`check`], by [`Exact`].
///
/// # Errors
/// `Err(Ok(_))` when the JSON itself is malformed, `Err(Err(_))` when it is well formed but no `T`.
pub fn parse<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
) -> Result<T, Result<MalformedJson, serde_json::Error>> {
    check(bytes).map_err(Ok)?;
    // What follows the text was looked for by the check.
    T::deserialize(Exact(&mut serde_json::Deserializer::from_slice(bytes))).map_err(Err)
}

/// For a field that must be written even when it has no value: `null` is one, absence is an error.
pub(crate) fn null_or<'de, D: de::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// For a field that is left out when it has no value (`#[serde(default)]`): `null` is an error.
pub(crate) fn no_null<'de, D: de::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

fn without_nul<E: de::Error>(text: &str) -> Result<(), E> {
    if text.as_bytes().contains(&0) {
        return Err(E::custom("a NUL character in a string"));
    }
    Ok(())
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        without_nul(text)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inside = self.deeper()?;
        while items.next_element_seed(inside)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inside = self.deeper()?;
        let mut seen = Keys::default();
        while let Some(Key(key)) = entries.next_key::<Key<'de>>()? {
            without_nul(&key)?;
            if key == OWN_KEY {
                return Err(de::Error::custom("a key that the server's parser keeps for itself"));
            }
            entries.next_value_seed(inside)?;
            if let Some(key) = seen.replace(key) {
                return Err(de::Error::custom(format_args!(
                    "duplicate key `{}`",
                    key.escape_debug()
                )));
            }
        }
        Ok(())
    }
}

/// A key, borrowed from the text unless it is written with escapes. (`Cow`'s own reading always
/// copies.)
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// The keys of one object so far. A few are compared one by one, which costs less than hashing
/// them; many are hashed, so that no object makes the check slow.
#[derive(Default)]
struct Keys<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

/// How many keys are compared one by one; a capture has 19.
const FEW_KEYS_MAX: usize = 24;

impl<'de> Keys<'de> {
    /// Adds a key; gives back the one that was there already.
    fn replace(&mut self, key: Cow<'de, str>) -> Option<Cow<'de, str>> {
        if self.few.contains(&key) {
            return Some(key);
        }
        if self.few.len() < FEW_KEYS_MAX {
            if self.few.capacity() == 0 {
                self.few.reserve_exact(FEW_KEYS_MAX);
            }
            self.few.push(key);
            return None;
        }
        self.many.replace(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_again_among_few_and_among_many() {
        for count in [1, 2, FEW_KEYS_MAX, FEW_KEYS_MAX + 1, 3 * FEW_KEYS_MAX] {
            let members: Vec<String> = (0..count).map(|n| format!(r#""k{n}":{n}"#)).collect();
            let object = |members: &[String]| format!("{{{}}}", members.join(","));
            assert_eq!(check(object(&members).as_bytes()), Ok(()), "{count}");
            for again in [0, count - 1] {
                let twice = [members.clone(), vec![members[again].clone()]].concat();
                assert!(check(object(&twice).as_bytes()).is_err(), "{again} of {count}");
            }
        }
    }

    #[test]
    fn plain_json_passes() {
        assert_eq!(check(br#" {"a":[1,-2.5,true,null,{"b":"\ud83d\ude00"}],"c":"x"} "#), Ok(()));
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let deep = "[".repeat(DEPTH_MAX + 1) + &"]".repeat(DEPTH_MAX + 1);
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1,"\u0062":2}}"#,
            r#"{"a":"\u0000"}"#,
            r#"{"\u0000":1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1} x"#,
            r#"{"a":1}{"#,
            r#"{"a":NaN}"#,
            r#"{"$serde_json::private::RawValue":"{}"}"#,
            deep.as_str(),
            "",
        ] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
        assert!(check(b"\"\xff\"").is_err());
        assert_eq!(check(("[".repeat(DEPTH_MAX) + &"]".repeat(DEPTH_MAX)).as_bytes()), Ok(()));
    }
}
