//! What devices bring and ask for.

use ed25519_dalek::SigningKey;
use hyper::StatusCode;
use punchtrail_protocol::{
    Digest, EmployeeId, PunchId, Time,
    attachment::Attachment,
    capture::{Capture, PunchKind},
    signing::{ATTACHMENT_TYPE, RETURN_TYPE, sign, to_base64url},
};
use serde_json::json;
use uuid::Uuid;

use super::{DAY_MS, EACH, Filled, HOUR_MS, id, in_ms, picture};
use crate::common::enrolment_body;

impl Filled {
    pub(super) async fn sync(&mut self) {
        self.house.beat(&self.device).await;
        for n in 0..EACH {
            self.give("POST /v1/devices/self/heartbeat", json!({"body": self.device.heartbeat()}));
            self.enrolments(n).await;
            self.punches(n).await;
            self.commands().await;
        }
        self.batches();
        self.references().await;
        self.give(
            "GET /v1/sites/{site}/employees",
            json!({
                "path": {"site": self.site}, "query": {"q": "Ada"},
            }),
        );
        for operation in ["GET /v1/sites/{site}/manifest", "GET /v1/sites/{site}/punches"] {
            self.give(operation, json!({"path": {"site": self.site}}));
        }
        let path = json!({"site": self.site, "employee": self.given.ids["employee"][0]});
        self.give("GET /v1/sites/{site}/employees/{employee}/record", json!({"path": path}));
    }

    async fn enrolments(&mut self, n: usize) {
        let site = self.site.parse().unwrap();
        let code = self.house.code(site).await;
        let key = SigningKey::from_bytes(&rand::random());
        let body = enrolment_body(&key, &code);
        self.give("POST /v1/devices/enroll", json!({"body": body}));
        if n > 0 {
            return;
        }
        let code = self.house.code(site).await;
        let enrolled =
            self.house.post("/v1/devices/enroll", None, &enrolment_body(&key, &code)).await;
        let certificate = id(&enrolled, "certificate");
        let proof = sign(&key, RETURN_TYPE, certificate.as_bytes()).to_string();
        let body = json!({"certificate": certificate, "proof": proof});
        self.give("POST /v1/devices/return", json!({"body": body}));
    }

    /// A press that wasn't delivered yet, of nobody's badge unless it is somebody's.
    fn press(&mut self, employee: Option<EmployeeId>, kind: PunchKind, at: Time) -> Capture {
        self.device.chain.capture_with(|capture| {
            (capture.employee, capture.kind) = (employee, kind);
            capture.captured_at = at;
            capture.uptime_ms = 60_000 + capture.seq;
            capture.badge = employee.is_none().then(|| format!("stray {}", capture.seq));
        })
    }

    /// A shift whose end was pressed four times, a press of nobody, and what can't be read.
    async fn punches(&mut self, n: usize) {
        let who: EmployeeId = self.given.ids["employee"][n + 1].parse().unwrap();
        let (begin, end) = (in_ms(-DAY_MS), in_ms(-DAY_MS + 8 * HOUR_MS));
        let mut pressed = vec![self.press(Some(who), PunchKind::In, begin)];
        for again in 0..4 {
            let at = end.plus_millis(again * 10_000);
            pressed.push(self.press(Some(who), PunchKind::Out, at));
        }
        pressed.push(self.press(None, PunchKind::In, begin));
        let mut items: Vec<_> = pressed.iter().map(|one| self.device.item(one)).collect();
        for text in [format!("not a capture {n}"), format!("nor is {n}")] {
            items.push(self.device.signed(text.as_bytes()));
        }
        let delivered = self.house.deliver(&self.device, &items).await;
        assert_eq!(delivered.status, StatusCode::OK, "{}", delivered.text);
        self.ids("punch", pressed.iter().map(|one| one.punch.to_string()));
        let names = ["start", "end", "double", "second double", "third double", "stray"];
        for (name, one) in names.into_iter().zip(&pressed) {
            self.ids(name, [one.punch.to_string()]);
        }
        self.ids("stray badge", pressed.last().and_then(|one| one.badge.clone()));
        let path = json!({"site": self.site});
        let start = pressed[0].punch;
        let disputed = json!({
            "dispute": Uuid::now_v7(), "employee": who, "punch": start, "day": null,
            "cause": "wrong_time", "text": "It was nine",
        });
        let dispute = json!({"path": path, "body": disputed});
        self.give("POST /v1/sites/{site}/disputes", dispute);
        let verdict = json!({"path": {"punch": start}, "query": {"wait_s": 0}});
        self.give("GET /v1/punches/{punch}/verdict", verdict);
        self.attachment(start);
        let photo = picture(n);
        let sha256 = Digest::of(&photo).to_string();
        let token = self.device.token.clone();
        let put = "PUT /v1/photos/{sha256}";
        self.send_picture(put, &format!("/v1/photos/{sha256}"), &token, photo).await;
        self.ids("sha256", [sha256]);
    }

    /// What is still to come.
    fn batches(&mut self) {
        let who: EmployeeId = self.given.ids["employee"][0].parse().unwrap();
        for _ in 0..EACH {
            let next = self.press(Some(who), PunchKind::In, in_ms(-HOUR_MS));
            let punches = [self.device.item(&next)];
            let batch = json!({"path": {"site": self.site}, "body": {"punches": punches}});
            self.give("POST /v1/sites/{site}/punches/batch", batch);
        }
    }

    fn attachment(&mut self, punch: PunchId) {
        let record = Attachment {
            v: 1,
            punch,
            device: self.device.id,
            photo: Digest::of(&picture(0)),
            attempt: 1,
            taken_at: in_ms(0),
            app: "test/1".to_owned(),
        };
        let record = record.to_bytes();
        let signature = sign(&self.device.chain.key, ATTACHMENT_TYPE, &record).to_string();
        let body = json!({"record": to_base64url(&record), "signature": signature});
        let attach = "POST /v1/punches/{punch}/attachments";
        self.give(attach, json!({"path": {"punch": punch}, "body": body}));
    }

    async fn commands(&mut self) {
        let issue = format!("/v1/devices/{}/commands", self.device.id);
        let body = json!({"type": "show_message", "args": {"text": "Good morning"}});
        let [done, cancelled] = [
            id(&self.write(&issue, &body).await, "command"),
            id(&self.write(&issue, &body).await, "command"),
        ];
        self.ids("command", [done.clone()]);
        let finish = "PUT /v1/devices/self/commands/{command}/result";
        self.give(
            finish,
            json!({"path": {"command": done}, "body": {"status": "done", "detail": null}}),
        );
        let path = json!({"device": self.device.id, "command": cancelled});
        self.give("DELETE /v1/devices/{device}/commands/{command}", json!({"path": path}));
        let path = json!({"device": self.device.id});
        let issue = "POST /v1/devices/{device}/commands";
        self.give(issue, json!({"path": path, "body": body}));
    }

    /// By a code that is good for some minutes.
    async fn references(&mut self) {
        let who = self.person("Rosalind").await;
        let path = format!("/v1/employees/{who}/face/codes");
        let code = id(&self.write(&path, &json!({})).await, "code");
        let photos = [Digest::of(&picture(0))];
        let body = json!({
            "code": code, "notice": "2026-01", "language": "en", "photos": photos,
            "given_at": in_ms(0),
        });
        let path = format!("/v1/sites/{}/employees/{who}/references", self.site);
        let taken = self.house.post(&path, Some(&self.device.token), &body).await;
        let take = "POST /v1/sites/{site}/employees/{employee}/references";
        self.called(take, &taken, StatusCode::OK);
    }
}
