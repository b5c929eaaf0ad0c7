//! Checks of faces by real programs, where the other side dies at the worst moment: there is one
//! verdict on a picture, and the punch stands whatever happens.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use punchtrail_protocol::{Digest, PunchId, capture::PunchKind};
use punchtrail_testkit::{Moto, PATIENCE, eventually};
use punchtrail_tests::{
    Installation, Kiosk, Shop,
    rekognition::{Action, Fault, REGION, StandIn},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// A site with faces, one person who agreed, and a device; Rekognition is on loopback.
struct Door {
    shop: Shop,
    kiosk: Kiosk,
    stand_in: StandIn,
}

/// A picture that Rekognition sees one good face on, each another.
fn picture(grey: u8) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    let pixels = image::RgbImage::from_pixel(640, 480, image::Rgb([grey; 3]));
    pixels.write_to(&mut out, image::ImageFormat::Jpeg).unwrap();
    out.into_inner()
}

impl Door {
    async fn open(checks: &str) -> Self {
        Self::open_with(checks, &[]).await
    }

    /// With more variables for the server.
    async fn open_with(checks: &str, variables: &[(&str, &str)]) -> Self {
        let stand_in = StandIn::start().await;
        let mut place = Installation::embedded().unwrap().with_variable("RUST_LOG", "info");
        for (name, value) in variables {
            place = place.with_variable(name, *value);
        }
        for (name, value) in stand_in.environment() {
            place = place.with_variable(name, value);
        }
        let place = place.with_variable("PUNCHTRAIL_FACE_CHECKS", checks);
        let shop = Shop::open_at(place).await.unwrap();
        let policy = ["site", "policy", "Shop", "--set", "faces=true", "--from", "2026-01-01"];
        shop.cli.json(&policy).await.unwrap();
        let agreed = ["face", "consent", "101", "--notice", "2026-01", "--language", "de"];
        let given = ["--given-at", "2026-01-01T08:00:00.000Z"];
        shop.cli.json(&[&agreed[..], &given].concat()).await.unwrap();
        let reference = shop.server.installation().data.path().join("reference.jpg");
        std::fs::write(&reference, picture(10)).unwrap();
        let file = reference.to_str().unwrap();
        shop.cli.json(&["face", "enrol", "101", "--photo", file]).await.unwrap();
        stand_in.person("Ada", &[&picture(10), &picture(20), &picture(30)]);
        let kiosk = shop.kiosk(shop.server.url()).await.unwrap();
        Self { shop, kiosk, stand_in }
    }

    /// A press whose picture came.
    async fn press(&mut self, picture: &[u8]) -> PunchId {
        let (employee, photo) = (self.shop.employee, Digest::of(picture));
        let ago_ms = self.kiosk.chain.next.seq as i64 * -600_000;
        let capture = self.kiosk.capture_with(|capture| {
            (capture.employee, capture.kind) = (Some(employee), PunchKind::In);
            capture.captured_at = capture.captured_at.plus_millis(ago_ms);
            capture.photo = Some(photo);
        });
        self.kiosk.deliver(&[self.kiosk.item(&capture)]).await.unwrap();
        let path = format!("/v1/photos/{photo}");
        let body = Some(("image/jpeg", picture.to_vec()));
        let (status, answer) = self.kiosk.ask(Method::PUT, &path, body).await.unwrap();
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        capture.punch
    }

    /// The types of the punch's events, once there is one of that type.
    async fn until(&self, punch: PunchId, last: &str) -> Vec<String> {
        let mut seen = Value::Null;
        eventually("the event", 3 * PATIENCE, async || {
            let path = format!("/v1/punches/{punch}/events");
            // The server may be on its way back, and what it had in hand comes after a minute.
            let Ok(events) = self.shop.operator.get(&path).await else { return Ok(None) };
            seen = events.clone();
            let types: Vec<String> = events["data"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|event| event["event_type"].as_str().unwrap_or_default().to_owned())
                .collect();
            anyhow::Ok(types.iter().any(|kind| kind == last).then_some(types))
        })
        .await
        .unwrap_or_else(|error| panic!("{error}: {seen}"))
    }
}

fn verdicts(types: &[String]) -> usize {
    types
        .iter()
        .filter(|kind| kind.starts_with("Verification") && *kind != "VerificationRequested")
        .count()
}

#[tokio::test]
async fn a_server_killed_while_it_is_told_the_verdict_leaves_one() {
    let mut door = Door::open("rekognition").await;
    door.stand_in.next(Action::CompareFaces, [Fault::Held]);
    let punch = door.press(&picture(20)).await;
    eventually("the question to be under way", PATIENCE, async || {
        anyhow::Ok((door.stand_in.calls(Action::CompareFaces) > 0).then_some(()))
    })
    .await
    .unwrap();
    door.shop.server.kill_9().unwrap();
    door.stand_in.mend();
    door.shop.restart().await.unwrap();
    let types = door.until(punch, "Accepted").await;
    assert_eq!(verdicts(&types), 1, "{types:?}");
    assert!(door.stand_in.calls(Action::CompareFaces) >= 2, "it was asked again");
    let told = door.shop.cli.json(&["punch", "explain", &punch.to_string()]).await.unwrap();
    assert!(told.to_string().contains("Amazon Rekognition compared"), "{told}");
    door.shop.server.terminate().await.unwrap();
}

/// The queue of checks and its dead letters in SQS, played by Moto: the queue's URL.
async fn queue_in(moto: &Moto) -> String {
    let http = reqwest::Client::new();
    let create = async |name: &str, attributes: Value| {
        let scope = format!("{REGION}/sqs/aws4_request");
        let answer = http
            .post(moto.url())
            .header("x-amz-target", "AmazonSQS.CreateQueue")
            .header("content-type", "application/x-amz-json-1.0")
            // Moto only reads the region from it.
            .header("authorization", format!("AWS4-HMAC-SHA256 Credential=x/20260101/{scope}"))
            .body(json!({ "QueueName": name, "Attributes": attributes }).to_string())
            .send()
            .await
            .unwrap();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        answer["QueueUrl"].as_str().unwrap().to_owned()
    };
    create("checks-dead", json!({})).await;
    let dead = format!("arn:aws:sqs:{REGION}:123456789012:checks-dead");
    let policy = json!({ "deadLetterTargetArn": dead, "maxReceiveCount": 5 }).to_string();
    create("checks", json!({ "RedrivePolicy": policy })).await
}

#[tokio::test]
async fn sqs_gone_between_a_verdict_and_its_record_leaves_one_and_holds_up_no_punch() {
    let Some(moto) = Moto::start() else { return };
    let (queue, endpoint) = (queue_in(&moto).await, moto.url());
    let variables = [
        ("PUNCHTRAIL_SQS_QUEUE", queue.as_str()),
        ("PUNCHTRAIL_AWS_REGION", REGION),
        ("AWS_ENDPOINT_URL_SQS", endpoint.as_str()),
    ];
    let mut door = Door::open_with("rekognition", &variables).await;
    door.stand_in.next(Action::CompareFaces, [Fault::Held]);
    let punch = door.press(&picture(20)).await;
    eventually("the question to be under way", PATIENCE, async || {
        anyhow::Ok((door.stand_in.calls(Action::CompareFaces) > 0).then_some(()))
    })
    .await
    .unwrap();
    // kill -9, and with it all that was in the queue.
    drop(moto);
    door.stand_in.mend();
    let types = door.until(punch, "Accepted").await;
    assert_eq!(verdicts(&types), 1, "{types:?}");
    // The next one waits for its check until its time is over, and counts meanwhile.
    let next = door.press(&picture(30)).await;
    let types = door.until(next, "PhotoReceived").await;
    assert_eq!(verdicts(&types), 0, "{types:?}");
    door.shop.server.terminate().await.unwrap();
}

/// A picture in a file for the agent's program.
fn file(door: &Door, name: &str, grey: u8) -> String {
    let path = door.shop.server.installation().data.path().join(name);
    std::fs::write(&path, picture(grey)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_device_that_was_away_forgets_the_sealed_photo_of_who_withdrew() {
    let mut door = Door::open("review").await;
    let agent = door.shop.agent(door.shop.server.url()).await.unwrap();
    // Nobody delivers: the photo waits on the device, sealed.
    let press = ["punch", "--json", "--badge", "101", "--kind", "in", "--photo"];
    let photo = file(&door, "press.jpg", 40);
    let punched = agent.ask(&[&press[..], &[&photo]].concat()).await.unwrap();
    let punch: PunchId = punched["punch"].as_str().unwrap().parse().unwrap();
    let status = agent.status().await.unwrap();
    let held = |status: &Value| (status["photos"].clone(), status["photos_erased"].clone());
    assert_eq!(held(&status), (json!(1), json!(0)), "{status}");

    door.shop.cli.json(&["face", "withdraw", "101"]).await.unwrap();
    let device = status["device"].as_str().unwrap();
    let path = format!("/v1/devices/{device}/commands");
    let state = async |wanted: &str| {
        eventually("the command to stand so", PATIENCE, async || {
            let told = door.shop.operator.get(&path).await?;
            let row = told["data"][0].clone();
            Ok((row["state"] == wanted).then_some(row))
        })
        .await
        .unwrap()
    };
    let waiting = state("waiting").await;
    assert_eq!(waiting["type"], "forget_photos", "{waiting}");

    // It comes back, hears of it, and forgets before it sends.
    let report = agent.sync().await.unwrap();
    assert_eq!(report["complete"], true, "{report}");
    let done = state("done").await;
    assert_eq!(done["detail"], "1 photos erased", "{done}");
    let status = agent.status().await.unwrap();
    assert_eq!(held(&status), (json!(0), json!(1)), "{status}");
    assert_eq!(std::fs::read_dir(agent.dir().join("photos")).unwrap().count(), 0);
    let types = door.until(punch, "Synced").await;
    assert!(!types.contains(&"PhotoReceived".to_owned()), "{types:?}");
    let told = door.shop.cli.json(&["device", "commands", device]).await.unwrap();
    assert_eq!(told["commands"][0]["state"], "done", "{told}");
    let verified = door.shop.cli.json(&["ledger", "verify"]).await.unwrap();
    assert_eq!(verified["findings"], json!([]), "{verified}");
    door.shop.server.terminate().await.unwrap();
}

#[tokio::test]
async fn what_rekognition_can_not_check_goes_to_a_person_and_counts() {
    let mut door = Door::open("rekognition,review").await;
    door.stand_in.always(Action::DetectFaces, Fault::Error(400, "AccessDeniedException"));
    let punch = door.press(&picture(20)).await;
    let types = door.until(punch, "ReferredForReview").await;
    assert_eq!(verdicts(&types), 1, "{types:?}");
    assert!(types.contains(&"VerificationUnavailable".to_owned()), "{types:?}");
    door.stand_in.mend();
    door.shop.server.terminate().await.unwrap();
}

#[tokio::test]
async fn a_throttled_check_is_made_later_and_a_stranger_is_referred() {
    let mut door = Door::open("rekognition").await;
    let throttled = Fault::Error(400, "ThrottlingException");
    door.stand_in.next(Action::DetectFaces, std::iter::repeat_n(throttled, 2));
    let known = door.press(&picture(30)).await;
    let types = door.until(known, "Accepted").await;
    assert_eq!(verdicts(&types), 1, "{types:?}");
    let stranger = door.press(&picture(200)).await;
    let types = door.until(stranger, "ReferredForReview").await;
    assert!(types.contains(&"VerificationFailed".to_owned()), "{types:?}");
    let queue = door.shop.cli.json(&["queue", "show"]).await.unwrap();
    assert_eq!(queue["dead"], 0, "{queue}");
    door.shop.server.terminate().await.unwrap();
}
