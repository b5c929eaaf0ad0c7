//! Work whose answer is kept with it: written together, refused together, told to whoever did it.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use punchtrail_domain::employee::{DirectoryField, Employee, EmployeeCommand};
use punchtrail_infra::{
    idempotency::{Claim, KeptAnswer, Standing},
    ledger::{AppendError, ExecuteError, Ledger, Metadata, Once, SideWrite, Unsettled, beside},
    postgres::Pools,
    testing::{TestDatabase, sqlx},
};
use punchtrail_protocol::{Digest, EmployeeId, Position, SiteId};
use uuid::Uuid;

struct Scene {
    database: TestDatabase,
    pools: Pools,
    ledger: Ledger,
}

impl Scene {
    async fn new() -> Self {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let ledger = Ledger::open(pools.writer.clone()).await.unwrap();
        Self { database, pools, ledger }
    }

    async fn head(&self) -> u64 {
        self.ledger.head().await.unwrap().0
    }

    async fn register(
        &self,
        employee: EmployeeId,
        side: impl Fn() -> Option<SideWrite>,
    ) -> Result<Position, AppendError> {
        let fields = vec![DirectoryField::Name];
        let register = EmployeeCommand::Register { site: SiteId(Uuid::nil()), fields };
        let (id, metadata) = (employee.to_string(), Metadata::default());
        match self.ledger.execute_with::<Employee>(&id, register, &metadata, side).await {
            Ok(done) => Ok(done.position),
            Err(ExecuteError::Append(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    async fn close(self) {
        self.ledger.close().await;
        self.pools.close().await;
        self.database.close().await;
    }
}

fn claim(key: &str) -> Claim {
    Claim {
        caller: "key:test".to_owned(),
        key: Digest::of(key.as_bytes()),
        fingerprint: Digest::of(b"what is asked"),
        request: "r1".to_owned(),
    }
}

fn answer(text: &str) -> KeptAnswer {
    let body = Some(text.as_bytes().to_vec());
    KeptAnswer { status: 200, content_type: Some("application/json".to_owned()), body }
}

fn somebody() -> EmployeeId {
    EmployeeId(Uuid::now_v7())
}

fn refusing() -> SideWrite {
    SideWrite::new(|_| Box::pin(async { Err(sqlx::Error::RowNotFound) }))
}

#[tokio::test]
async fn nothing_is_there_until_all_is_and_positions_are_put_in_place() {
    let scene = Scene::new().await;
    let before = scene.head().await;
    let once = Once::default();
    let people = [somebody(), somebody()];
    let positions = once
        .scope(async {
            let first = scene.register(people[0], || None).await.unwrap();
            [first, scene.register(people[1], || None).await.unwrap()]
        })
        .await;
    assert_eq!(scene.head().await, before);
    let text = format!("[{},{}]", positions[0].0, positions[1].0);
    let (claim, places) = (claim("a"), once.places());
    let at = scene.ledger.settle(&once, claim.keeping(answer(&text), places)).await.unwrap();
    let after = scene.head().await;
    assert_eq!(at.0 + places.events() - 1, after);
    let expected = format!("[{},{after}]", before + places.events() / 2);
    assert_eq!(places.put(text.as_bytes(), at), expected.as_bytes());
    match claim.begin(&scene.pools.writer).await.unwrap() {
        Standing::Answered(kept) => assert_eq!(kept, answer(&expected)),
        other => panic!("{other:?}"),
    }
    scene.close().await;
}

#[tokio::test]
async fn one_answer_is_kept_and_the_work_of_the_other_is_not_done() {
    let scene = Scene::new().await;
    let (claim, person) = (claim("a"), somebody());
    for expected in [true, false] {
        let (once, head) = (Once::default(), scene.head().await);
        let other = somebody();
        let who = if expected { person } else { other };
        once.scope(scene.register(who, || None)).await.unwrap();
        let settled = scene.ledger.settle(&once, claim.keeping(answer("{}"), once.places())).await;
        match expected {
            true => assert!(settled.is_ok(), "{settled:?}"),
            false => {
                assert!(matches!(settled, Err(Unsettled::Taken)), "{settled:?}");
                assert_eq!(scene.head().await, head);
            }
        }
    }
    // The same with nothing but rows beside the ledger.
    let once = Once::default();
    let written = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&written);
    let row = SideWrite::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    });
    once.scope(beside(&scene.pools.writer, row)).await.unwrap();
    let settled = scene.ledger.settle(&once, claim.keeping(answer("{}"), once.places())).await;
    assert!(matches!(settled, Err(Unsettled::Taken)), "{settled:?}");
    assert_eq!(written.load(Ordering::Relaxed), 0);
    scene.close().await;
}

#[tokio::test]
async fn what_is_refused_is_told_to_whoever_wrote_it() {
    let scene = Scene::new().await;
    let (once, head, claim) = (Once::default(), scene.head().await, claim("a"));
    let people = [somebody(), somebody()];
    once.scope(async {
        scene.register(people[0], || None).await.unwrap();
        scene.register(people[1], || Some(refusing())).await.unwrap();
    })
    .await;
    let keep = claim.keeping(answer("{}"), once.places());
    let Err(Unsettled::Failed(at, error)) = scene.ledger.settle(&once, keep).await else {
        panic!("it was taken");
    };
    assert_eq!((at, scene.head().await), (1, head));
    let once = Once::failing(Some((at, error)));
    let told = once
        .scope(async {
            scene.register(people[0], || None).await.unwrap();
            scene.register(people[1], || Some(refusing())).await
        })
        .await;
    assert!(matches!(told, Err(AppendError::Side(sqlx::Error::RowNotFound))), "{told:?}");
    // What was held before it is written with the answer.
    let keep = claim.keeping(answer("{}"), once.places());
    scene.ledger.settle(&once, keep).await.unwrap();
    assert!(scene.head().await > head);
    // Others were first: the work is to be done anew.
    let once = Once::default();
    let late = somebody();
    once.scope(scene.register(late, || None)).await.unwrap();
    scene.register(late, || None).await.unwrap();
    let keep = claim.keeping(answer("{}"), once.places());
    let settled = scene.ledger.settle(&once, keep).await;
    assert!(matches!(settled, Err(Unsettled::Stale)), "{settled:?}");
    // A stream twice, or two authors, can't be one append: said at once.
    let once = Once::default();
    let twice = once
        .scope(async {
            let who = somebody();
            scene.register(who, || None).await.unwrap();
            scene.register(who, || None).await
        })
        .await;
    assert!(matches!(twice, Err(AppendError::Side(sqlx::Error::Protocol(_)))), "{twice:?}");
    scene.close().await;
}

#[tokio::test]
async fn a_key_at_work_is_told_so_and_ends_with_its_own_request() {
    let scene = Scene::new().await;
    let (writer, claim) = (&scene.pools.writer, claim("a"));
    assert!(matches!(claim.begin(writer).await.unwrap(), Standing::Free));
    let other = Claim { request: "r2".to_owned(), ..claim.clone() };
    assert!(matches!(other.begin(writer).await.unwrap(), Standing::InFlight));
    other.end(writer).await.unwrap();
    assert!(matches!(other.begin(writer).await.unwrap(), Standing::InFlight), "not its own");
    let else_asked = Claim { fingerprint: Digest::of(b"else"), ..other.clone() };
    assert!(matches!(else_asked.begin(writer).await.unwrap(), Standing::Reused));
    let elsewhere = Claim { caller: "key:other".to_owned(), ..claim.clone() };
    assert!(matches!(elsewhere.begin(writer).await.unwrap(), Standing::Free));
    claim.end(writer).await.unwrap();
    assert!(matches!(other.begin(writer).await.unwrap(), Standing::Free));
    scene.close().await;
}
