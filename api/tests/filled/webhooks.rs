//! Whom it is told, and what was delivered.

use serde_json::{Value, json};

use super::{DAY_MS, EACH, Filled, id, in_ms};

impl Filled {
    pub(super) async fn webhooks(&mut self) {
        let url = self.receiver.url();
        self.give("GET /v1/events", json!({"query": {"after": 0, "limit": 10}}));
        for n in 0..EACH {
            let body = json!({"name": format!("Payroll {n}"), "url": url});
            let kept = id(&self.write("/v1/webhooks", &body).await, "webhook");
            let gone = id(&self.write("/v1/webhooks", &body).await, "webhook");
            self.give("POST /v1/webhooks", json!({"body": body}));
            self.give("DELETE /v1/webhooks/{webhook}", json!({"path": {"webhook": gone}}));
            self.ids("DELETE /v1/webhooks/{webhook} webhook", [gone]);
            self.delivered(&kept).await;
            let path = json!({"webhook": kept});
            self.ids("webhook", [kept]);
            let mut give = |what: &str, body: Value| {
                self.give(what, json!({"path": path, "body": body}));
            };
            give("PUT /v1/webhooks/{webhook}", body);
            give("PUT /v1/webhooks/{webhook}/disabled", json!({"disabled": false}));
            give("POST /v1/webhooks/{webhook}/secret", json!({"overlap_h": 1}));
            give("POST /v1/webhooks/{webhook}/test", Value::Null);
            let since = json!({"since": in_ms(-DAY_MS)});
            give("POST /v1/webhooks/{webhook}/redeliveries", since);
        }
    }

    async fn delivered(&mut self, webhook: &str) {
        let tested = self.write(&format!("/v1/webhooks/{webhook}/test"), &json!({})).await;
        let path = json!({"webhook": webhook, "delivery": tested.body["delivery"]});
        let one = "/v1/webhooks/{webhook}/deliveries/{delivery}";
        self.give(&format!("GET {one}"), json!({"path": path}));
        self.give(&format!("POST {one}/redelivery"), json!({"path": path}));
    }
}
