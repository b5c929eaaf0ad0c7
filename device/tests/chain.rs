//! The capture chain, whatever happens: no number twice, none left out, each naming the one before.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

use ed25519_dalek::SigningKey;
use proptest::{prelude::*, test_runner::TestRunner};
use punchtrail_device::{
    Device, Options, Press, PunchError,
    store::{
        identity::{self, Identity},
        outbox::{self, AckedAt},
    },
};
use punchtrail_protocol::{
    Digest, Time,
    capture::{Capture, PunchKind},
    signing::{CAPTURE_TYPE, PublicKey, Signature},
    wire::ItemStatus,
};
use uuid::Uuid;
use zeroize::Zeroizing;

/// What happens at the door.
#[derive(Debug, Clone)]
enum Happening {
    /// So many workers press at once, each in a process of its own as far as SQLite can tell.
    Press { at_once: usize, photo: bool },
    /// A press finds the disk full.
    DiskFull,
    /// A press is given up halfway, as by kill -9: its transaction is never committed.
    GivenUp,
    /// The device starts anew.
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (1usize..4, any::<bool>())
            .prop_map(|(at_once, photo)| Happening::Press { at_once, photo }),
        1 => Just(Happening::DiskFull),
        1 => Just(Happening::GivenUp),
        1 => Just(Happening::Restart),
    ]
}

fn press(photo: Option<Vec<u8>>) -> Press {
    Press {
        badge: "1001".to_owned(),
        kind: PunchKind::In,
        pin: None,
        photo: photo.map(Zeroizing::new),
    }
}

async fn enrolled(dir: &std::path::Path) -> (Device, Identity) {
    let device = Device::create(dir, Options::default()).await.unwrap();
    let mut identity = Identity {
        id: 0,
        device: Uuid::new_v4().into(),
        org: Uuid::new_v4().into(),
        site: Uuid::new_v4().into(),
        server: "http://127.0.0.1:9".to_owned(),
        name: "Gate".to_owned(),
        token: Zeroizing::new("ptd_x".to_owned()),
        key: SigningKey::from_bytes(&[7; 32]),
        seq: 0,
        head: Digest::ZERO,
        ended: false,
        unreadable: None,
        certificate: None,
    };
    let mut write = device.store().write().await.unwrap();
    identity.id = identity::add(&mut write, &identity, Time::from_millis(0)).await.unwrap();
    write.commit().await.unwrap();
    (device, identity)
}

/// A second connection whose database may not grow at all.
async fn with_full_disk(dir: &std::path::Path) -> Device {
    Device::open(dir, Options { pages_max: Some(1), ..Options::default() }).await.unwrap()
}

/// Checks the chain from its first link to the head; gives its length.
async fn check_chain(device: &Device, identity: &Identity) -> u64 {
    let mut db = device.store().read().await.unwrap();
    let held = outbox::held(&mut db, identity.id).await.unwrap();
    let head = identity::by_id(&mut db, identity.id).await.unwrap().unwrap();
    let key = PublicKey::from(&identity.key);
    let mut prev = Digest::ZERO;
    for (number, kept) in (1..).zip(&held) {
        let capture = Capture::parse(&kept.bytes).unwrap();
        assert_eq!((kept.seq, capture.seq, capture.prev), (number, number, prev));
        let signature = Signature(kept.signature.clone().try_into().unwrap());
        key.verify(CAPTURE_TYPE, &kept.bytes, &signature).unwrap();
        if let Some(photo) = capture.photo {
            let bytes = std::fs::read(device.folder().photo(photo)).unwrap();
            assert_eq!(Digest::of(&bytes), photo);
        }
        prev = kept.digest;
    }
    assert_eq!((head.seq, head.head), (held.len() as u64, prev));
    head.seq
}

async fn happen(happening: Happening, device: &mut Device, dir: &std::path::Path) -> u64 {
    match happening {
        Happening::Press { at_once, photo } => {
            let presses = (0..at_once).map(|n| {
                let photo = photo.then(|| vec![0xff, 0xd8, 0xff, n as u8]);
                let dir = dir.to_owned();
                async move {
                    let hand = Device::open(dir, Options::default()).await.unwrap();
                    hand.punch(press(photo)).await.unwrap();
                    hand.close().await;
                }
            });
            futures::future::join_all(presses).await;
            at_once as u64
        }
        Happening::DiskFull => {
            let full = with_full_disk(dir).await;
            // Room within a page may be left for one or two.
            let mut kept = 0;
            loop {
                match full.punch(press(None)).await {
                    Ok(_) => kept += 1,
                    Err(error) => {
                        assert!(matches!(error, PunchError::DiskFull), "{error}");
                        full.close().await;
                        return kept;
                    }
                }
            }
        }
        Happening::GivenUp => {
            let write = device.store().write().await.unwrap();
            let hand = Device::open(dir, Options::default()).await.unwrap();
            let photo = Some(vec![0xff, 0xd8, 0xff, 0xee]);
            let mut pressed = Box::pin(hand.punch(press(photo)));
            assert!(futures::poll!(&mut pressed).is_pending());
            drop(pressed);
            write.rollback().await.unwrap();
            0
        }
        Happening::Restart => {
            device.close().await;
            *device = Device::open(dir, Options::default()).await.unwrap();
            let agent = device.lock_agent().unwrap();
            device.sweep_photos(&agent).await.unwrap();
            0
        }
    }
}

#[test]
fn the_chain_goes_on_whatever_happens() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig { cases: 24, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&proptest::collection::vec(happening(), 1..10), |happenings| {
            runtime.block_on(async {
                let dir = tempfile::tempdir().unwrap();
                let folder = dir.path().join("d");
                let (mut device, identity) = enrolled(&folder).await;
                let mut punched = 0;
                for happening in happenings {
                    punched += happen(happening, &mut device, &folder).await;
                    assert_eq!(check_chain(&device, &identity).await, punched);
                }
                Ok(())
            })
        })
        .unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_the_punch_and_keeps_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("d");
    let (device, identity) = enrolled(&folder).await;
    device.punch(press(None)).await.unwrap();
    let full = with_full_disk(&folder).await;
    let mut number = 0u8;
    let refusal = loop {
        number += 1;
        assert!(number < 100, "a page doesn't hold a hundred captures");
        if let Err(error) = full.punch(press(Some(vec![0xff, 0xd8, 0xff, number]))).await {
            break error;
        }
    };
    assert!(matches!(refusal, PunchError::DiskFull), "{refusal}");
    let said = refusal.to_string();
    for part in
        ["NOT RECORDED", "disk is full", "Nothing of this punch was kept", "Punch on another"]
    {
        assert!(said.contains(part), "{said}");
    }
    let before = check_chain(&device, &identity).await;
    assert_eq!(device.punch(press(None)).await.unwrap().seq, before + 1, "the number wasn't used");
    check_chain(&device, &identity).await;
    full.close().await;
}

#[tokio::test]
async fn a_photo_that_cannot_be_kept_refuses_the_punch() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("d");
    let (device, identity) = enrolled(&folder).await;
    std::fs::remove_dir(folder.join("photos")).unwrap();
    let refusal = device.punch(press(Some(vec![0xff, 0xd8, 0xff, 1]))).await.unwrap_err();
    assert!(matches!(refusal, PunchError::Store(_)), "{refusal}");
    assert_eq!(check_chain(&device, &identity).await, 0);
}

#[tokio::test]
async fn an_answer_settles_each_capture_by_its_own_status() {
    let dir = tempfile::tempdir().unwrap();
    let (device, identity) = enrolled(dir.path()).await;
    for _ in 0..7 {
        device.punch(press(None)).await.unwrap();
    }
    let answered = |seq, status, code: Option<&str>| outbox::Acknowledgement {
        seq,
        status,
        code: code.map(str::to_owned),
    };
    let answers = [
        answered(1, ItemStatus::Applied, None),
        answered(2, ItemStatus::Applied, None),
        answered(3, ItemStatus::Quarantined, Some("too_large")),
        answered(4, ItemStatus::Quarantined, Some("bad_capture")),
        answered(6, ItemStatus::Applied, None),
        answered(7, ItemStatus::Duplicate, None),
    ];
    let mut write = device.store().write().await.unwrap();
    let server = Time::from_millis(1_790_000_000_000);
    let at = AckedAt { server, passed_ms: 0, ledger: Some(9) };
    outbox::acknowledge(&mut write, identity.id, &answers, at).await.unwrap();
    write.commit().await.unwrap();
    let rows: Vec<(i64, Option<String>, Option<String>)> =
        sqlx::query_as("SELECT seq, status, code FROM capture ORDER BY seq")
            .fetch_all(&mut *device.store().read().await.unwrap())
            .await
            .unwrap();
    let rows: Vec<_> = rows.iter().map(|(n, s, c)| (*n, s.as_deref(), c.as_deref())).collect();
    let expected = [
        (1, Some("applied"), None),
        (2, Some("applied"), None),
        (3, Some("quarantined"), Some("too_large")),
        (4, Some("quarantined"), Some("bad_capture")),
        (5, None, None),
        (6, Some("applied"), None),
        (7, Some("duplicate"), None),
    ];
    assert_eq!(rows, expected);
}
