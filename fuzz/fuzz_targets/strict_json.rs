//! What strict JSON takes, any reader of JSON reads alike: `serde_json`'s value of it has every key
//! that the text has, so that no key was there twice, and is read again from what is written of it.
#![no_main]

use std::fmt;

use libfuzzer_sys::fuzz_target;
use punchtrail_protocol::strict_json::{self, DEPTH_MAX};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// How many keys a text has, and how deep it is.
#[derive(Clone, Copy, Default)]
struct Counted {
    keys: usize,
    depth: usize,
}

impl Counted {
    fn within(self, inner: Self) -> Self {
        Self { keys: self.keys + inner.keys, depth: self.depth.max(inner.depth + 1) }
    }

    fn of(value: &Value) -> Self {
        match value {
            Value::Array(items) => items.iter().map(Self::of).fold(EMPTY, Self::within),
            Value::Object(object) => {
                let keys = Self { keys: object.len(), ..EMPTY };
                object.values().map(Self::of).fold(keys, Self::within)
            }
            _ => Self::default(),
        }
    }
}

const EMPTY: Counted = Counted { keys: 0, depth: 1 };

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Counted;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Counted, E> {
                Ok(Counted::default())
            }
            fn visit_i64<E>(self, _: i64) -> Result<Counted, E> {
                Ok(Counted::default())
            }
            fn visit_u64<E>(self, _: u64) -> Result<Counted, E> {
                Ok(Counted::default())
            }
            fn visit_f64<E>(self, _: f64) -> Result<Counted, E> {
                Ok(Counted::default())
            }
            fn visit_str<E>(self, _: &str) -> Result<Counted, E> {
                Ok(Counted::default())
            }
            fn visit_unit<E>(self) -> Result<Counted, E> {
                Ok(Counted::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Counted, A::Error> {
                let mut counted = EMPTY;
                while let Some(inner) = items.next_element()? {
                    counted = counted.within(inner);
                }
                Ok(counted)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Counted, A::Error> {
                let mut counted = EMPTY;
                while let Some((_, inner)) = entries.next_entry::<IgnoredAny, Counted>()? {
                    counted = Counted { keys: counted.keys + 1, ..counted }.within(inner);
                }
                Ok(counted)
            }
        }
        deserializer.deserialize_any(Counting)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let taken = strict_json::check(bytes);
    let read = serde_json::from_slice::<Value>(bytes);
    if taken.is_err() {
        assert!(strict_json::parse::<Value>(bytes).is_err());
        return;
    }
    let value = read.expect("strict JSON is JSON");
    let counted: Counted = serde_json::from_slice(bytes).expect("JSON can be counted");
    assert_eq!(counted.keys, Counted::of(&value).keys, "a key was there twice");
    assert!(counted.depth <= DEPTH_MAX);
    assert!(!bytes.contains(&0));
    assert_eq!(strict_json::parse::<Value>(bytes).ok().as_ref(), Some(&value));
    let written = serde_json::to_vec(&value).expect("a value is JSON");
    assert_eq!(strict_json::check(&written), Ok(()));
});
