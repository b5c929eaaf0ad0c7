//! A message as another program sees it: `{"v":1,"punch":"…"}`.
//!
//! The queue in Postgres holds rows. In SQS everything may turn up, put there by hand or by another
//! program: what isn't exactly this is none of ours.

use punchtrail_protocol::PunchId;
use serde::{Deserialize, Serialize};

/// The only version there is.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    v: u32,
    punch: PunchId,
}

/// The message that names this punch.
pub(super) fn written(punch: PunchId) -> String {
    format!(r#"{{"v":{VERSION},"punch":"{punch}"}}"#)
}

/// The punch that this message names.
///
/// # Errors
/// Why it isn't one of ours, in words of which none is the message's.
pub(super) fn read(body: &str) -> Result<PunchId, &'static str> {
    if serde_json::from_str::<serde::de::IgnoredAny>(body).is_err() {
        return Err("not a check's message: it isn't JSON");
    }
    match serde_json::from_str::<Message>(body) {
        Ok(Message { v: VERSION, punch }) => Ok(punch),
        Ok(_) => Err("not a check's message of version 1"),
        Err(_) => Err("not a check's message: it has another shape"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn what_is_written_is_read() {
        let punch = PunchId(Uuid::now_v7());
        assert_eq!(read(&written(punch)), Ok(punch));
        let example = r#"{ "punch": "0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e", "v": 1 }"#;
        assert_eq!(read(example), Ok("0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e".parse().unwrap()));
    }

    #[test]
    fn what_is_not_exactly_ours_is_not_ours() {
        let punch = PunchId(Uuid::now_v7());
        for (body, why) in [
            (String::new(), "isn't JSON"),
            ("hello".into(), "isn't JSON"),
            (format!("{}!", written(punch)), "isn't JSON"),
            ("[".repeat(100_000), "isn't JSON"),
            ("null".into(), "another shape"),
            (format!(r#"{{"punch":"{punch}"}}"#), "another shape"),
            (r#"{"v":1,"punch":"the first"}"#.into(), "another shape"),
            (format!(r#"{{"v":1,"punch":"{punch}","site":"Mill"}}"#), "another shape"),
            (format!(r#"{{"v":-1,"punch":"{punch}"}}"#), "another shape"),
            (format!(r#"{{"v":2,"punch":"{punch}"}}"#), "version 1"),
        ] {
            let read = read(&body).unwrap_err();
            assert!(read.contains(why), "{read}: {}", &body[..body.len().min(80)]);
        }
    }
}
