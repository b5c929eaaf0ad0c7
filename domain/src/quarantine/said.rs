//! What an item says of whose punch it is and of when, as far as that can be read. An item is here
//! because it keeps not every rule, so each field is read for itself, in any spelling that has one
//! meaning: a punch of an unknown kind still says who and when.

use jiff::Timestamp;
use punchtrail_protocol::{EmployeeId, Time};
use serde_json::Value;

/// Whose punch an item says to be, and of when; what can't be read is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said {
    pub employee: Option<EmployeeId>,
    pub captured_at: Option<Time>,
}

impl Said {
    /// Reads what can be read; never fails.
    pub fn of(bytes: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let employee = text("employee").and_then(|text| text.trim().parse().ok());
        let time = text("captured_at").and_then(|text| text.trim().parse::<Timestamp>().ok());
        let captured_at = time.map(Time::from);
        Self { employee: employee.map(EmployeeId), captured_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: &str = "5f0c7a52-0000-4000-8000-000000000004";

    fn said(json: &str) -> (Option<String>, Option<String>) {
        let said = Said::of(json.as_bytes());
        (said.employee.map(|id| id.to_string()), said.captured_at.map(|at| at.to_string()))
    }

    #[test]
    fn each_field_is_read_for_itself() {
        let upper = WHO.to_uppercase();
        let at = "2026-11-21T08:59:03.000Z";
        let told = [
            format!(r#"{{"kind":"lunch","employee":"{WHO}","captured_at":"{at}"}}"#),
            format!(r#"{{"employee":"{upper}","captured_at":"2026-11-21T09:59:03+01:00"}}"#),
            format!(r#"{{"v":7,"captured_at":" {at}","employee":"{WHO} "}}"#),
        ];
        for json in &told {
            assert_eq!(said(json), (Some(WHO.to_owned()), Some(at.to_owned())), "{json}");
        }
        assert_eq!(said(&format!(r#"{{"employee":"{WHO}"}}"#)), (Some(WHO.to_owned()), None));
        assert_eq!(said(&format!(r#"{{"captured_at":"{at}"}}"#)), (None, Some(at.to_owned())));
        let nothing = ["", "[]", "{", r#"{"employee":7,"captured_at":"yesterday"}"#, "\u{feff}{}"];
        for json in nothing {
            assert_eq!(said(json), (None, None), "{json}");
        }
    }
}
