//! The real SDK against a Rekognition on loopback: each answer, each error, each way to give none.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{io::Cursor, num::NonZeroU32, sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use futures::future::join_all;
use image::{ImageFormat, Rgb, RgbImage};
use punchtrail_domain::punch::{Comparison, Floors, Miss, Missing, Provider, Quality};
use punchtrail_infra::identity::{
    Answer, Asked, Checker, Checkers, FAILURES_MAX, References, Rekognition, RekognitionError,
    RekognitionOptions, Thresholds, Timeouts, ToReview, Unavailable,
};
use punchtrail_infra::testing::photos::HeldPhotos;
use punchtrail_protocol::{Digest, guidance::Guidance};
use punchtrail_rekognition_stand_in::{
    ACCESS_KEY, Action, Face, Fault, REGION, SECRET_KEY, StandIn,
};

/// Long enough never to be met by an answer that comes.
const LONG: Duration = Duration::from_secs(60);
/// Short enough to be waited for where none does.
const SHORT: Duration = Duration::from_millis(200);
const ACTIONS: [Action; 2] = [Action::DetectFaces, Action::CompareFaces];
/// How often the SDK tries a call.
const TRIES: usize = 3;

const FLOORS: Floors =
    Floors { brightness_min: 30, brightness_max: 95, sharpness_min: 20, face_px_min: 100 };

fn options(timeout: Duration) -> RekognitionOptions {
    RekognitionOptions {
        region: None,
        calls_per_second: NonZeroU32::new(1_000).unwrap(),
        timeouts: Timeouts { connect: LONG, attempt: timeout, operation: LONG },
    }
}

fn config(endpoint: &str, region: &str, secret: &str) -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY, secret, None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(region.to_owned()))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

#[derive(Debug)]
struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("there are none")))
    }
}

/// A picture of 640 by 480 in one grey, so that each is another.
fn picture(grey: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let picture = RgbImage::from_pixel(640, 480, Rgb([grey; 3]));
    picture.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

/// A Rekognition with one person's two reference photos, and who asks it.
struct Desk {
    stand_in: StandIn,
    rekognition: Rekognition,
    picture: Vec<u8>,
    references: [Vec<u8>; 2],
    held: HeldPhotos,
    photos: [Digest; 2],
}

impl Desk {
    async fn open() -> Self {
        Self::with_timeout(LONG).await
    }

    async fn with_timeout(timeout: Duration) -> Self {
        let stand_in = StandIn::start().await;
        let config = config(stand_in.endpoint(), REGION, SECRET_KEY);
        let rekognition = Rekognition::with(&config, &options(timeout)).unwrap();
        let (held, references) = (HeldPhotos::default(), [picture(10), picture(20)]);
        let photos = [held.put(&references[0]), held.put(&references[1])];
        Self { stand_in, rekognition, picture: picture(30), references, held, photos }
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            picture: &self.picture,
            references: References { photos: &self.photos, store: &self.held },
            floors: FLOORS,
            thresholds: Thresholds { rekognition: 9_900, local: 0 },
            covered_head: false,
        }
    }

    async fn check(&self) -> Answer {
        self.rekognition.check(&self.asked()).await
    }

    async fn unavailable(&self) -> Unavailable {
        match self.check().await {
            Answer::Unavailable(unavailable) => unavailable,
            found => panic!("found {found:?}"),
        }
    }

    /// The miss of this picture where nothing was compared.
    async fn miss(&self) -> (Miss, Vec<Guidance>) {
        match self.check().await {
            Answer::Miss { failing, comparison: None, .. } => (failing.miss, failing.guidance),
            found => panic!("found {found:?}"),
        }
    }

    fn alike(&self, reference: usize, percent: f32) -> &Self {
        self.stand_in.similarity(&self.references[reference], &self.picture, percent);
        self
    }

    fn compared(&self) -> usize {
        self.stand_in.calls(Action::CompareFaces)
    }
}

#[tokio::test]
async fn a_picture_like_the_newest_reference_is_a_match_by_two_calls() {
    let desk = Desk::open().await;
    desk.alike(0, 99.12);
    let quality = Some(Quality { brightness: 70, sharpness: 80, face_px: 192 });
    let reference = desk.photos[0];
    let comparison = Comparison { reference, similarity: 9_912, threshold: 9_900 };
    assert_eq!(desk.check().await, Answer::Match { quality, comparison });
    assert_eq!((desk.stand_in.calls(Action::DetectFaces), desk.compared()), (1, 1));
    assert_eq!(desk.rekognition.provider(), Provider::Rekognition);
    assert!(desk.rekognition.model().len() <= 64);
}

#[tokio::test]
async fn the_second_reference_may_be_the_one_that_is_like_it() {
    let desk = Desk::open().await;
    desk.alike(0, 42.0).alike(1, 99.0);
    let Answer::Match { comparison, .. } = desk.check().await else { panic!("no match") };
    assert_eq!(comparison.reference, desk.photos[1]);
    assert_eq!(comparison.similarity, 9_900, "on the threshold is a match");
}

#[tokio::test]
async fn a_good_picture_of_somebody_else_is_told_with_the_closest_it_came() {
    let desk = Desk::open().await;
    desk.alike(0, 98.99).alike(1, 3.5);
    let Answer::Miss { failing, comparison, quality } = desk.check().await else {
        panic!("no miss")
    };
    assert_eq!(failing.miss, Miss::Mismatch);
    assert_eq!(failing.guidance, [Guidance::ManagerWillLook]);
    assert!(quality.is_some());
    let reference = desk.photos[0];
    let closest = Comparison { reference, similarity: 9_899, threshold: 9_900 };
    assert_eq!(comparison, Some(closest));
}

#[tokio::test]
async fn who_stands_behind_is_not_who_punches() {
    let desk = Desk::open().await;
    // The stand-in takes whoever is largest for the person, and anybody else for somebody else.
    let behind = Face { size: (0.1, 0.15), ..Face::default() };
    desk.stand_in.faces(&desk.picture, [behind, Face::default()]);
    desk.alike(0, 1.0).alike(1, 2.0);
    let Answer::Miss { comparison, .. } = desk.check().await else { panic!("no miss") };
    assert_eq!(comparison.unwrap().similarity, 200, "not the 12 % of the other");
}

#[tokio::test]
async fn each_picture_that_cannot_be_compared_has_its_guidance_and_is_not_compared() {
    let good = Face::default();
    let cases = [
        (vec![], Miss::NoFace, Guidance::LookAtCamera),
        (vec![good, good], Miss::SeveralFaces, Guidance::OnePerson),
        (vec![Face { size: (0.1, 0.1), ..good }], Miss::Unclear, Guidance::ComeCloser),
        (vec![Face { brightness: 12.0, ..good }], Miss::Unclear, Guidance::MoreLight),
        (vec![Face { brightness: 99.0, ..good }], Miss::Unclear, Guidance::LightBehind),
        (vec![Face { sharpness: 4.0, ..good }], Miss::Unclear, Guidance::HoldStill),
        (vec![Face { sunglasses: true, ..good }], Miss::Unclear, Guidance::TakeOffCapOrGlasses),
        (vec![Face { occluded: true, ..good }], Miss::Unclear, Guidance::UncoverFace),
        (vec![Face { yaw_deg: 60.0, ..good }], Miss::Unclear, Guidance::LookAtCamera),
        (vec![Face { pitch_deg: -60.0, ..good }], Miss::Unclear, Guidance::LookAtCamera),
        (vec![Face { eyes_open: false, ..good }], Miss::Unclear, Guidance::LookAtCamera),
    ];
    let desk = Desk::open().await;
    for (faces, miss, guidance) in cases {
        desk.stand_in.faces(&desk.picture, faces.clone());
        assert_eq!(desk.miss().await, (miss, vec![guidance]), "{faces:?}");
    }
    assert_eq!(desk.compared(), 0);
}

#[tokio::test]
async fn what_is_no_picture_is_unreadable_and_sent_nowhere() {
    let mut desk = Desk::open().await;
    desk.picture = b"not a picture".to_vec();
    assert_eq!(desk.miss().await, (Miss::Unreadable, vec![]));
    assert_eq!(desk.stand_in.calls(Action::DetectFaces), 0);
}

#[tokio::test]
async fn a_picture_that_rekognition_cannot_read_is_unreadable_and_asked_about_once() {
    let desk = Desk::open().await;
    let errors =
        ["ImageTooLargeException", "InvalidImageFormatException", "InvalidParameterException"];
    for (count, error) in errors.into_iter().enumerate() {
        desk.stand_in.next(Action::DetectFaces, [Fault::Error(400, error)]);
        assert_eq!(desk.miss().await, (Miss::Unreadable, vec![]), "{error}");
        assert_eq!(desk.stand_in.calls(Action::DetectFaces), count + 1, "{error}");
    }
}

#[tokio::test]
async fn a_reference_that_cannot_be_compared_with_is_passed_over() {
    let desk = Desk::open().await;
    desk.stand_in.faces(&desk.references[0], []);
    desk.alike(1, 99.9);
    assert!(matches!(desk.check().await, Answer::Match { .. }));
    desk.stand_in.faces(&desk.references[1], []);
    let unavailable = desk.unavailable().await;
    assert_eq!((unavailable.missing, unavailable.passes), (Missing::NothingToCompare, false));
}

/// Errors in the API's words, what they lead to, and how often the call is tried.
const ERRORS: [(u16, &str, Missing, bool, usize); 9] = [
    (400, "AccessDeniedException", Missing::Refused, true, 1),
    (400, "ExpiredTokenException", Missing::Refused, true, 1),
    (400, "InvalidS3ObjectException", Missing::Refused, false, 1),
    (400, "SomethingNew", Missing::Refused, true, 1),
    (500, "InternalServerError", Missing::Unreachable, true, TRIES),
    (503, "ServiceUnavailableException", Missing::Unreachable, true, TRIES),
    (400, "ProvisionedThroughputExceededException", Missing::Throttled, true, TRIES),
    (400, "ThrottlingException", Missing::Throttled, true, TRIES),
    (429, "TooManyRequestsException", Missing::Throttled, true, TRIES),
];

#[tokio::test]
async fn each_error_leads_where_the_table_says_for_both_actions() {
    let cases = ACTIONS.into_iter().flat_map(|action| ERRORS.map(|error| (action, error)));
    let cases = cases.map(async |(action, (status, error, missing, passes, tries))| {
        let desk = Desk::open().await;
        desk.stand_in.always(action, Fault::Error(status, error));
        let unavailable = desk.unavailable().await;
        let Unavailable { why, .. } = &unavailable;
        assert_eq!((unavailable.missing, unavailable.passes), (missing, passes), "{error}");
        assert!(why.contains(error), "{why}");
        assert_eq!(desk.stand_in.calls(action), tries, "{error}");
    });
    join_all(cases).await;
}

#[tokio::test]
async fn each_try_that_was_throttled_slows_that_action_alone() {
    let desk = Desk::open().await;
    let whole = desk.rekognition.rates();
    let throttled = Fault::Error(400, "ProvisionedThroughputExceededException");
    desk.alike(0, 99.9).stand_in.next(Action::CompareFaces, [throttled]);
    assert!(matches!(desk.check().await, Answer::Match { .. }), "the second try had an answer");
    let slowed = desk.rekognition.rates();
    assert_eq!(slowed.detect_faces, whole.detect_faces);
    assert!(slowed.compare_faces < whole.compare_faces, "{slowed:?}");
}

#[tokio::test]
async fn what_is_no_answer_of_rekognition_is_never_a_miss() {
    let faults = [
        Fault::Page(500),
        Fault::Page(502),
        Fault::Page(400),
        Fault::Malformed,
        Fault::Hollow,
        Fault::CutMidBody,
    ];
    let cases = ACTIONS.into_iter().flat_map(|action| faults.iter().map(move |it| (action, it)));
    let cases = cases.map(async |(action, fault)| {
        let desk = Desk::open().await;
        desk.stand_in.always(action, fault.clone());
        let unavailable = desk.unavailable().await;
        assert_eq!(unavailable.missing, Missing::Unreachable, "{fault:?}");
        assert!(unavailable.passes, "{fault:?}");
        assert!(!unavailable.why.contains("gateway"), "{}", unavailable.why);
    });
    join_all(cases).await;
}

#[tokio::test]
async fn one_that_never_answers_is_given_up_and_tried_again() {
    let desk = Desk::with_timeout(SHORT).await;
    desk.stand_in.always(Action::DetectFaces, Fault::Silent);
    let unavailable = desk.unavailable().await;
    assert_eq!((unavailable.missing, unavailable.passes), (Missing::Unreachable, true));
    assert_eq!(desk.stand_in.calls(Action::DetectFaces), TRIES);
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable() {
    let gone = StandIn::start().await;
    let config = config(gone.endpoint(), REGION, SECRET_KEY);
    let mut desk = Desk::open().await;
    desk.rekognition = Rekognition::with(&config, &options(LONG)).unwrap();
    drop(gone);
    let unavailable = desk.unavailable().await;
    assert_eq!((unavailable.missing, unavailable.passes), (Missing::Unreachable, true));
}

#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let desk = Desk::open().await;
    desk.alike(0, 99.9).stand_in.always(Action::CompareFaces, Fault::Held);
    let (answer, ()) = tokio::join!(desk.check(), async { desk.stand_in.release(1) });
    assert!(matches!(answer, Answer::Match { .. }));
}

#[tokio::test]
async fn what_fails_once_is_tried_again_unseen() {
    let faults = [
        Fault::Error(400, "ThrottlingException"),
        Fault::Error(500, "InternalServerError"),
        Fault::Page(503),
        Fault::CutMidBody,
    ];
    join_all(faults.into_iter().map(async |fault| {
        let desk = Desk::open().await;
        desk.alike(0, 99.9).stand_in.next(Action::DetectFaces, [fault.clone()]);
        assert!(matches!(desk.check().await, Answer::Match { .. }), "{fault:?}");
        assert_eq!(desk.stand_in.calls(Action::DetectFaces), 2, "{fault:?}");
    }))
    .await;
}

#[tokio::test]
async fn a_wrong_key_or_region_is_refused_by_its_signature() {
    let mut desk = Desk::open().await;
    for (region, secret) in [(REGION, "wrong"), ("us-east-1", SECRET_KEY)] {
        let config = config(desk.stand_in.endpoint(), region, secret);
        desk.rekognition = Rekognition::with(&config, &options(LONG)).unwrap();
        let unavailable = desk.unavailable().await;
        assert_eq!((unavailable.missing, unavailable.passes), (Missing::Refused, true));
        assert!(unavailable.why.contains("InvalidSignatureException"), "{}", unavailable.why);
    }
}

#[tokio::test]
async fn without_credentials_an_operator_has_to_mend_it() {
    let mut desk = Desk::open().await;
    let nobody = config(desk.stand_in.endpoint(), REGION, SECRET_KEY)
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(NoCredentials))
        .build();
    desk.rekognition = Rekognition::with(&nobody, &options(LONG)).unwrap();
    let unavailable = desk.unavailable().await;
    assert_eq!((unavailable.missing, unavailable.passes), (Missing::Refused, true));
    assert_eq!(desk.stand_in.calls(Action::DetectFaces), 0);
}

/// Asks by what the environment says, in a process of its own: this test again, as its own child.
#[tokio::test]
async fn region_endpoint_and_credentials_are_found_in_the_environment() {
    let this = "region_endpoint_and_credentials_are_found_in_the_environment";
    if std::env::var("AWS_ACCESS_KEY_ID").is_ok_and(|key| key == ACCESS_KEY) {
        let mut desk = Desk::open().await;
        desk.rekognition = Rekognition::connect(RekognitionOptions::default()).await.unwrap();
        assert!(matches!(desk.check().await, Answer::Miss { failing, .. }
            if failing.miss == Miss::Mismatch));
        assert_eq!(desk.stand_in.calls(Action::DetectFaces), 0, "another was asked");
        return;
    }
    let stand_in = StandIn::start().await;
    let ran = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this])
        .env_clear()
        .envs(stand_in.environment())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    assert_eq!(stand_in.calls(Action::DetectFaces), 1);
}

#[tokio::test]
async fn options_out_of_range_are_refused_at_once() {
    let nowhere = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build();
    let refused = Rekognition::with(&nowhere, &options(LONG)).unwrap_err();
    assert_eq!(refused, RekognitionError::NoRegion);
    let region = Some(REGION.to_owned());
    let calls_per_second = NonZeroU32::new(1_001).unwrap();
    let greedy = RekognitionOptions { region, calls_per_second, ..options(LONG) };
    let refused = Rekognition::with(&nowhere, &greedy).unwrap_err();
    assert_eq!(refused, RekognitionError::TooManyCalls);
}

#[tokio::test]
async fn many_at_once_are_a_queue_and_not_a_storm() {
    const RATE: u32 = 20;
    let mut desk = Desk::open().await;
    let config = config(desk.stand_in.endpoint(), REGION, SECRET_KEY);
    let calls_per_second = NonZeroU32::new(RATE).unwrap();
    let slow = RekognitionOptions { calls_per_second, ..options(LONG) };
    desk.rekognition = Rekognition::with(&config, &slow).unwrap();
    desk.alike(0, 99.9);
    let checks = (0..2 * RATE).map(|_| desk.check());
    let answers = join_all(checks).await;
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Match { .. })));
    for action in ACTIONS {
        assert_eq!(desk.stand_in.calls(action), 2 * RATE as usize);
    }
}

#[tokio::test]
async fn one_that_is_down_is_not_asked_about_each_picture() {
    let Desk { stand_in, rekognition, picture, held, photos, .. } = Desk::open().await;
    stand_in.always(Action::DetectFaces, Fault::Error(400, "AccessDeniedException"));
    let checkers = Checkers::new(vec![Arc::new(rekognition), Arc::new(ToReview)]).unwrap();
    let asked = Asked {
        picture: &picture,
        references: References { photos: &photos, store: &held },
        floors: FLOORS,
        thresholds: Thresholds { rekognition: 9_900, local: 0 },
        covered_head: false,
    };
    for _ in 0..3 * FAILURES_MAX {
        let checked = checkers.check(&asked).await;
        assert_eq!(checked.provider, Provider::Review);
        assert_eq!(checked.before[0].unavailable.missing, Missing::Refused);
    }
    assert!(stand_in.calls(Action::DetectFaces) < 2 * FAILURES_MAX as usize);
}
