//! What an operator writes over HTTP as on the command line: sites, PINs, people of another system,
//! and whose PINs a lost device knows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::House;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

impl House {
    async fn put(&self, path: &str, body: &Value) -> common::Answer {
        self.send(Method::PUT, path, Some(&self.key), body.to_string()).await
    }

    async fn person(&self, employee: &str) -> Value {
        let head = self.settled().await;
        self.read_after(&format!("/v1/employees/{employee}"), head).await.body
    }
}

#[tokio::test]
async fn a_site_is_made_known_once() {
    let house = House::new().await;
    let body = json!({"name": "  Mill  ", "tz": "Europe/Berlin"});
    let made = house.write("/v1/sites", &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let head = house.settled().await;
    let site = format!("/v1/sites/{}", made.body["site"].as_str().unwrap());
    assert_eq!(house.read_after(&site, head).await.body["name"], "Mill");
    assert_eq!(house.write("/v1/sites", &body).await.refusal(), "409 conflict");
    for (wrong, at) in [
        (json!({"name": "", "tz": "Europe/Berlin"}), "/name"),
        (json!({"name": "Quay", "tz": "Europe/Atlantis"}), "/tz"),
        (json!({"name": uuid::Uuid::now_v7(), "tz": "Europe/Berlin"}), "/name"),
    ] {
        let refused = house.write("/v1/sites", &wrong).await;
        assert_eq!(refused.refusal(), format!("422 invalid: {at} invalid_value"), "{wrong}");
    }
    house.close().await;
}

#[tokio::test]
async fn who_lost_a_device_hears_whose_pins_it_knows_and_asks_for_others() {
    let house = House::new().await;
    let (site, elsewhere) = (house.site().await, house.site().await);
    let device = house.device(site).await;
    let ada = house.employee(site, "17", "Ada").await.to_string();
    let bea = house.employee(site, "18", "Bea").await.to_string();
    let cem = house.employee(elsewhere, "19", "Cem").await.to_string();
    for who in [&ada, &cem] {
        let set = house.put(&format!("/v1/employees/{who}/pin"), &json!({"pin": "4711"})).await;
        assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    }
    let wrong = house.put(&format!("/v1/employees/{ada}/pin"), &json!({"pin": "47"})).await;
    assert_eq!(wrong.refusal(), "422 invalid: /pin invalid_value");
    // The same again is no change.
    let head = house.settled().await;
    house.put(&format!("/v1/employees/{ada}/pin"), &json!({"pin": "4711"})).await;
    assert_eq!(house.settled().await, head);

    let path = format!("/v1/devices/{}", device.id);
    let revoked = house.write(&format!("{path}/revoke"), &Value::Null).await;
    assert_eq!(revoked.status, StatusCode::OK, "{}", revoked.text);
    let known = revoked.body["pins"].as_array().unwrap();
    assert_eq!(known.len(), 1, "{}", revoked.text);
    assert_eq!(
        (&known[0]["employee"], &known[0]["employee_name"]),
        (&json!(ada), &json!("Ada")),
        "Bea has none, and Cem works elsewhere"
    );
    assert_eq!(revoked.body["more_pins"], false);
    // Who gets a PIN when the device is gone isn't known to it.
    house.put(&format!("/v1/employees/{bea}/pin"), &json!({"pin": "0815"})).await;
    let head = house.settled().await;
    let listed = house.read_after(&format!("{path}/pins"), head).await;
    assert_eq!(listed.body["data"].as_array().unwrap().len(), 1, "{}", listed.text);

    let asked = house.write(&format!("{path}/pins/renewal"), &Value::Null).await;
    assert_eq!(asked.body["asked"], 1, "{}", asked.text);
    assert!(house.person(&ada).await["pin_renewal_asked_at"].is_string());
    assert!(house.person(&bea).await["pin_renewal_asked_at"].is_null());
    house.put(&format!("/v1/employees/{ada}/pin"), &json!({"pin": "9999"})).await;
    assert!(house.person(&ada).await["pin_renewal_asked_at"].is_null());
    let head = house.settled().await;
    let listed = house.read_after(&format!("{path}/pins"), head).await;
    assert_eq!(listed.body["data"], json!([]), "it knows nothing that still opens");
    let path = format!("/v1/employees/{ada}/pin");
    let taken = house.send(Method::DELETE, &path, Some(&house.key), String::new()).await;
    assert_eq!(taken.status, StatusCode::OK, "{}", taken.text);
    assert_eq!(house.person(&ada).await["has_pin"], false);
    house.close().await;
}

#[tokio::test]
async fn a_person_of_another_system_is_put_by_their_id() {
    let house = House::new().await;
    let site = house.site().await;
    let path = "/v1/employees/by-external-id/E-1";
    let body = json!({"name": "Ada", "site": site, "badge": "17"});
    let made = house.put(path, &body).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    assert_eq!(made.body["created"], true);
    let employee = made.body["employee"].as_str().unwrap().to_owned();
    let head = house.settled().await;
    let again = house.put(path, &body).await;
    assert_eq!((&again.body["created"], &again.body["changes"]), (&json!(false), &json!([])));
    assert_eq!(house.settled().await, head, "nothing was written");
    let renamed = json!({"name": "Ada King", "site": site});
    let renamed = house.put(path, &renamed).await;
    assert_eq!(renamed.body["employee"], employee, "{}", renamed.text);
    let person = house.person(&employee).await;
    assert_eq!((&person["name"], &person["badges"]), (&json!("Ada King"), &json!(["17"])));
    // A badge that somebody else holds stays theirs unless it is said when it changed hands.
    let other = json!({"name": "Bea", "site": site, "badge": "17"});
    let refused = house.put("/v1/employees/by-external-id/E-2", &other).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
    assert!(refused.text.contains("17"), "{}", refused.text);
    house.close().await;
}
