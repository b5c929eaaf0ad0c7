//! Faces, checked over real HTTP by the local models, on credited pictures: who is recognised, who
//! is guided, who goes to a person, and what is erased.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use std::path::PathBuf;

use axum::body::Body;
use common::{Answer, Device, House, request};
use hyper::{Method, StatusCode, header};
use image::{DynamicImage, ImageFormat};
use punchtrail_domain::punch::Provider;
use punchtrail_infra::testing::sqlx;
use punchtrail_protocol::{
    Digest, EmployeeId, PunchId, SiteId, Time,
    attachment::Attachment,
    capture::PunchKind,
    sealed_photo::{PhotoKey, SEALED_PHOTO_TYPE, seal},
    signing::{ATTACHMENT_TYPE, sign, to_base64url},
};
use punchtrail_testkit::{Faces, PATIENCE, eventually};
use serde_json::{Value, json};

/// A house with faces at its site, one person who agreed, and a device.
struct Door {
    house: House,
    site: SiteId,
    employee: EmployeeId,
    device: Device,
    faces: Faces,
}

impl Door {
    async fn open() -> Option<Self> {
        let faces = Faces::brought()?;
        let models = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools"));
        let models = std::env::var_os("PUNCHTRAIL_FACE_MODELS")
            .map_or_else(|| models.join("faces-1.1.1"), PathBuf::from);
        let house = House::with(|options| options.identity.models = Some(models)).await;
        let site = house.site().await;
        let (path, policy) =
            (format!("/v1/sites/{site}/policy"), json!({ "faces": true, "face_px_min": 40 }));
        let changed = house.send(Method::PUT, &path, Some(&house.key), policy.to_string()).await;
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
        let employee = house.employee(site, "101", "Maria Ortiz").await;
        let device = house.device(site).await;
        let door = Self { house, site, employee, device, faces };
        door.agree("person_a_2").await;
        Some(door)
    }

    fn face(&self, rest: &str) -> String {
        format!("/v1/employees/{}/face{rest}", self.employee)
    }

    async fn agree(&self, reference: &str) -> Digest {
        let long_ago = json!({
            "notice": "2026-01", "language": "de", "given_at": "2026-01-01T08:00:00.000Z"
        });
        let agreed = self.house.write(&self.face("/consent"), &long_ago).await;
        assert_eq!(agreed.status, StatusCode::OK, "{}", agreed.text);
        let picture = self.faces.picture(reference);
        let photo = Digest::of(&picture);
        let enrolled = self.enrol(&picture).await;
        assert_eq!(enrolled.status, StatusCode::OK, "{}", enrolled.text);
        photo
    }

    async fn enrol(&self, picture: &[u8]) -> Answer {
        let path = self.face(&format!("/references/{}", Digest::of(picture)));
        let key = Some(self.house.key.as_str());
        self.house.ask(request(Method::PUT, &path, key, Body::from(picture.to_vec()))).await
    }

    async fn put(&self, picture: &[u8]) -> StatusCode {
        let path = format!("/v1/photos/{}", Digest::of(picture));
        let token = Some(self.device.token.as_str());
        let put = request(Method::PUT, &path, token, Body::from(picture.to_vec()));
        self.house.ask(put).await.status
    }

    /// A press with a first frame, delivered; the picture follows unless it is held back.
    async fn press(&mut self, picture: &[u8]) -> PunchId {
        let punch = self.press_without(Some(Digest::of(picture))).await;
        assert_eq!(self.put(picture).await, StatusCode::CREATED);
        punch
    }

    async fn press_without(&mut self, photo: Option<Digest>) -> PunchId {
        let employee = self.employee;
        // Apart enough not to be taken for the same press twice.
        let minutes = self.device.chain.seq() as i64 * 10;
        let capture = self.device.chain.capture_with(|capture| {
            (capture.employee, capture.kind) = (Some(employee), PunchKind::In);
            capture.captured_at =
                Time::from(jiff::Timestamp::now()).plus_millis(-86_400_000 + minutes * 60_000);
            capture.uptime_ms = 60_000 + capture.seq;
            capture.photo = photo;
        });
        let item = self.device.item(&capture);
        assert_eq!(self.house.deliver(&self.device, &[item]).await.outcomes(), ["applied"]);
        capture.punch
    }

    async fn retake(&self, punch: PunchId, attempt: u32, picture: &[u8]) -> Answer {
        let record = Attachment {
            v: 1,
            punch,
            device: self.device.id,
            photo: Digest::of(picture),
            attempt,
            taken_at: Time::from(jiff::Timestamp::now()),
            app: "test/1".to_owned(),
        };
        self.attach(punch, &record.to_bytes()).await
    }

    async fn attach(&self, punch: PunchId, record: &[u8]) -> Answer {
        let body = signed(&self.device, record);
        let path = format!("/v1/punches/{punch}/attachments");
        self.house.post(&path, Some(&self.device.token), &body).await
    }

    async fn verdict(&self, punch: PunchId) -> Value {
        let path = format!("/v1/punches/{punch}/verdict?wait_s=20");
        let answer = self.house.get(&path, Some(&self.device.token)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.body
    }

    /// The standing and the reasons once the punch stands so.
    async fn stands(&self, punch: PunchId, standing: &str) -> Vec<String> {
        let mut last = Value::Null;
        let found = eventually("the punch to stand so", PATIENCE, async || {
            let body = self.house.read(&format!("/v1/punches/{punch}")).await.body;
            last = body.clone();
            Ok((body["standing"] == standing).then_some(body))
        })
        .await
        .unwrap_or_else(|error| panic!("{error}: {last}"));
        let reasons = found["reasons"].as_array().cloned().unwrap_or_default();
        reasons.iter().map(|reason| reason.as_str().unwrap().to_owned()).collect()
    }

    async fn told(&self, punch: PunchId) -> String {
        let explained = self.house.read(&format!("/v1/punches/{punch}/explanation")).await.body;
        let sentences = explained["sentences"].as_array().unwrap_or_else(|| panic!("{explained}"));
        sentences.iter().map(|said| said.as_str().unwrap()).collect::<Vec<_>>().join(" ")
    }
}

fn signed(device: &Device, record: &[u8]) -> Value {
    let signature = sign(&device.chain.key, ATTACHMENT_TYPE, record);
    json!({ "record": to_base64url(record), "signature": signature.to_string() })
}

fn changed(bytes: &[u8], change: impl FnOnce(DynamicImage) -> DynamicImage) -> Vec<u8> {
    let picture = change(image::load_from_memory(bytes).unwrap());
    let mut out = std::io::Cursor::new(Vec::new());
    picture.into_rgb8().write_to(&mut out, ImageFormat::Jpeg).unwrap();
    out.into_inner()
}

#[tokio::test]
async fn the_same_person_is_accepted_and_another_goes_to_a_person() {
    let Some(mut door) = Door::open().await else { return };
    let same = door.press(&door.faces.picture("person_a_1")).await;
    let verdict = door.verdict(same).await;
    assert_eq!((&verdict["attempt"], &verdict["guidance"]), (&json!(0), &json!([])), "{verdict}");
    door.stands(same, "accepted").await;
    let told = door.told(same).await;
    assert!(told.contains("enough for a match"), "{told}");
    assert!(told.contains("The identity check succeeded, so it was accepted"), "{told}");

    let other = door.press(&door.faces.picture("impostor_1")).await;
    let verdict = door.verdict(other).await;
    assert_eq!(verdict["guidance"], json!(["manager_will_look"]), "{verdict}");
    assert_eq!(verdict["retake"], false);
    assert_eq!(door.stands(other, "referred").await, ["face_mismatch"]);
    let told = door.told(other).await;
    assert!(
        told.contains("waits for a manager") && told.contains(" It counts until then."),
        "{told}"
    );
    let ready = door.house.get("/readyz", None).await.body;
    assert_eq!(ready["faces"]["order"], json!([Provider::Local.as_str()]), "{ready}");
    door.house.close().await;
}

#[tokio::test]
async fn a_miss_is_guided_and_a_retake_is_accepted() {
    let Some(mut door) = Door::open().await else { return };
    let good = door.faces.picture("person_a_1");
    let dark = changed(&good, |picture| picture.brighten(-230));
    let punch = door.press(&dark).await;
    let verdict = door.verdict(punch).await;
    assert_eq!(verdict["attempt"], 0, "{verdict}");
    assert_eq!(verdict["retake"], true, "{verdict}");
    let guidance = verdict["guidance"].as_array().unwrap();
    assert!(!guidance.is_empty() && guidance[0] != "manager_will_look", "{verdict}");
    assert_eq!(door.stands(punch, "referred").await, ["face_unclear"]);

    let taken = door.retake(punch, 1, &good).await;
    assert_eq!((taken.status, &taken.body["status"]), (StatusCode::OK, &json!("applied")));
    let again = door.retake(punch, 1, &dark).await;
    assert_eq!(again.refusal(), "409 conflict");
    assert_eq!(door.put(&good).await, StatusCode::CREATED);
    door.stands(punch, "accepted").await;
    let verdict = door.verdict(punch).await;
    assert_eq!((&verdict["attempt"], &verdict["retake"]), (&json!(1), &json!(false)));
    let told = door.told(punch).await;
    assert!(told.contains("Another picture was taken"), "{told}");
    assert!(told.contains("The worker was told"), "{told}");
    door.house.close().await;
}

#[tokio::test]
async fn two_misses_are_enough_and_the_punch_stands() {
    let Some(mut door) = Door::open().await else { return };
    let dark = |by| changed(&door.faces.picture("person_a_1"), |picture| picture.brighten(by));
    let (first, second) = (dark(-230), dark(-235));
    let punch = door.press(&first).await;
    assert_eq!(door.verdict(punch).await["retake"], true);
    assert_eq!(door.retake(punch, 1, &second).await.status, StatusCode::OK);
    assert_eq!(door.put(&second).await, StatusCode::CREATED);
    let verdict = eventually("the second verdict", PATIENCE, async || {
        let verdict = door.verdict(punch).await;
        Ok((verdict["attempt"] == 1).then_some(verdict))
    });
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict["retake"], false, "{verdict}");
    door.stands(punch, "referred").await;
    door.house.close().await;
}

#[tokio::test]
async fn a_ruling_stands_whatever_a_late_picture_shows() {
    let Some(mut door) = Door::open().await else { return };
    let picture = door.faces.picture("impostor_1");
    let punch = door.press_without(Some(Digest::of(&picture))).await;
    door.house.settled().await;
    let decided = door
        .house
        .write(&format!("/v1/punches/{punch}/decision"), &json!({ "decision": "accept" }))
        .await;
    assert_eq!(decided.status, StatusCode::OK, "{}", decided.text);
    assert_eq!(door.put(&picture).await, StatusCode::CREATED);
    let told = eventually("the verdict to be told", PATIENCE, async || {
        let told = door.told(punch).await;
        Ok(told.contains("a person had ruled already").then_some(told))
    });
    let told = told.await.unwrap();
    assert!(told.contains(" It counts."), "{told}");
    assert_eq!(door.stands(punch, "accepted").await, Vec::<String>::new());
    door.house.close().await;
}

#[tokio::test]
async fn without_consent_a_punch_is_judged_as_where_no_faces_are_checked() {
    let Some(mut door) = Door::open().await else { return };
    let path = door.face("/consent");
    let withdrawn = door.house.send(Method::DELETE, &path, Some(&door.house.key), "").await;
    assert_eq!(withdrawn.status, StatusCode::OK);
    let punch = door.press(&door.faces.picture("impostor_1")).await;
    assert_eq!(door.stands(punch, "accepted").await, Vec::<String>::new());
    let told = door.told(punch).await;
    assert!(told.contains("no picture was to be compared"), "{told}");
    let manifest = format!("/v1/sites/{}/manifest", door.site);
    let manifest = door.house.get(&manifest, Some(&door.device.token)).await.body;
    assert_eq!(manifest["data"][0]["face"], false, "{manifest}");
    door.house.close().await;
}

#[tokio::test]
async fn a_picture_that_never_comes_refers_when_its_time_is_over() {
    let Some(mut door) = Door::open().await else { return };
    let punch = door.press_without(None).await;
    let verdict = door.house.settled().await;
    assert!(verdict > 0);
    assert!(door.told(punch).await.contains("Its picture waits to be checked"));
    let pools = door.house.database.pools().await;
    // As if the four hours were over.
    let table: String = sqlx::query_scalar(
        "select 'read.' || quote_ident(relname) from pg_class where relname like 'verifications%' \
         and relkind = 'r' order by relname desc limit 1",
    )
    .fetch_one(&pools.owner)
    .await
    .unwrap();
    eventually("the request to be in the model", PATIENCE, async || {
        let statement = format!("update {table} set due_at = now() - interval '1 minute'");
        let done = sqlx::query(&statement).execute(&pools.owner).await?;
        Ok((done.rows_affected() == 1).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(door.stands(punch, "referred").await, ["photo_missing"]);
    pools.close().await;
    door.house.close().await;
}

#[tokio::test]
async fn a_sealed_photo_is_opened_and_one_for_another_server_is_not() {
    let Some(mut door) = Door::open().await else { return };
    let manifest = format!("/v1/sites/{}/manifest", door.site);
    let manifest = door.house.get(&manifest, Some(&door.device.token)).await.body;
    let key: PhotoKey = manifest["photo_key"].as_str().unwrap().parse().unwrap();
    let picture = door.faces.picture("person_a_1");
    let punch = door.press_without(Some(Digest::of(&picture))).await;
    let put = async |sealed: Vec<u8>| {
        let path = format!("/v1/photos/{}", Digest::of(&picture));
        let token = Some(door.device.token.as_str());
        let mut put = request(Method::PUT, &path, token, Body::from(sealed));
        let kind = header::HeaderValue::from_static(SEALED_PHOTO_TYPE);
        put.headers_mut().insert(header::CONTENT_TYPE, kind);
        door.house.ask(put).await
    };
    let other = punchtrail_protocol::sealed_photo::PhotoSecret::generate().key();
    let foreign = put(seal(&other, &picture).unwrap()).await;
    assert_eq!(foreign.refusal(), "422 invalid");
    assert_eq!(put(seal(&key, &picture).unwrap()).await.status, StatusCode::CREATED);
    door.stands(punch, "accepted").await;
    door.house.close().await;
}

#[tokio::test]
async fn a_photo_is_shown_clean_to_who_has_the_right_and_each_look_is_written_down() {
    let Some(door) = Door::open().await else { return };
    let photo = Digest::of(&door.faces.picture("person_a_2"));
    let path = format!("/v1/photos/{photo}");
    assert_eq!(door.house.get(&path, None).await.refusal(), "401 unauthenticated");
    let device = door.house.get(&path, Some(&door.device.token)).await;
    assert_eq!(device.refusal(), "403 forbidden");
    for size in ["", "?size=thumbnail"] {
        let shown = door.house.get(&format!("{path}{size}"), Some(&door.house.key)).await;
        assert_eq!(shown.status, StatusCode::OK);
        assert_eq!(shown.headers[header::CONTENT_TYPE], "image/jpeg");
        assert_eq!(shown.headers[header::CACHE_CONTROL], "no-store");
        assert!(!shown.text.contains("Exif"));
    }
    let reads = door.house.get(&format!("{path}/reads"), Some(&door.house.key)).await.body;
    assert_eq!(reads["data"].as_array().unwrap().len(), 2, "{reads}");
    assert!(reads["data"][0]["reader"].as_str().unwrap().starts_with("key:"));
    let unknown = format!("/v1/photos/{}", "0".repeat(64));
    let unknown = door.house.get(&unknown, Some(&door.house.key)).await;
    assert_eq!(unknown.refusal(), "404 not_found");
    door.house.close().await;
}

#[tokio::test]
async fn what_is_kept_of_a_face_is_erased_and_the_punches_stand() {
    let Some(mut door) = Door::open().await else { return };
    let picture = door.faces.picture("person_a_1");
    let punch = door.press(&picture).await;
    door.stands(punch, "accepted").await;
    let reference = Digest::of(&door.faces.picture("person_a_2"));
    // One that is still to come, of before the erasure.
    let late = door.faces.picture("person_b_1");
    let second = door.press_without(Some(Digest::of(&late))).await;
    let erased = door.house.write(&door.face("/erasure"), &json!({})).await;
    assert_eq!(erased.status, StatusCode::ACCEPTED, "{}", erased.text);
    let gone = async |photo: Digest| {
        eventually("the photo to be gone", PATIENCE, async || {
            let there = door.house.app.photos.has(&photo).await?;
            Ok((!there).then_some(()))
        })
        .await
        .unwrap();
    };
    gone(reference).await;
    gone(Digest::of(&picture)).await;
    let told = eventually("the punch to say so", PATIENCE, async || {
        let told = door.told(punch).await;
        Ok(told.contains("A picture of this punch was erased").then_some(told))
    });
    assert!(told.await.unwrap().contains(" It counts."));
    let kept: i64 = sqlx::query_scalar("select count(*) from reference_embeddings")
        .fetch_one(&door.house.pools.writer)
        .await
        .unwrap();
    assert_eq!(kept, 0);
    assert_eq!(door.put(&late).await, StatusCode::CREATED);
    gone(Digest::of(&late)).await;
    let told = eventually("the late one to say so", PATIENCE, async || {
        let told = door.told(second).await;
        Ok(told.contains("A picture of this punch was erased").then_some(()))
    });
    told.await.unwrap();
    // Sent once more, it isn't kept once more.
    let head = door.house.ledger.head().await.unwrap();
    let until = tokio::time::Instant::now() + PATIENCE;
    door.house.app.projections.wait_for(&["photos"], head, until).await.unwrap();
    assert_eq!(door.put(&late).await, StatusCode::OK);
    assert!(!door.house.app.photos.has(&Digest::of(&late)).await.unwrap());
    door.house.close().await;
}

#[tokio::test]
async fn reference_photos_are_taken_at_a_kiosk_by_a_code_for_one_person() {
    let Some(door) = Door::open().await else { return };
    let other = door.house.employee(door.site, "102", "Ben Adler").await;
    let picture = door.faces.picture("person_b_1");
    let path = format!("/v1/employees/{other}/face/codes");
    let code = door.house.write(&path, &json!({})).await.body["code"].clone();
    let asked = |photos: &[Digest], code: &Value| {
        json!({
            "code": code, "notice": "2026-01", "language": "en", "photos": photos,
            "given_at": Time::from(jiff::Timestamp::now()),
        })
    };
    let take = async |employee: EmployeeId, body: Value| {
        let path = format!("/v1/sites/{}/employees/{employee}/references", door.site);
        door.house.post(&path, Some(&door.device.token), &body).await
    };
    let photos = [Digest::of(&picture)];
    let wrong = take(door.employee, asked(&photos, &code)).await;
    assert_eq!(wrong.refusal(), "403 pairing_code_invalid", "another person's code");
    let missing = take(other, asked(&photos, &code)).await;
    assert_eq!(missing.refusal(), "422 invalid: /photos invalid_value");
    assert_eq!(door.put(&picture).await, StatusCode::CREATED);
    let taken = take(other, asked(&photos, &code)).await;
    assert_eq!((taken.status, &taken.body["references"]), (StatusCode::OK, &json!(1)));
    assert_eq!(take(other, asked(&photos, &code)).await.refusal(), "403 pairing_code_invalid");
    for _ in 0..20 {
        take(other, asked(&photos, &json!("BCDF-GHJK"))).await;
    }
    let guessing = take(other, asked(&photos, &json!("BCDF-GHJK"))).await;
    assert_eq!(guessing.refusal(), "429 quota_exceeded");
    door.house.close().await;
}

#[tokio::test]
async fn bad_pictures_and_attachments_are_refused_and_cost_no_punch() {
    let Some(mut door) = Door::open().await else { return };
    assert_eq!(door.enrol(b"no picture").await.refusal(), "422 invalid");
    let two = door.faces.picture("person_a_2");
    let two = changed(&two, |picture| {
        let (width, height) = (picture.width(), picture.height());
        let mut both = image::RgbImage::new(width * 2, height);
        image::imageops::replace(&mut both, &picture.to_rgb8(), 0, 0);
        image::imageops::replace(&mut both, &picture.to_rgb8(), i64::from(width), 0);
        both.into()
    });
    assert_eq!(door.enrol(&two).await.refusal(), "422 invalid");
    let unreadable = b"\xff\xd8\xff and then nothing".to_vec();
    let punch = door.press(&unreadable).await;
    assert_eq!(door.stands(punch, "referred").await, ["face_unclear"]);

    let good = door.faces.picture("person_a_1");
    let unknown = PunchId(uuid::Uuid::now_v7());
    assert_eq!(door.retake(unknown, 1, &good).await.refusal(), "404 not_found");
    let record = Attachment {
        v: 1,
        punch,
        device: door.device.id,
        photo: Digest::of(&good),
        attempt: 1,
        taken_at: Time::from(jiff::Timestamp::now()),
        app: "test/1".to_owned(),
    };
    let wrong = Attachment { attempt: 21, ..record.clone() };
    let refused = door.attach(punch, &wrong.to_bytes()).await;
    assert_eq!(refused.refusal(), "422 invalid: /record invalid_value");
    let other = door.house.device(door.site).await;
    let body = signed(&other, &record.to_bytes());
    let path = format!("/v1/punches/{punch}/attachments");
    let forged = door.house.post(&path, Some(&door.device.token), &body).await;
    assert_eq!(forged.refusal(), "422 bad_signature");
    let foreign = door.house.post(&path, Some(&other.token), &body).await;
    assert_eq!(foreign.refusal(), "403 forbidden");
    let asked = format!("/v1/punches/{punch}/verdict");
    assert_eq!(door.house.get(&asked, Some(&other.token)).await.refusal(), "404 not_found");
    let long = format!("{asked}?wait_s=21");
    let long = door.house.get(&long, Some(&door.device.token)).await;
    assert_eq!(long.refusal(), "422 invalid: wait_s invalid_value");
    door.house.close().await;
}

#[tokio::test]
async fn a_picture_is_kept_no_longer_than_the_site_says_and_of_who_left_nothing() {
    let Some(mut door) = Door::open().await else { return };
    let picture = door.faces.picture("person_a_1");
    let punch = door.press(&picture).await;
    door.stands(punch, "accepted").await;
    let pools = door.house.database.pools().await;
    let table: String = sqlx::query_scalar(
        "select 'read.' || quote_ident(relname) from pg_class where relname like 'photos%' \
         and relkind = 'r' order by relname desc limit 1",
    )
    .fetch_one(&pools.owner)
    .await
    .unwrap();
    punchtrail_api::upkeep::look(&door.house.app).await.unwrap();
    assert!(door.house.app.photos.has(&Digest::of(&picture)).await.unwrap(), "90 days aren't over");
    let aged = format!("update {table} set received_at = now() - interval '91 days'");
    sqlx::query(&aged).execute(&pools.owner).await.unwrap();
    punchtrail_api::upkeep::look(&door.house.app).await.unwrap();
    assert!(!door.house.app.photos.has(&Digest::of(&picture)).await.unwrap());
    let told = door.told(punch).await;
    assert!(told.contains("because the site keeps pictures no longer"), "{told}");

    let reference = Digest::of(&door.faces.picture("person_a_2"));
    let left = json!({ "at": "2026-01-02T08:00:00.000Z" });
    let path = format!("/v1/employees/{}/departure", door.employee);
    assert_eq!(door.house.write(&path, &left).await.status, StatusCode::OK);
    eventually("what is kept of who left to be gone", PATIENCE, async || {
        punchtrail_api::upkeep::look(&door.house.app)
            .await
            .map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        let there = door.house.app.photos.has(&reference).await?;
        Ok((!there).then_some(()))
    })
    .await
    .unwrap();
    pools.close().await;
    door.house.close().await;
}
