//! Figures over real HTTP and from the command line, and how many statements they and a page of
//! reviews cost.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use axum::body::Body;
use common::{Answer, Device, House, request};
use hyper::{Method, StatusCode, header};
use punchtrail_protocol::{EmployeeId, SiteId, Time, capture::PunchKind};
use serde_json::{Value, json};
use uuid::Uuid;

struct Scene {
    house: House,
    site: SiteId,
    employee: EmployeeId,
    device: Device,
}

impl Scene {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let employee = house.employee(site, "B1", "=cmd|'/c calc'!A1").await;
        let device = house.device(site).await;
        Self { house, site, employee, device }
    }

    /// Delivers a punch by nobody known, which is referred.
    async fn referred(&mut self) -> String {
        let capture = self.device.chain.capture_with(|capture| {
            (capture.employee, capture.badge) = (None, Some("unknown".to_owned()));
            capture.kind = PunchKind::In;
            capture.captured_at = Time::from(jiff::Timestamp::now());
            capture.uptime_ms = 60_000 + capture.seq;
        });
        let item = self.device.item(&capture);
        let answer = self.house.deliver(&self.device, &[item]).await;
        assert_eq!(answer.outcomes(), ["applied"]);
        capture.punch.to_string()
    }

    async fn dispute(&self, about: Value, cause: &str) -> String {
        let mut body = json!({
            "dispute": Uuid::now_v7(), "site": self.site, "employee": self.employee, "cause": cause,
        });
        body.as_object_mut().unwrap().extend(about.as_object().unwrap().clone());
        let answer = self.house.write("/v1/disputes", &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        body["dispute"].as_str().unwrap().to_owned()
    }

    async fn write(&self, path: &str, body: &Value) {
        let answer = self.house.write(path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }

    async fn figures(&self, query: &str) -> Value {
        let answer = self.house.read(&format!("/v1/figures{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.body
    }

    /// Two disputes, one of them settled, taken up again and settled; a punch referred and
    /// accepted, one that waits still.
    async fn happen(&mut self) {
        let (first, _) = (self.referred().await, self.referred().await);
        self.house.settled().await;
        let dispute = self.dispute(json!({ "punch": first }), "wrong_time").await;
        self.dispute(json!({ "day": "2026-01-05" }), "missing_punch").await;
        let settle = json!({ "how": "dismiss", "note": "seen" });
        let path = format!("/v1/disputes/{dispute}");
        self.write(&format!("{path}/resolution"), &settle).await;
        self.write(&format!("{path}/reopening"), &json!({ "note": "a list came" })).await;
        self.write(&format!("{path}/resolution"), &settle).await;
        let accept = json!({ "decision": "accept" });
        self.write(&format!("/v1/punches/{first}/decision"), &accept).await;
    }
}

#[tokio::test]
async fn what_happened_is_counted_and_told_as_json_and_as_csv() {
    let mut scene = Scene::new().await;
    scene.happen().await;
    let (site, all) = (scene.site, scene.figures("").await);
    let view = scene.figures(&format!("?site={site}")).await;
    assert_eq!(view["weeks"].as_array().unwrap().len(), 12);
    assert_eq!(view["weeks"], all["weeks"]);
    assert_eq!((&view["site"], &all["site"]), (&json!(site), &Value::Null));
    assert_eq!(all["sites"][0]["site"], json!(site));
    assert_eq!(view["sites"], json!([]));
    let total = &view["total"];
    assert_eq!(total["captured"], 2);
    assert_eq!(total["referrals"]["referred"], 2);
    assert_eq!(total["referrals"]["reasons"], json!({ "unknown_badge": 2 }));
    assert_eq!(total["referrals"]["ruled"], json!({ "accepted": 1 }));
    let disputes = &total["disputes"];
    let counts = ["opened", "resolved", "reopened"].map(|count| disputes[count].as_u64().unwrap());
    assert_eq!(counts, [2, 2, 1]);
    assert!(disputes["median_hours"].as_f64().unwrap() < 1.0, "{disputes}");
    let causes = view["causes"].as_array().unwrap();
    let said: Vec<_> = causes.iter().map(|cause| (&cause["cause"], &cause["waiting"])).collect();
    let expected = [("missing_punch", 1), ("wrong_time", 0)].map(|(c, n)| (json!(c), json!(n)));
    assert_eq!(said, expected.iter().map(|(c, n)| (c, n)).collect::<Vec<_>>());
    let (newest, sum) = (view["weeks"].as_array().unwrap().last().unwrap(), total);
    assert_eq!(newest["disputes"], sum["disputes"], "all of it was just now");

    let csv = scene.house.read(&format!("/v1/figures?site={site}&format=csv")).await;
    check_csv(&csv, newest, site);
    let mut accepts = request(Method::GET, "/v1/figures", Some(&scene.house.key), Body::empty());
    accepts.headers_mut().insert(header::ACCEPT, "text/csv".parse().unwrap());
    let by_header = scene.house.ask(accepts).await;
    assert_eq!(by_header.text, csv.text);
    scene.house.close().await;
}

fn check_csv(csv: &Answer, newest: &Value, site: SiteId) {
    assert_eq!(csv.status, StatusCode::OK, "{}", csv.text);
    assert!(csv.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/csv"));
    assert_eq!(csv.headers["x-content-type-options"], "nosniff");
    let mut reader = csv::Reader::from_reader(csv.text.as_bytes());
    let heading: Vec<_> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(heading, ["week", "from", "site", "figure", "code", "detail", "value"]);
    let rows: Vec<Vec<String>> = reader
        .records()
        .map(|record| record.unwrap().iter().map(str::to_owned).collect())
        .collect();
    let value = |figure: &str, code: &str, detail: &str| {
        let of_it = rows.iter().find(|row| row[3..6] == [figure, code, detail]);
        of_it.unwrap_or_else(|| panic!("{figure} {code} {detail}: {rows:?}"))[6].clone()
    };
    assert_eq!(value("captured", "", ""), "2");
    assert_eq!(value("disputes_opened", "missing_punch", ""), "1");
    assert_eq!(value("disputes_resolved", "wrong_time", "dismiss"), "2");
    assert_eq!(value("ruled", "accepted", "unknown_badge"), "1");
    assert!(value("dispute_hours_median", "wrong_time", "").parse::<f64>().unwrap() < 1.0);
    for row in &rows {
        assert_eq!(row[0], newest["week"].as_str().unwrap());
        assert_eq!(row[1], newest["from"].as_str().unwrap());
        assert_eq!(row[2], site.to_string());
        let formula = |cell: &String| cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
        assert!(!row.iter().any(formula), "no cell is a formula: {row:?}");
    }
}

#[tokio::test]
async fn weeks_that_can_not_be_shown_are_refused() {
    let scene = Scene::new().await;
    for (query, refusal) in [
        ("from=2026-01-05&to=2026-01-04", "422 invalid: from invalid_value"),
        ("from=2024-01-01&to=2026-01-01", "422 invalid: from invalid_value"),
        ("from=0000-01-01&to=9999-12-31", "422 invalid: from invalid_value"),
        ("from=2026-W05", "422 invalid: from invalid_value"),
        ("to=tomorrow", "422 invalid: to invalid_value"),
        ("site=Mill", "422 invalid: site invalid_value"),
        ("format=xml", "422 invalid: format invalid_value"),
        ("weeks=3", "422 invalid: weeks unknown_field"),
    ] {
        let answer = scene.house.read(&format!("/v1/figures?{query}")).await;
        assert_eq!(answer.refusal(), refusal, "{query}");
    }
    for (query, weeks) in [
        ("?from=2025-01-01&to=2026-12-20", 103),
        ("?from=0000-01-01&to=0000-01-01", 1),
        ("?from=9999-12-31&to=9999-12-31", 1),
        ("?to=0000-01-01", 12),
    ] {
        let shown = scene.figures(query).await;
        assert_eq!(shown["weeks"].as_array().unwrap().len(), weeks, "{query}");
    }
    let unknown = scene.figures(&format!("?site={}", Uuid::now_v7())).await;
    assert_eq!(unknown["total"]["captured"], 0);
    scene.house.close().await;
}

#[tokio::test]
async fn the_command_line_tells_writes_and_draws_them() {
    let mut scene = Scene::new().await;
    scene.happen().await;
    let site = scene.site.to_string();
    let expected = scene.figures(&format!("?site={site}")).await;
    let dir = tempfile::tempdir().unwrap();
    let (csv, svg) = (dir.path().join("figures.csv"), dir.path().join("figures.svg"));
    let run = async |arguments: &[&str]| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_punchtrail"))
            .args(arguments)
            .env("DATABASE_URL", scene.house.database.url())
            .env_remove("RUST_LOG")
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said, String::from_utf8(output.stderr).unwrap())
    };
    let (exit, said, stderr) = run(&["figures", "--site", &site, "--json"]).await;
    assert_eq!((exit, stderr.as_str()), (Some(0), ""));
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), expected);
    let files = ["--csv", csv.to_str().unwrap(), "--svg", svg.to_str().unwrap()];
    let (exit, said, stderr) = run(&[&["figures", "--site", &site][..], &files].concat()).await;
    assert_eq!(exit, Some(0), "{stderr}");
    assert!(said.contains("missing_punch") && said.contains("median"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("20")).count(), 12, "{said}");
    let served = scene.house.read(&format!("/v1/figures?site={site}&format=csv")).await;
    assert_eq!(std::fs::read_to_string(&csv).unwrap(), served.text);
    let drawn = std::fs::read_to_string(&svg).unwrap();
    for part in ["missing punch (1)", "Hours until", "accepted (1)", "How long after the press"] {
        assert!(drawn.contains(part), "{part}: {drawn}");
    }
    let wrong = ["figures", "--from", "2026-02-01", "--to", "2026-01-01"];
    let (exit, _, stderr) = run(&wrong).await;
    assert_eq!(exit, Some(1));
    assert!(stderr.contains("the last week lies before the first"), "{stderr}");
    scene.house.close().await;
}
