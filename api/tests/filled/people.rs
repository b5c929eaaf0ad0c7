//! People: what is known of them, and what may be done to each once.

use punchtrail_protocol::Digest;
use serde_json::json;

use super::{DAY_MS, EACH, Filled, Value, in_ms, picture};

const OF: &str = "/v1/employees/{employee}";

impl Filled {
    pub(super) async fn people(&mut self) {
        let ada = self.person("Ada Lovelace").await;
        self.ids("employee", [ada.clone()]);
        self.put(&format!("/v1/employees/{ada}/pin"), &json!({"pin": "4711"})).await;
        self.ids("day", [in_ms(-DAY_MS).to_string()[..10].to_owned()]);
        self.ids("external_id", ["HR-1".to_owned()]);
        for n in 0..EACH {
            let who = self.person(&format!("Grace {n}")).await;
            self.ids("employee", [who.clone()]);
            self.each(n, &who).await;
            self.faces(n).await;
            self.badges(n).await;
            self.gone(n).await;
        }
        for n in 0..EACH {
            let csv = format!("badge,name,pin,site\nC{n},Clara {n},,{}\n", self.site);
            self.give("POST /v1/imports/employees", json!({"body": csv}));
        }
    }

    /// What may be done to somebody again and again.
    async fn each(&mut self, n: usize, who: &str) {
        let path = json!({"employee": who});
        let site = self.site.clone();
        let mut give = |what: &str, body: Value| {
            self.give(&what.replace("OF", OF), json!({"path": path, "body": body}));
        };
        give("PUT OF/name", json!({"name": format!("Grace Hopper {n}")}));
        give("PUT OF/pin", json!({"pin": "4712"}));
        give("POST OF/badges", json!({"badge": format!("G{n}")}));
        give("PUT OF/face/head-covering", json!({"expected": true}));
        give("POST OF/legal-hold", json!({"note": "docket 4711/26"}));
        self.give(
            "POST /v1/employees",
            json!({"body": {"name": format!("Bea {n}"), "site": site}}),
        );
        let path = json!({"employee": who, "site": self.elsewhere});
        let body = json!({"from": in_ms(0)});
        let assigned = "PUT /v1/employees/{employee}/assignments/{site}";
        self.give(assigned, json!({"path": path, "body": body}));
        let path = json!({"external_id": format!("HR-{n}")});
        let body = json!({"name": format!("Emmy {n}"), "site": self.site});
        let external = "PUT /v1/employees/by-external-id/{external_id}";
        self.give(external, json!({"path": path, "body": body}));
        let query = json!({"employee": who});
        self.give("GET /v1/timeline", json!({"query": query}));
        let (from, to) = (in_ms(-2 * DAY_MS).to_string(), in_ms(0).to_string());
        let query = json!({"employee": who, "from": from[..10], "to": to[..10]});
        self.give("GET /v1/timecards", json!({"query": query}));
    }

    async fn faces(&mut self, n: usize) {
        let who = self.person(&format!("Faye {n}")).await;
        let consent = json!({"notice": "2026-01", "language": "de"});
        let agree = "POST /v1/employees/{employee}/face/consent";
        self.give(agree, json!({"path": {"employee": who}, "body": consent}));
        for what in ["DELETE OF/face/consent", "POST OF/face/erasure"] {
            let who = self.person(&format!("Fay {n}")).await;
            self.write(&format!("/v1/employees/{who}/face/consent"), &consent).await;
            self.give(&what.replace("OF", OF), json!({"path": {"employee": who}}));
        }
        let who = self.person(&format!("Freya {n}")).await;
        self.write(&format!("/v1/employees/{who}/face/consent"), &consent).await;
        let photo = picture(n);
        let sha256 = Digest::of(&photo).to_string();
        let path = format!("/v1/employees/{who}/face/references/{sha256}");
        let key = self.house.key.clone();
        let put = "PUT /v1/employees/{employee}/face/references/{sha256}";
        self.send_picture(put, &path, &key, photo).await;
        let path = json!({"employee": who, "sha256": sha256});
        let remove = "DELETE /v1/employees/{employee}/face/references/{sha256}";
        self.give(remove, json!({"path": path}));
        let path = json!({"employee": who});
        self.give("POST /v1/employees/{employee}/face/codes", json!({"path": path}));
    }

    async fn badges(&mut self, n: usize) {
        let who = self.person(&format!("Barbara {n}")).await;
        let badges = format!("/v1/employees/{who}/badges");
        let from = in_ms(-DAY_MS);
        self.write(&badges, &json!({"badge": format!("B{n}"), "from": from})).await;
        let held = self.house.read(&badges).await;
        let holding = held.body["data"][0]["holding"].as_str().unwrap().to_owned();
        self.ids("holding", [holding.clone()]);
        let path = json!({"employee": who, "holding": holding});
        let end = "POST /v1/employees/{employee}/badges/{holding}/end";
        self.give(end, json!({"path": path, "body": {"because": "lost"}}));
        self.put(&format!("/v1/employees/{who}/pin"), &json!({"pin": "4713"})).await;
        self.give("DELETE /v1/employees/{employee}/pin", json!({"path": {"employee": who}}));
    }

    /// Who leaves, is back, is held or erased.
    async fn gone(&mut self, n: usize) {
        let give = |filled: &mut Self, what: &str, who: &str, body: Value| {
            let operation = what.replace("OF", OF);
            filled.ids(&format!("{operation} employee"), [who.to_owned()]);
            filled.give(&operation, json!({"path": {"employee": who}, "body": body}));
        };
        let who = self.person(&format!("Lise {n}")).await;
        give(self, "POST OF/departure", &who, json!({}));
        for (what, at) in [("DELETE OF/departure", DAY_MS), ("POST OF/return", -DAY_MS)] {
            let who = self.person(&format!("Emilie {n}")).await;
            let path = format!("/v1/employees/{who}/departure");
            self.write(&path, &json!({"at": in_ms(at)})).await;
            let body = if what.starts_with("POST") { json!({}) } else { Value::Null };
            give(self, what, &who, body);
        }
        let who = self.person(&format!("Hedy {n}")).await;
        self.write(&format!("/v1/employees/{who}/legal-hold"), &json!({"note": "a suit"})).await;
        give(self, "DELETE OF/legal-hold", &who, Value::Null);
        let who = self.person(&format!("Ida {n}")).await;
        give(self, "POST OF/erasure", &who, Value::Null);
    }
}
