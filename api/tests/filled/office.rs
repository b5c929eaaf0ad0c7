//! What people rule on, and the sites and devices that they look after.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{DAY_MS, EACH, Filled, HOUR_MS, id, in_ms};

impl Filled {
    pub(super) async fn office(&mut self) {
        self.house.settled().await;
        for n in 0..EACH {
            self.sites(n);
            self.devices(n).await;
            self.rulings(n).await;
            self.quarantine(n).await;
            self.disputes(n).await;
            self.keys(n).await;
        }
    }

    fn sites(&mut self, n: usize) {
        let tz = "Europe/Berlin";
        self.give("POST /v1/sites", json!({"body": {"name": format!("Shop {n}"), "tz": tz}}));
        let path = json!({"site": self.changed});
        let mut give = |what: &str, body: Value| {
            self.give(what, json!({"path": path, "body": body}));
        };
        give("PUT /v1/sites/{site}/policy", json!({"heartbeat_s": 60 + n}));
        let zone = json!({"tz": if n.is_multiple_of(2) { "Europe/Paris" } else { tz }});
        give("PUT /v1/sites/{site}/zone", zone.clone());
        give("POST /v1/sites/{site}/zone/preview", zone);
        give("POST /v1/sites/{site}/pairing-codes", Value::Null);
    }

    async fn devices(&mut self, n: usize) {
        let site = self.site.parse().unwrap();
        let kept = self.house.device(site).await.id.to_string();
        if n == 0 {
            self.ids("device", [kept.clone()]);
        }
        let body = json!({"site": self.elsewhere});
        let moved = "POST /v1/devices/{device}/site";
        let path = json!({"device": kept});
        self.ids(&format!("{moved} device"), [kept]);
        self.give(moved, json!({"path": path, "body": body}));
        self.give("POST /v1/devices/{device}/pins/renewal", json!({"path": path}));
        let revoked = self.house.device(site).await.id.to_string();
        let revoke = "POST /v1/devices/{device}/revoke";
        self.ids(&format!("{revoke} device"), [revoked.clone()]);
        self.give(revoke, json!({"path": {"device": revoked}}));
    }

    async fn rulings(&mut self, n: usize) {
        let who = self.given.ids["employee"][n + 1].clone();
        let named = |name: &str| self.given.ids[name][n].clone();
        let (start, end, stray) = (named("start"), named("end"), named("stray"));
        let (first, second, third) =
            (named("double"), named("second double"), named("third double"));
        let mut give = |what: &str, punch: &str, body: Value| {
            let path = json!({"punch": punch});
            for operation in [format!("{what}/preview"), what.to_owned()] {
                self.give(&operation, json!({"path": path, "body": body}));
            }
        };
        let accept = json!({"decision": "accept", "reason": "confirmed", "note": "seen"});
        give("POST /v1/punches/{punch}/decision", &first, accept);
        give("POST /v1/punches/{punch}/shift", &start, json!({"out": end}));
        let person = json!({"employee": who, "reason": "recognised"});
        self.give(
            "PUT /v1/punches/{punch}/person",
            json!({"path": {"punch": stray}, "body": person}),
        );
        let preview = "POST /v1/punches/{punch}/person/preview";
        self.give(preview, json!({"path": {"punch": stray}, "body": person}));
        self.give("GET /v1/reviews/{punch}", json!({"path": {"punch": second}}));
        self.parted(n, &who).await;
        self.bulk(&third).await;
        self.entered(n, &who);
        self.noted(&end, n).await;
        let body = json!({"badge": self.given.ids["stray badge"][n], "employee": who});
        self.give("POST /v1/unknown-badges/assign", json!({"body": body}));
        self.give("POST /v1/unknown-badges/assign/preview", json!({"body": body}));
    }

    /// A shift of two punches that were entered and joined.
    async fn parted(&mut self, n: usize, who: &str) {
        let day = i64::try_from(n).unwrap() + 3;
        let mut punches = Vec::new();
        for (kind, hour) in [("in", 0), ("out", 4)] {
            let body = json!({
                "punch": Uuid::now_v7(), "employee": who, "site": self.site, "kind": kind,
                "at": in_ms(-day * DAY_MS + hour * HOUR_MS), "reason": "forgotten",
            });
            self.write("/v1/punches", &body).await;
            punches.push(body["punch"].as_str().unwrap().to_owned());
        }
        let path = format!("/v1/punches/{}/shift", punches[0]);
        self.write(&path, &json!({"out": punches[1]})).await;
        let path = json!({"punch": punches[0]});
        self.give("DELETE /v1/punches/{punch}/shift", json!({"path": path}));
    }

    async fn bulk(&mut self, double: &str) {
        let shown = self.house.read(&format!("/v1/reviews/{double}")).await;
        let sequence = &shown.body["sequence"];
        assert!(sequence.is_u64(), "{}", shown.text);
        let item = json!({"punch": double, "expected_sequence": sequence});
        let body = json!({"referred_for": "near_duplicate", "items": [item]});
        self.give("POST /v1/reviews/accept", json!({"body": body}));
    }

    fn entered(&mut self, n: usize, who: &str) {
        let at = in_ms(-12 * DAY_MS + i64::try_from(n).unwrap() * HOUR_MS);
        let body = json!({
            "punch": Uuid::now_v7(), "employee": who, "site": self.site, "kind": "in", "at": at,
            "reason": "forgotten", "note": "no card",
        });
        self.give("POST /v1/punches/preview", json!({"body": body}));
        self.give("POST /v1/punches", json!({"body": body}));
    }

    /// Rules with words, and finds what they are called.
    async fn noted(&mut self, punch: &str, n: usize) {
        for (kept, decision) in [(true, "reject"), (false, "accept")] {
            let note = format!("She showed me ticket {n}, so {decision}");
            let body = json!({"decision": decision, "reason": "other", "note": note});
            self.write(&format!("/v1/punches/{punch}/decision"), &body).await;
            let told = self.house.read(&format!("/v1/punches/{punch}/explanation")).await;
            let steps = told.body["steps"].as_array().unwrap();
            let last = steps.iter().rev().find_map(|step| step["note"].as_str());
            let note = last.unwrap_or_else(|| panic!("{}", told.text)).to_owned();
            if kept {
                self.ids("note", [note.clone()]);
                self.give("GET /v1/notes/{note}", json!({"path": {"note": note}}));
            } else {
                self.ids("DELETE /v1/notes/{note} note", [note.clone()]);
                self.give("DELETE /v1/notes/{note}", json!({"path": {"note": note}}));
            }
        }
    }

    async fn quarantine(&mut self, n: usize) {
        let kept = self.house.read("/v1/quarantine").await;
        let items = kept.body["data"].as_array().unwrap();
        let item = |index: usize| items[index]["item"].as_str().unwrap().to_owned();
        let (admitted, dismissed) = (item(2 * n), item(2 * n + 1));
        self.ids("item", [admitted.clone(), dismissed.clone()]);
        let body = json!({
            "employee": self.given.ids["employee"][0], "site": self.site, "kind": "in",
            "captured_at": in_ms(-HOUR_MS), "note": "It was Ada",
        });
        let admit = "POST /v1/quarantine/{item}/admit";
        self.give(admit, json!({"path": {"item": admitted}, "body": body}));
        let dismiss = "POST /v1/quarantine/{item}/dismiss";
        let body = json!({"note": "noise"});
        self.give(dismiss, json!({"path": {"item": dismissed}, "body": body}));
    }

    async fn disputes(&mut self, n: usize) {
        let punch = self.given.ids["start"][n].clone();
        let who = self.given.ids["employee"][n + 1].clone();
        let about = |site: &str, day: i64| {
            let day = in_ms(-day * DAY_MS).to_string();
            json!({
                "dispute": Uuid::now_v7(), "site": site, "employee": who, "day": day[..10],
                "cause": "missing_punch", "text": "I was there",
            })
        };
        let site = self.site.clone();
        self.give("POST /v1/disputes", json!({"body": about(&site, 20)}));
        for (day, what) in [(21, "answers"), (22, "resolution"), (23, "reopening")] {
            let opened = self.write("/v1/disputes", &about(&site, day)).await;
            let dispute = id(&opened, "dispute");
            let path = format!("/v1/disputes/{dispute}");
            if what == "reopening" {
                let settled = json!({"how": "dismiss", "note": "You were not"});
                self.write(&format!("{path}/resolution"), &settled).await;
            }
            let body = match what {
                "resolution" => json!({"how": "dismiss", "note": "You were not"}),
                _ => json!({"note": "Were you?"}),
            };
            self.ids("dispute", [dispute.clone()]);
            let operation = format!("POST /v1/disputes/{{dispute}}/{what}");
            self.give(&operation, json!({"path": {"dispute": dispute}, "body": body}));
        }
        let path = json!({"punch": punch});
        self.give("GET /v1/punches/{punch}/explanation", json!({"path": path}));
    }

    async fn keys(&mut self, n: usize) {
        let body = json!({"name": format!("Key {n}"), "scopes": ["sites:read"]});
        let key = id(&self.write("/v1/keys", &body).await, "key");
        self.give("POST /v1/keys", json!({"body": body}));
        self.ids("key", [key.clone()]);
        self.give("DELETE /v1/keys/{key}", json!({"path": {"key": key}}));
    }
}
