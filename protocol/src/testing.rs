//! Captures for tests, here and in other crates. Never in a build that is installed.

/// A capture's bytes: a worker who was on the roster starts work, offline, first of its device.
pub const EXAMPLE: &str = concat!(
    r#"{"v":1,"punch":"0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e","org":"5f0c7a52-0000-4000-8000-000000000001","#,
    r#""site":"5f0c7a52-0000-4000-8000-000000000002","device":"5f0c7a52-0000-4000-8000-000000000003","#,
    r#""employee":"5f0c7a52-0000-4000-8000-000000000004","badge":null,"kind":"in","#,
    r#""captured_at":"2026-11-21T08:59:03.120Z","utc_offset_s":3600,"tz":"Europe/Berlin","seq":1,"#,
    r#""prev":"0000000000000000000000000000000000000000000000000000000000000000","#,
    r#""boot":"5f0c7a52-0000-4000-8000-000000000005","uptime_ms":61000,"identified_by":"badge","#,
    r#""photo":null,"offline":true,"app":"kiosk/1.0"}"#
);
