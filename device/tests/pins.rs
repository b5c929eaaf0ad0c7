//! Guessing PINs: no command, clock, boot or crowd of processes gets more guesses than the bound.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod door;

use punchtrail_device::{Device, Pin, Press, PunchError, pin::GUESS_WINDOW_MS};
use punchtrail_protocol::capture::PunchKind;
use punchtrail_stand_in::{CODE, StandIn};

use self::door::{DAY_MS, Door, options};

async fn guess(device: &Device, pin: &str) -> Option<PunchError> {
    let press = Press {
        badge: "1001".to_owned(),
        kind: PunchKind::In,
        pin: Some(Pin::typed(pin)),
        photo: None,
    };
    device.punch(press).await.err()
}

impl Door {
    async fn is_throttled(&self) -> bool {
        matches!(guess(&self.device, "4711").await, Some(PunchError::PinThrottled))
    }

    async fn exhausted(server: &StandIn) -> Self {
        let door = Self::enrolled(server).await;
        for _ in 0..5 {
            assert!(matches!(guess(&door.device, "0000").await, Some(PunchError::WrongPin)));
        }
        assert!(door.is_throttled().await);
        door
    }
}

#[tokio::test]
async fn a_claimed_boot_or_a_set_clock_gives_no_more_guesses() {
    let server = StandIn::start().await;
    let door = Door::exhausted(&server).await;
    for off_ms in [0, DAY_MS, -DAY_MS, 400 * DAY_MS] {
        door.clocks.set_ms(off_ms);
        assert!(door.is_throttled().await, "a clock set by {off_ms} ms");
    }
    for _ in 0..5 {
        // `--boot` claims another boot; the uptime is the machine's, and long.
        door.clocks.reboot_ms(0);
        door.clocks.pass_ms(20 * GUESS_WINDOW_MS as i64);
        assert!(door.is_throttled().await);
        door.clocks.pass_ms(GUESS_WINDOW_MS as i64 / 2);
    }
    // Uptime alone ends it.
    door.clocks.pass_ms(GUESS_WINDOW_MS as i64 / 2);
    assert!(guess(&door.device, "4711").await.is_none());
}

#[tokio::test]
async fn a_new_enrolment_gives_no_more_guesses() {
    let server = StandIn::start().await;
    let door = Door::exhausted(&server).await;
    let agent = door.device.lock_agent().unwrap();
    door.device.enroll(&agent, &server.url, CODE, "Gate again").await.unwrap();
    drop(agent);
    assert!(door.sync().await.complete);
    assert!(door.is_throttled().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_get_no_more_guesses_and_one_that_is_killed_has_guessed() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    // Given up in the middle, as by kill -9, wherever that is.
    for polls in 1..4 {
        let mut pressed = Box::pin(guess(&door.device, "0000"));
        for _ in 0..polls {
            let _ = futures::poll!(&mut pressed);
            tokio::task::yield_now().await;
        }
    }
    let (dir, clocks) = (door.dir.path().join("d"), door.clocks.clone());
    let guesses = (0..24).map(|n| {
        let (dir, clocks) = (dir.clone(), clocks.clone());
        tokio::spawn(async move {
            let hand = Device::open(dir, options(&clocks)).await.unwrap();
            let refused = guess(&hand, &format!("{n:04}")).await;
            hand.close().await;
            matches!(refused, Some(PunchError::WrongPin))
        })
    });
    let looked = futures::future::join_all(guesses).await;
    let looked = looked.into_iter().filter(|looked| *looked.as_ref().unwrap()).count();
    assert!(looked <= 5, "{looked} looks");
    assert!(door.is_throttled().await);
}
