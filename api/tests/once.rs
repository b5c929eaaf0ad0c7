//! A press is one punch, whatever order its bytes come in, under whatever signatures, and whatever
//! people admit from quarantine meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{Device, House, day_of};
use hyper::StatusCode;
use punchtrail_protocol::{Digest, EmployeeId, capture::PunchKind};
use serde_json::{Value, json};

struct Scene {
    house: House,
    device: Device,
    employee: EmployeeId,
    /// An item whose signature is good.
    good: Value,
    /// The same bytes under signatures that are none: two that don't hold, one that can't be read.
    bad: [Value; 3],
}

impl Scene {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let employee = house.employee(site, "B1", "Ada Lovelace").await;
        let mut device = house.device(site).await;
        let good = device.next(employee, PunchKind::In);
        let with =
            |signature: String| json!({ "capture": good["capture"], "signature": signature });
        let bad = [with("A".repeat(86)), with(format!("{}A", "B".repeat(85))), with("!".into())];
        Self { house, device, employee, good, bad }
    }

    fn bytes(&self) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(self.good["capture"].as_str().unwrap()).unwrap()
    }

    async fn send(&self, items: &[&Value]) -> Vec<String> {
        let items: Vec<Value> = items.iter().map(|item| (*item).clone()).collect();
        self.house.deliver(&self.device, &items).await.outcomes()
    }

    /// The ids of what waits in quarantine, oldest first.
    async fn waiting(&self) -> Vec<String> {
        let found = self.house.read("/v1/quarantine?state=waiting&order=oldest").await;
        let rows = found.body["data"].as_array().unwrap();
        rows.iter().map(|row| row["item"].as_str().unwrap().to_owned()).collect()
    }

    async fn admit(&self, item: &str) -> common::Answer {
        let body = json!({
            "employee": self.employee, "site": self.device.site(), "kind": "in",
            "captured_at": "2026-11-21T09:00:00.000Z",
        });
        self.house.write(&format!("/v1/quarantine/{item}/admit"), &body).await
    }

    async fn stands_as(&self, item: &str) -> Value {
        self.house.read(&format!("/v1/quarantine/{item}")).await.body["stands_as"].clone()
    }

    async fn punches(&self) -> Vec<String> {
        let head = self.house.settled().await;
        let path = format!("/v1/punches?employee={}", self.employee);
        let found = self.house.read_after(&path, head).await;
        let rows = found.body["data"].as_array().unwrap();
        rows.iter().map(|row| row["punch"].as_str().unwrap().to_owned()).collect()
    }

    /// One punch, and whatever waits can be dismissed and no more.
    async fn counts_once(self) {
        let punches = self.punches().await;
        assert_eq!(punches.len(), 1);
        for item in self.waiting().await {
            let refused = self.admit(&item).await;
            assert_eq!(refused.refusal(), "409 conflict");
            let detail = refused.body["detail"].as_str().unwrap();
            assert!(detail.contains(&punches[0]), "{detail}");
            let stands_as = self.stands_as(&item).await;
            assert_eq!(stands_as["punch"], punches[0]);
            let position = stands_as["position"].to_string();
            assert!(detail.contains(&format!("position {position}")), "{detail}");
            let path = format!("/v1/quarantine/{item}/dismiss");
            let dismissed = self.house.write(&path, &json!({})).await;
            assert_eq!(dismissed.status, StatusCode::OK, "{}", dismissed.text);
        }
        assert_eq!(self.punches().await, punches);
        self.house.close().await;
    }
}

#[tokio::test]
async fn what_was_applied_is_a_duplicate_under_any_signature() {
    let scene = Scene::new().await;
    assert_eq!(scene.send(&[&scene.good]).await, ["applied"]);
    let [one, two, three] = &scene.bad;
    let first = scene.house.deliver(&scene.device, std::slice::from_ref(one)).await;
    assert_eq!(first.outcomes(), ["duplicate"]);
    let result = &first.body["results"][0];
    assert_eq!((&result["seq"], &result["detail"]), (&json!(1), &Value::Null));
    assert!(result["punch"].is_string());
    let head = scene.house.settled().await;
    let again = scene.send(&[two, three, &scene.good, one]).await;
    assert_eq!(again, ["duplicate"; 4]);
    assert_eq!(scene.house.settled().await, head, "nothing was written");
    scene.counts_once().await;
}

#[tokio::test]
async fn what_came_badly_signed_first_is_applied_and_can_not_be_admitted_then() {
    let scene = Scene::new().await;
    let [one, two, three] = &scene.bad;
    let quarantined = ["quarantined bad_signature", "quarantined bad_encoding"];
    assert_eq!(scene.send(&[one, three]).await, quarantined);
    let waiting = scene.waiting().await;
    assert_eq!(scene.stands_as(&waiting[0]).await, Value::Null);
    assert_eq!(scene.send(&[&scene.good]).await, ["applied"]);
    assert_eq!(scene.send(&[one, two, three, &scene.good]).await, ["duplicate"; 4]);
    scene.counts_once().await;
}

#[tokio::test]
async fn what_was_admitted_is_a_duplicate_when_it_comes_well_signed() {
    let scene = Scene::new().await;
    let [one, two, _] = &scene.bad;
    assert_eq!(scene.send(&[one, two]).await, ["quarantined bad_signature"; 2]);
    let waiting = scene.waiting().await;
    let admitted = scene.admit(&waiting[0]).await;
    assert_eq!(admitted.status, StatusCode::CREATED, "{}", admitted.text);
    let again = scene.house.deliver(&scene.device, std::slice::from_ref(&scene.good)).await;
    assert_eq!(again.outcomes(), ["duplicate"]);
    let first = again.body["results"][0]["position"].as_u64().unwrap();
    assert!(first < admitted.body["position"].as_u64().unwrap(), "of the punch's first event");
    // What waits is the same bytes, so it is the same punch.
    scene.counts_once().await;
}

#[tokio::test]
async fn within_one_batch_the_order_makes_no_second_punch() {
    for good_at in 0..4 {
        let scene = Scene::new().await;
        let mut items: Vec<&Value> = scene.bad.iter().collect();
        items.insert(good_at, &scene.good);
        let outcomes = scene.send(&items).await;
        assert_eq!(outcomes[good_at], "applied");
        assert!(outcomes[..good_at].iter().all(|outcome| outcome.starts_with("quarantined")));
        assert!(outcomes[good_at + 1..].iter().all(|outcome| outcome == "duplicate"));
        assert_eq!(scene.send(&items).await, ["duplicate"; 4]);
        scene.counts_once().await;
    }
}

#[tokio::test]
async fn an_admission_and_the_punch_at_once_make_one() {
    for _ in 0..8 {
        let scene = Scene::new().await;
        assert_eq!(scene.send(&[&scene.bad[0]]).await, ["quarantined bad_signature"]);
        let item = scene.waiting().await.remove(0);
        let good = [&scene.good];
        let (delivered, admitted) = tokio::join!(scene.send(&good), scene.admit(&item));
        match admitted.status {
            StatusCode::CREATED => assert_eq!(delivered, ["duplicate"]),
            _ => assert_eq!(
                (&delivered[..], admitted.refusal().as_str()),
                (&["applied".to_owned()][..], "409 conflict")
            ),
        }
        scene.counts_once().await;
    }
}

/// Somebody else's bytes are neither theirs as a duplicate nor a second punch by admission.
#[tokio::test]
async fn bytes_that_another_device_sent_are_one_punch_with_their_own() {
    for applied_first in [true, false] {
        let scene = Scene::new().await;
        let mut other = scene.house.device(scene.device.site()).await;
        other.chain.next.employee = Some(scene.employee);
        let bytes = scene.bytes();
        let copied = other.signed(&bytes);
        let copy =
            async || scene.house.deliver(&other, std::slice::from_ref(&copied)).await.outcomes();
        if applied_first {
            assert_eq!(scene.send(&[&scene.good]).await, ["applied"]);
            assert_eq!(copy().await, ["quarantined wrong_device"]);
        } else {
            assert_eq!(copy().await, ["quarantined wrong_device"]);
            let item = scene.waiting().await.remove(0);
            assert_eq!(scene.admit(&item).await.status, StatusCode::CREATED);
            assert_eq!(scene.send(&[&scene.good]).await, ["duplicate"]);
        }
        scene.counts_once().await;
    }
}

/// A rotted copy names the punch that it was; one that the device signed is another.
#[tokio::test]
async fn other_bytes_under_the_same_id_are_another_punch_only_if_they_are_signed() {
    let scene = Scene::new().await;
    let bytes = scene.bytes();
    let text = String::from_utf8(bytes).unwrap();
    let rotted = text.replacen(r#""kind":"in""#, r#""kind":"on""#, 1);
    let signed = scene.device.signed(rotted.as_bytes());
    let unsigned = json!({ "capture": signed["capture"], "signature": "A".repeat(86) });
    assert_eq!(
        scene.send(&[&scene.good, &unsigned]).await,
        ["applied", "quarantined bad_signature"]
    );
    let item = scene.waiting().await.remove(0);
    assert_eq!(scene.admit(&item).await.refusal(), "409 conflict");
    assert_eq!(scene.send(&[&signed]).await, ["quarantined bad_capture"]);
    let item = scene.waiting().await.remove(1);
    assert_eq!(scene.stands_as(&item).await, Value::Null);
    assert_eq!(scene.admit(&item).await.status, StatusCode::CREATED);
    assert_eq!(scene.punches().await.len(), 2);
    scene.house.close().await;
}

/// Another punch under a used id: the first stands, and nothing of the others is silent.
#[tokio::test]
async fn what_comes_under_a_used_id_waits_in_quarantine_and_grows_nothing_else() {
    const CONFLICTS: usize = 60;
    let mut scene = Scene::new().await;
    assert_eq!(scene.send(&[&scene.good]).await, ["applied"]);
    let used = scene.punches().await.remove(0);
    let events = async |scene: &Scene| {
        let path = format!("/v1/punches/{used}/events");
        scene.house.read(&path).await.body["data"].as_array().unwrap().len()
    };
    let before = events(&scene).await;
    let conflicts: Vec<Value> = (0..CONFLICTS)
        .map(|n| {
            let mut capture = scene.device.capture(scene.employee, PunchKind::Out);
            capture.punch = used.parse().unwrap();
            // Under the number of the first, and under others.
            capture.seq = if n % 2 == 0 { 1 } else { capture.seq };
            capture.prev = if capture.seq == 1 { Digest::ZERO } else { capture.prev };
            scene.device.item(&capture)
        })
        .collect();
    let all: Vec<&Value> = conflicts.iter().collect();
    assert_eq!(scene.send(&all).await, vec!["conflict"; CONFLICTS]);
    let head = scene.house.settled().await;
    assert_eq!(scene.send(&all).await, vec!["conflict"; CONFLICTS]);
    assert_eq!(scene.house.settled().await, head, "each is kept once");

    // Each can be read, and is counted under the punch's id.
    let path = format!("/v1/quarantine?punch={used}&order=oldest");
    let listed = scene.house.read_after(&path, head).await.body;
    let listed = listed["data"].as_array().unwrap();
    assert_eq!(listed.len(), CONFLICTS);
    for row in listed {
        assert_eq!((&row["code"], &row["state"]), (&json!("conflict"), &json!("waiting")));
        assert_eq!(row["employee"], scene.employee.to_string());
    }
    // The punch's own story didn't grow with them, the device is marked once, the day names them.
    assert_eq!(events(&scene).await, before + 1);
    let explanation = scene.house.read(&format!("/v1/punches/{used}/explanation")).await;
    assert!(explanation.text.contains("waits in quarantine"), "{}", explanation.text);
    let device = scene.house.read(&format!("/v1/devices/{}", scene.device.id)).await.body;
    assert_eq!((&device["conflicts"], &device["forks"]), (&json!(1), &json!(0)), "{device}");
    let day = day_of(listed[0]["captured_at"].as_str().unwrap().parse().unwrap());
    let path = format!("/v1/employees/{}/days/{day}/explanation", scene.employee);
    let told = scene.house.read_after(&path, head).await;
    assert_eq!(told.body["quarantined"].as_array().unwrap().len(), 20, "{}", told.text);
    assert_eq!(told.body["quarantined_more"], true);
    assert!(told.text.contains("another punch under its id"), "{}", told.text);
    assert!(told.text.contains(listed[0]["item"].as_str().unwrap()), "{}", told.text);

    // One is admitted as a punch of its own, and counts once, however often it comes.
    let item = listed[1]["item"].as_str().unwrap();
    let admitted = scene.admit(item).await;
    assert_eq!(admitted.status, StatusCode::CREATED, "{}", admitted.text);
    assert_eq!(scene.send(&all[1..2]).await, ["duplicate"]);
    assert_eq!(scene.send(&all[..1]).await, ["conflict"]);
    assert_eq!(scene.send(&[&scene.good]).await, ["duplicate"]);
    let punches = scene.punches().await;
    assert_eq!(punches.len(), 2, "{punches:?}");
    scene.house.close().await;
}
