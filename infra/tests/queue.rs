//! The queue of checks: the same cases over Postgres and over SQS, as Moto plays it.
//!
//! Moto is slow, so SQS gets a hundred messages where Postgres gets a thousand. It counts leases in
//! whole seconds, and so do these tests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::{Client, config::Credentials, types::QueueAttributeName};
use futures::{TryFutureExt, future::join_all};
use punchtrail_infra::{
    postgres::{Pool, Pools},
    queue::{
        BATCH_MAX, Depth, Letter, PostgresQueue, PutBack, Queue, QueueError, RECEIVES_MAX, Receipt,
        Sqs, SqsQueue, Taken, measure,
    },
    testing::TestDatabase,
};
use punchtrail_protocol::PunchId;
use punchtrail_testkit::{Moto, PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tokio::net::TcpListener;
use uuid::Uuid;

/// A lease that nobody in these tests outlives.
const LONG: Duration = Duration::from_secs(600);
/// One that runs out while it is waited for.
const SHORT: Duration = Duration::from_secs(1);
/// How long a call may be silent here.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const NO_WAIT: Duration = Duration::ZERO;
const WHY: &str = "the photo is no photo";

/// Where a queue lives.
enum Bench {
    Postgres { database: TestDatabase, pools: Pools, queue: PostgresQueue },
    Sqs { config: SdkConfig, client: Client, url: String },
}

impl Bench {
    async fn postgres() -> Option<Self> {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let queue = PostgresQueue::new(&pools.writer);
        Some(Self::Postgres { database, pools, queue })
    }

    /// A queue of its own; none where there is no Moto.
    async fn sqs() -> Option<Self> {
        let config = config(&moto()?).await;
        let client = Client::new(&config);
        let dead = made(&client, None).await;
        let arn = arn(&client, &dead).await;
        let url = made(&client, Some((&arn, "5"))).await;
        Some(Self::Sqs { config, client, url })
    }

    /// The queue, whose messages are hidden for so long.
    async fn queue(&self, visible_for: Duration) -> Arc<dyn Queue> {
        match self {
            Self::Postgres { queue, .. } => Arc::new(queue.holding_for(visible_for)),
            Self::Sqs { .. } => Arc::new(self.sqs_queue(visible_for).await),
        }
    }

    async fn sqs_queue(&self, visible_for: Duration) -> SqsQueue {
        let Self::Sqs { config, url, .. } = self else { unreachable!() };
        let settings = Sqs { visible_for, answer_max: ANSWER_MAX, ..Sqs::at(url) };
        SqsQueue::open(config, settings).await.unwrap()
    }

    fn many(&self) -> usize {
        match self {
            Self::Postgres { .. } => 1_000,
            Self::Sqs { .. } => 100,
        }
    }

    async fn close(self) {
        if let Self::Postgres { database, pools, queue } = self {
            drop(queue);
            pools.close().await;
            database.close().await;
        }
    }
}

/// One for all tests of this file; it ends with their process. Where there is none each says so.
fn moto() -> Option<String> {
    static MOTO: Mutex<Option<Moto>> = Mutex::new(None);
    let mut moto = MOTO.lock().unwrap_or_else(PoisonError::into_inner);
    if moto.is_none() {
        *moto = Moto::start();
    }
    moto.as_ref().map(Moto::url)
}

async fn config(endpoint: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .load()
        .await
}

/// A new SQS queue, with or without dead letters.
async fn made(client: &Client, dead: Option<(&str, &str)>) -> String {
    let policy = dead.map(|(arn, receives)| {
        format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{receives}}}"#)
    });
    let attributes = policy.map(|policy| [(QueueAttributeName::RedrivePolicy, policy)].into());
    let name = format!("checks-{}", Uuid::new_v4().simple());
    let call = client.create_queue().queue_name(name).set_attributes(attributes);
    call.send().await.unwrap().queue_url.unwrap()
}

async fn arn(client: &Client, url: &str) -> String {
    let name = QueueAttributeName::QueueArn;
    let call = client.get_queue_attributes().queue_url(url).attribute_names(name.clone());
    call.send().await.unwrap().attributes.unwrap().remove(&name).unwrap()
}

fn punches(count: usize) -> Vec<PunchId> {
    (0..count).map(|_| PunchId(Uuid::now_v7())).collect()
}

fn receipts(taken: &[Taken]) -> Vec<Receipt> {
    taken.iter().map(|taken| taken.receipt.clone()).collect()
}

fn sorted(taken: &[Taken]) -> Vec<PunchId> {
    let mut punches: Vec<_> = taken.iter().map(|taken| taken.punch).collect();
    punches.sort();
    punches
}

/// Takes until that many are in hand.
async fn take(queue: &dyn Queue, count: usize) -> Vec<Taken> {
    let mut taken = Vec::new();
    eventually(format!("{count} messages"), PATIENCE, async || {
        let wanted = count - taken.len();
        taken.extend(queue.receive(wanted.min(BATCH_MAX), Duration::from_secs(1)).await?);
        Ok((taken.len() >= count).then_some(()))
    })
    .await
    .unwrap();
    taken
}

async fn take_one(queue: &dyn Queue) -> Taken {
    take(queue, 1).await.remove(0)
}

/// Waits until its depth is as wanted: SQS's may be late.
async fn until(queue: &dyn Queue, what: &str, wanted: impl Fn(&Depth) -> bool) -> Depth {
    eventually(what, PATIENCE, async || Ok(Some(queue.depth().await?).filter(&wanted)))
        .await
        .unwrap()
}

async fn is_empty(queue: &dyn Queue) {
    until(queue, "an empty queue", |depth| depth.waiting + depth.in_hand == 0).await;
    assert_eq!(queue.receive(BATCH_MAX, NO_WAIT).await.unwrap(), []);
}

/// Each case over both.
macro_rules! over_both {
    ($($case:ident)*) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let Some(bench) = super::Bench::postgres().await else { return };
                super::$case(&bench).await;
                bench.close().await;
            })*
        }
        mod sqs {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let Some(bench) = super::Bench::sqs().await else { return };
                super::$case(&bench).await;
                bench.close().await;
            })*
        }
    };
}

over_both! {
    what_is_sent_comes_until_it_is_done
    twice_is_harmless
    what_is_sent_in_hand_comes_once_more_after
    what_its_holder_leaves_comes_again
    what_is_held_on_to_does_not_come_again
    what_is_put_off_comes_later_and_never_dies_of_it
    what_breaks_dies_is_shown_and_comes_back
    what_kills_its_holders_dies
    what_can_never_be_done_dies_at_once
    one_dead_letter_is_put_back_alone
    four_drain_it_and_each_message_is_handled_once
    two_never_hold_the_same
    a_waiting_receiver_is_woken
    nothing_to_do_is_nothing_done
}

async fn what_is_sent_comes_until_it_is_done(bench: &Bench) {
    let queue = bench.queue(LONG).await;
    let sent = punches(12);
    queue.send(&sent).await.unwrap();
    let depth = until(&*queue, "twelve waiting", |depth| depth.waiting == 12).await;
    assert_eq!((depth.in_hand, depth.dead), (0, 0));
    let taken = take(&*queue, 12).await;
    assert_eq!(sorted(&taken), sent);
    assert!(taken.iter().all(|taken| taken.receives == 1 && taken.punch == taken.receipt.punch()));
    let depth = until(&*queue, "twelve in hand", |depth| depth.in_hand == 12).await;
    assert!(depth.waiting == 0 && depth.oldest.is_some(), "{depth:?}");
    queue.done(&receipts(&taken)).await.unwrap();
    is_empty(&*queue).await;
    assert_eq!(measure(&*queue).await.unwrap(), Depth::default());
}

async fn twice_is_harmless(bench: &Bench) {
    let queue = bench.queue(LONG).await;
    let sent = punches(3);
    queue.send(&[sent[0], sent[0], sent[1]]).await.unwrap();
    queue.send(&sent).await.unwrap();
    let mut seen = BTreeMap::<PunchId, u32>::new();
    eventually("all of them", PATIENCE, async || {
        let taken = queue.receive(BATCH_MAX, NO_WAIT).await?;
        for taken in &taken {
            *seen.entry(taken.punch).or_default() += 1;
        }
        queue.done(&receipts(&taken)).await?;
        Ok((taken.is_empty() && seen.len() == 3).then_some(()))
    })
    .await
    .unwrap();
    is_empty(&*queue).await;
    if matches!(bench, Bench::Postgres { .. }) {
        assert!(seen.values().all(|times| *times == 1), "those that waited stayed as they were");
    }
}

async fn what_is_sent_in_hand_comes_once_more_after(bench: &Bench) {
    let queue = bench.queue(LONG).await;
    let sent = punches(1);
    queue.send(&sent).await.unwrap();
    let first = take_one(&*queue).await;
    queue.send(&sent).await.unwrap();
    if matches!(bench, Bench::Postgres { .. }) {
        let more = queue.receive(BATCH_MAX, NO_WAIT).await.unwrap();
        assert_eq!(more, [], "nobody gets it while it is in hand");
    }
    queue.done(&[first.receipt]).await.unwrap();
    let second = take_one(&*queue).await;
    assert_eq!((second.punch, second.receives), (sent[0], 1));
    queue.done(&[second.receipt]).await.unwrap();
    is_empty(&*queue).await;
}

async fn what_its_holder_leaves_comes_again(bench: &Bench) {
    let (short, long) = (bench.queue(SHORT).await, bench.queue(LONG).await);
    let sent = punches(1);
    short.send(&sent).await.unwrap();
    let crashed = take_one(&*short).await;
    let second = take_one(&*long).await;
    assert_eq!((second.punch, second.receives), (sent[0], 2));
    // The first, not dead but slow, says that it is done. It has no say any more.
    short.done(std::slice::from_ref(&crashed.receipt)).await.unwrap();
    if matches!(bench, Bench::Postgres { .. }) {
        assert_eq!(short.extend(&[crashed.receipt]).await.unwrap(), sent);
        assert_eq!(long.depth().await.unwrap().in_hand, 1);
    }
    long.done(&[second.receipt]).await.unwrap();
    is_empty(&*long).await;
}

async fn what_is_held_on_to_does_not_come_again(bench: &Bench) {
    // Long enough for the extension to come in time on a busy machine.
    let (brief, long) = (bench.queue(SHORT * 4).await, bench.queue(LONG).await);
    let sent = punches(2);
    brief.send(&sent).await.unwrap();
    let taken = take(&*brief, 2).await;
    assert_eq!(long.extend(&[taken[0].receipt.clone()]).await.unwrap(), []);
    let again = take_one(&*long).await;
    assert_eq!(again.punch, taken[1].punch, "the other one's lease ran out");
    assert_eq!(long.receive(BATCH_MAX, NO_WAIT).await.unwrap(), []);
    long.done(&[taken[0].receipt.clone(), again.receipt]).await.unwrap();
    is_empty(&*long).await;
}

async fn what_is_put_off_comes_later_and_never_dies_of_it(bench: &Bench) {
    let queue = bench.queue(LONG).await;
    queue.send(&punches(2)).await.unwrap();
    for _ in 0..RECEIVES_MAX + 2 {
        let taken = take(&*queue, 2).await;
        assert_eq!(taken.iter().map(|taken| taken.receives).collect::<Vec<_>>(), [1, 1]);
        queue.later(&receipts(&taken), NO_WAIT).await.unwrap();
    }
    let taken = take(&*queue, 2).await;
    queue.later(&receipts(&taken[..1]), LONG).await.unwrap();
    queue.failed(&receipts(&taken[1..]), LONG, WHY).await.unwrap();
    let depth = until(&*queue, "two put off", |depth| depth.waiting == 2).await;
    assert_eq!((depth.in_hand, depth.dead), (0, 0));
    assert_eq!(queue.receive(BATCH_MAX, NO_WAIT).await.unwrap(), [], "it isn't time yet");
}

async fn what_breaks_dies_is_shown_and_comes_back(bench: &Bench) {
    let queue = bench.queue(LONG).await;
    let sent = punches(1);
    queue.send(&sent).await.unwrap();
    for time in 1..=RECEIVES_MAX {
        let taken = take_one(&*queue).await;
        assert_eq!(taken.receives, time);
        // What is put off in between counts for nothing.
        queue.later(&[taken.receipt], NO_WAIT).await.unwrap();
        let taken = take_one(&*queue).await;
        assert_eq!(taken.receives, time);
        queue.failed(&[taken.receipt], NO_WAIT, &format!("{WHY} ({time})")).await.unwrap();
    }
    until(&*queue, "one dead", |depth| *depth == Depth { dead: 1, ..*depth }).await;
    is_empty(&*queue).await;
    let dead = queue.dead(10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].letter, Letter::Punch(sent[0]));
    assert_eq!(dead[0].reason, format!("{WHY} (5)"));
    assert_eq!(dead[0].receives, RECEIVES_MAX);
    assert!(dead[0].age < PATIENCE * 10, "{:?}", dead[0].age);
    assert_eq!(queue.dead(10).await.unwrap().len(), 1, "they are there to be looked at again");
    assert_eq!(queue.put_back(PutBack::All).await.unwrap(), 1);
    assert_eq!(queue.dead(10).await.unwrap(), []);
    let taken = take_one(&*queue).await;
    assert_eq!((taken.punch, taken.receives), (sent[0], 1), "as if it was just sent");
    queue.done(&[taken.receipt]).await.unwrap();
    is_empty(&*queue).await;
}

async fn what_kills_its_holders_dies(bench: &Bench) {
    let (short, long) = (bench.queue(SHORT).await, bench.queue(LONG).await);
    let sent = punches(1);
    long.send(&sent).await.unwrap();
    let taken = take_one(&*long).await;
    long.failed(&[taken.receipt], NO_WAIT, WHY).await.unwrap();
    eventually("its death", PATIENCE * 2, async || {
        short.receive(1, Duration::from_secs(1)).await?;
        Ok((short.depth().await?.dead == 1).then_some(()))
    })
    .await
    .unwrap();
    let dead = long.dead(1).await.unwrap();
    assert_eq!((&dead[0].letter, dead.len()), (&Letter::Punch(sent[0]), 1));
    assert!(dead[0].reason.starts_with("it was taken again and again"), "{}", dead[0].reason);
    assert!(dead[0].reason.ends_with(WHY), "{}", dead[0].reason);
    is_empty(&*long).await;
}

async fn what_can_never_be_done_dies_at_once(bench: &Bench) {
    let queue = bench.queue(LONG).await;
    let sent = punches(3);
    queue.send(&sent).await.unwrap();
    let taken = take(&*queue, 3).await;
    let (poison, good) = taken.split_at(1);
    queue.give_up(&receipts(poison), "no\nsuch \0punch").await.unwrap();
    queue.done(&receipts(good)).await.unwrap();
    until(&*queue, "one dead", |depth| depth.dead == 1).await;
    let dead = queue.dead(10).await.unwrap();
    assert_eq!(dead[0].letter, Letter::Punch(poison[0].punch));
    assert_eq!((dead[0].receives, &*dead[0].reason), (1, "no such  punch"));
    is_empty(&*queue).await;
}

async fn one_dead_letter_is_put_back_alone(bench: &Bench) {
    let queue = bench.queue(LONG).await;
    let sent = punches(12);
    queue.send(&sent).await.unwrap();
    queue.give_up(&receipts(&take(&*queue, 12).await), WHY).await.unwrap();
    until(&*queue, "twelve dead", |depth| depth.dead == 12).await;
    assert_eq!(queue.put_back(PutBack::One(punches(1)[0])).await.unwrap(), 0);
    assert_eq!(queue.dead(5).await.unwrap().len(), 5);
    assert_eq!(queue.put_back(PutBack::One(sent[7])).await.unwrap(), 1);
    let taken = take_one(&*queue).await;
    assert_eq!(taken.punch, sent[7]);
    queue.done(&[taken.receipt]).await.unwrap();
    let depth = until(&*queue, "eleven dead", |depth| depth.dead == 11).await;
    assert_eq!(depth.waiting + depth.in_hand, 0);
    assert_eq!(queue.put_back(PutBack::All).await.unwrap(), 11);
    assert_eq!(take(&*queue, 11).await.len(), 11);
}

async fn four_drain_it_and_each_message_is_handled_once(bench: &Bench) {
    let queue = bench.queue(LONG).await;
    let sent = punches(bench.many());
    queue.send(&sent).await.unwrap();
    let handled = Mutex::new(Vec::new());
    let all = join_all((0..4).map(async |_| {
        while handled.lock().unwrap().len() < sent.len() {
            let taken = queue.receive(BATCH_MAX, NO_WAIT).await.unwrap();
            handled.lock().unwrap().extend(taken.iter().map(|taken| taken.punch));
            queue.done(&receipts(&taken)).await.unwrap();
        }
    }));
    tokio::time::timeout(PATIENCE * 5, all).await.unwrap();
    let mut handled = handled.into_inner().unwrap();
    handled.sort();
    if matches!(bench, Bench::Sqs { .. }) {
        // A send that is answered too late is made again: SQS promises no more than at least once.
        handled.dedup();
    }
    assert_eq!(handled, sent);
    is_empty(&*queue).await;
}

/// What is in hand, of leases that don't run out; each is put off again and again.
async fn two_never_hold_the_same(bench: &Bench) {
    let queue = bench.queue(LONG).await;
    queue.send(&punches(20)).await.unwrap();
    let (in_hand, rounds) = (Mutex::new(BTreeSet::new()), bench.many() / 20);
    let all = join_all((0..4).map(async |_| {
        for _ in 0..rounds {
            let taken = queue.receive(7, NO_WAIT).await.unwrap();
            {
                let mut in_hand = in_hand.lock().unwrap();
                let alone = taken.iter().all(|taken| in_hand.insert(taken.punch));
                assert!(alone, "somebody else has it in hand");
            }
            tokio::task::yield_now().await;
            in_hand.lock().unwrap().retain(|punch| taken.iter().all(|one| one.punch != *punch));
            queue.later(&receipts(&taken), NO_WAIT).await.unwrap();
        }
    }));
    tokio::time::timeout(PATIENCE * 5, all).await.unwrap();
    until(&*queue, "all twenty", |depth| depth.waiting == 20 && depth.in_hand == 0).await;
}

async fn a_waiting_receiver_is_woken(bench: &Bench) {
    let queue = bench.queue(LONG).await;
    let sent = punches(1);
    // The receiver comes first.
    let (taken, put) =
        tokio::join!(async { queue.receive(1, Duration::from_secs(20)).await.unwrap() }, async {
            tokio::task::yield_now().await;
            queue.send(&sent).await
        });
    put.unwrap();
    let taken = if taken.is_empty() { take(&*queue, 1).await } else { taken };
    assert_eq!(sorted(&taken), sent);
}

async fn nothing_to_do_is_nothing_done(bench: &Bench) {
    let queue = bench.queue(LONG).await;
    queue.send(&[]).await.unwrap();
    assert_eq!(queue.receive(0, NO_WAIT).await.unwrap(), []);
    assert_eq!(queue.extend(&[]).await.unwrap(), []);
    queue.done(&[]).await.unwrap();
    queue.later(&[], NO_WAIT).await.unwrap();
    queue.failed(&[], NO_WAIT, WHY).await.unwrap();
    queue.give_up(&[], WHY).await.unwrap();
    assert_eq!(queue.dead(10).await.unwrap(), []);
    assert_eq!(queue.put_back(PutBack::All).await.unwrap(), 0);
    assert_eq!(queue.depth().await.unwrap(), Depth::default());
}

/// A server that accepts and never answers. Its connections are kept open.
async fn silent() -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((line, _)) = listener.accept().await {
            kept.push(line);
        }
    });
    (port, kept)
}

/// All that can be asked of a queue, which must fail in time, as what passes.
async fn fails_in_time(queue: &dyn Queue) {
    for (what, error) in errors_in_time(queue).await {
        assert!(error.passes(), "{what}: {error}");
    }
}

/// What all that can be asked of a queue fails by, in time.
async fn errors_in_time(queue: &dyn Queue) -> Vec<(&'static str, QueueError)> {
    let sent = punches(1);
    let second = Duration::from_secs(1);
    let asked = tokio::time::timeout(PATIENCE, async {
        tokio::join!(
            queue.send(&sent),
            queue.receive(1, second).map_ok(drop),
            queue.depth().map_ok(drop),
            queue.dead(1).map_ok(drop),
            queue.put_back(PutBack::All).map_ok(drop),
        )
    })
    .await;
    let (send, receive, depth, dead, put_back) = asked.expect("each ends by itself");
    let asked: [(&str, Result<(), QueueError>); 5] = [
        ("send", send),
        ("receive", receive),
        ("depth", depth),
        ("dead", dead),
        ("put back", put_back),
    ];
    asked.into_iter().map(|(what, result)| (what, result.expect_err(what))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_database_is_an_error_in_time() {
    let (port, kept) = silent().await;
    let nowhere = format!("postgres://nobody@127.0.0.1:{port}/nothing?sslmode=disable");
    let options = sqlx::postgres::PgPoolOptions::new().acquire_timeout(SHORT);
    let pool = Pool::new(options.connect_lazy(&nowhere).unwrap(), SHORT);
    fails_in_time(&PostgresQueue::new(&pool)).await;
    kept.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_is_an_error() {
    let Some(Bench::Postgres { database, pools, queue }) = Bench::postgres().await else { return };
    queue.send(&punches(1)).await.unwrap();
    let taken = take_one(&queue).await;
    database.close().await;
    // Dropped, it doesn't come back: nobody says that it passes.
    assert_eq!(errors_in_time(&queue).await.len(), 5);
    queue.done(&[taken.receipt]).await.unwrap_err();
    pools.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sqs_that_falls_silent_is_an_error_in_time() {
    // Its own: it is frozen.
    let Some(moto) = Moto::start() else { return };
    let config = config(&moto.url()).await;
    let client = Client::new(&config);
    let dead = made(&client, None).await;
    let url = made(&client, Some((&arn(&client, &dead).await, "5"))).await;
    let settings = Sqs { answer_max: SHORT * 5, ..Sqs::at(url) };
    let queue = SqsQueue::open(&config, settings.clone()).await.unwrap();
    queue.send(&punches(1)).await.unwrap();
    kill_process(Pid::from_raw(moto.id().cast_signed()).unwrap(), Signal::STOP).unwrap();
    fails_in_time(&queue).await;
    let opened = tokio::time::timeout(PATIENCE, SqsQueue::open(&config, settings)).await;
    let error = opened.expect("it ends by itself").unwrap_err();
    assert!(error.passes() && error.to_string().contains("GetQueueAttributes"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sqs_queue_that_is_not_made_right_is_refused_in_plain_words() {
    let Some(endpoint) = moto() else { return };
    let config = config(&endpoint).await;
    let client = Client::new(&config);
    let dead = made(&client, None).await;
    let arn = arn(&client, &dead).await;
    let refused = async |url: &str| {
        let error = SqsQueue::open(&config, Sqs::at(url)).await.unwrap_err();
        assert!(!error.passes(), "{error}");
        error.to_string()
    };
    assert!(refused(&dead).await.contains("has no dead-letter queue"));
    let hasty = made(&client, Some((&arn, "1"))).await;
    let error = refused(&hasty).await;
    assert!(error.contains("after 1 receives") && error.contains("from 3 to 100"), "{error}");
    assert!(refused(&format!("{dead}.fifo")).await.contains("is a FIFO queue"));
    assert!(refused(&format!("{dead}-not")).await.contains("NonExistentQueue"));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_message_ends_among_the_dead_letters_and_stops_nobody() {
    let Some(bench) = Bench::sqs().await else { return };
    let Bench::Sqs { client, url, .. } = &bench else { unreachable!() };
    let queue = bench.sqs_queue(LONG).await;
    let punch = punches(1)[0];
    let bodies = [
        "hello".to_owned(),
        r#"{"Type":"Notification"}"#.to_owned(),
        format!(r#"{{"v":2,"punch":"{punch}"}}"#),
        r#"{"v":1,"punch":"../../etc/passwd"}"#.to_owned(),
        "x".repeat(200_000),
    ];
    for body in &bodies {
        client.send_message().queue_url(url).message_body(body).send().await.unwrap();
    }
    queue.send(&[punch]).await.unwrap();
    let taken = take_one(&queue).await;
    assert_eq!(taken.punch, punch);
    queue.done(&[taken.receipt]).await.unwrap();
    until(&queue, "five dead", |depth| depth.dead == bodies.len() as u64).await;
    let dead = queue.dead(10).await.unwrap();
    assert_eq!(dead.len(), bodies.len());
    for dead in &dead {
        assert!(matches!(&dead.letter, Letter::Foreign(id) if !id.is_empty()), "{dead:?}");
        assert!(dead.reason.starts_with("not a check's message"), "{dead:?}");
    }
    assert_eq!(queue.put_back(PutBack::All).await.unwrap(), 0, "they would only come round again");
    until(&queue, "five dead still", |depth| depth.dead == bodies.len() as u64).await;
    is_empty(&queue).await;
}

/// A ratchet: what a thousand messages cost. A change that raises it has to be worth it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_costs_a_third_of_a_call() {
    let Some(bench) = Bench::sqs().await else { return };
    let queue = bench.sqs_queue(LONG).await;
    let before = queue.calls();
    queue.send(&punches(100)).await.unwrap();
    let mut left = 100;
    while left > 0 {
        let taken = queue.receive(BATCH_MAX, Duration::from_secs(20)).await.unwrap();
        queue.done(&receipts(&taken)).await.unwrap();
        left -= taken.len();
    }
    let calls = queue.calls() - before;
    assert!(calls <= 32, "{calls} calls for a hundred messages");
}

/// Postgres keeps plans that know nothing of what they are asked; those, too, must touch only the
/// rows that are meant, however many there are. With fewer rows than here it plans otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn in_postgres_a_message_costs_the_same_however_many_wait() {
    const ROUNDS: i64 = 10;
    let Some(Bench::Postgres { database, pools, queue }) = Bench::postgres().await else { return };
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql(
        "insert into check_queue (punch, due_at) select gen_random_uuid(), \
         now() - n * interval '1 ms' \
         from generate_series(1, 100000) as many (n); \
         analyze check_queue; \
         do $$ begin execute format('alter database %I set plan_cache_mode = force_generic_plan', \
         current_database()); end $$",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    for _ in 0..ROUNDS {
        queue.send(&punches(10)).await.unwrap();
        let taken = take(&queue, 10).await;
        assert_eq!(queue.extend(&receipts(&taken)).await.unwrap(), []);
        queue.later(&receipts(&taken[..2]), LONG).await.unwrap();
        queue.failed(&receipts(&taken[2..4]), LONG, WHY).await.unwrap();
        queue.done(&receipts(&taken[4..])).await.unwrap();
    }
    drop(queue);
    pools.close().await;
    drop(pools);
    let read = "select coalesce(seq_tup_read, 0), (select coalesce(sum(idx_tup_read), 0)::bigint \
                from pg_stat_user_indexes where relname = 'check_queue') \
                from pg_stat_user_tables where relname = 'check_queue'";
    let others = "select count(*) from pg_stat_activity \
                  where datname = current_database() and pid <> pg_backend_pid()";
    eventually("the sessions of closed pools to end", PATIENCE, async || {
        let others: i64 = sqlx::query_scalar(others).fetch_one(&mut owner).await?;
        Ok((others == 0).then_some(()))
    })
    .await
    .unwrap();
    let (walked, looked_up): (i64, i64) = sqlx::query_as(read).fetch_one(&mut owner).await.unwrap();
    assert_eq!(walked, 0, "rows were read by walking the whole table");
    // Rounds of ten, each touched some ten times.
    assert!(looked_up < ROUNDS * 10 * 20, "{looked_up} entries of the indexes were read");
    owner.close().await.unwrap();
    database.close().await;
}
