//! Values at the ends of what can be written, for every test that a field's range is held to.

/// Numbers, and what might be taken for one, as JSON.
pub const NUMBERS: &[&str] = &[
    "-1e400",
    "-18446744073709551616",
    "-9223372036854775809",
    "-9223372036854775808",
    "-9007199254740993",
    "-9007199254740992",
    "-2147483649",
    "-2147483648",
    "-93600",
    "-93599",
    "-1",
    "-0",
    "0",
    "0.0",
    "1",
    "1.0",
    "1e0",
    "2",
    "255",
    "256",
    "93599",
    "93600",
    "2147483647",
    "2147483648",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "\"1\"",
    "null",
    "true",
    "[1]",
];

/// Times, two of which are none.
pub const TIMES: &[&str] = &[
    "0000-01-01T00:00:00.000Z",
    "0001-01-01T00:00:00.000Z",
    "1582-10-10T12:00:00.000Z",
    "1969-12-31T23:59:59.999Z",
    "2026-11-21T08:59:03.120Z",
    "2038-01-19T03:14:08.000Z",
    "9999-12-30T21:59:59.999Z",
    "9999-12-30T22:00:00.000Z",
    "9999-12-31T23:59:59.999Z",
];

/// A flat JSON object with these of its fields written otherwise, as JSON.
///
/// # Panics
/// When it has no such field.
#[expect(clippy::expect_used, reason = "for tests only")]
pub fn with_fields(object: &str, fields: &[(&str, &str)]) -> String {
    fields.iter().fold(object.to_owned(), |text, (field, value)| {
        let name = format!("\"{field}\":");
        let start = text.find(&name).expect("a field of the object") + name.len();
        let length = text[start..].find([',', '}']).expect("the end of an object");
        format!("{}{value}{}", &text[..start], &text[start + length..])
    })
}
