//! What the adjudicator and the checkpoints can't take stops them where it stands, and is named:
//! never "following" and doing nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, sync::Arc};

use punchtrail_infra::{
    adjudicator,
    audit::checkpoint::{self, CheckpointError, Checkpoints, Folder},
    follower::{FollowerState, FollowerStatus, Followers, Node},
    testing::{sqlx, world::World},
};
use punchtrail_protocol::{OrgId, Position};
use punchtrail_testkit::{PATIENCE, eventually};
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

/// An event of that type at `$1`, by the columns that follow.
const EVENT: &str = "insert into events (aggregate_type, aggregate_id, sequence, event_type, \
    event_version, payload, metadata, position, recorded_at, leaf_hash) values ";

async fn as_owner(world: &World, statements: &str) {
    let mut owner = PgConnection::connect(world.database.url()).await.unwrap();
    sqlx::raw_sql(statements).execute(&mut owner).await.unwrap();
    owner.close().await.unwrap();
}

/// Both follow a ledger on which `harm` was then done, given the next position; where they end.
async fn after(harm: impl Fn(u64) -> String) -> (Position, FollowerStatus, FollowerStatus) {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(dir.path(), OrgId::NIL).unwrap());
    let followers = Followers::new(&world.ledger, Node::anywhere(), &CancellationToken::new());
    adjudicator::start(&followers, &world.ledger);
    checkpoint::start(&followers, &world.ledger, folder);
    let head = world.ledger.head().await.unwrap();
    let of = |name: &str| followers.status().into_iter().find(|one| one.name == name).unwrap();
    let names = [adjudicator::NAME, checkpoint::NAME];
    eventually("both at the head", PATIENCE, async || {
        Ok(names.iter().all(|name| of(name).position == Some(head)).then_some(()))
    })
    .await
    .unwrap();
    as_owner(&world, &harm(head.0 + 1)).await;
    eventually("the adjudicator to stop", PATIENCE, async || {
        Ok((of(adjudicator::NAME).state == FollowerState::Stopped).then_some(()))
    })
    .await
    .unwrap();
    let beyond = |status: &FollowerStatus| status.position > Some(head);
    eventually("the checkpoints to move or refuse", PATIENCE, async || {
        let now = of(checkpoint::NAME);
        Ok((beyond(&now) || now.state == FollowerState::Refused).then_some(()))
    })
    .await
    .unwrap();
    let ends = names.map(of);
    followers.stop().await;
    world.close().await;
    let [adjudicator, checkpoints] = ends;
    assert_eq!(adjudicator.position, Some(head), "what stands before is judged");
    (head, adjudicator, checkpoints)
}

fn names(status: &FollowerStatus, position: u64) {
    let why = status.error.as_deref().unwrap();
    assert!(why.contains(&format!("position {position}")), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_of_aggregate_that_nobody_here_knows() {
    let (head, adjudicator, checkpoints) = after(|next| {
        format!(
            "update ledger_head set position = {next}; {EVENT} ('dispute', 'd', 1, 'Opened', '1', \
             '{{}}', '{{}}', {next}, clock_timestamp(), sha256(''))"
        )
    })
    .await;
    names(&adjudicator, head.0 + 1);
    // A hash can be signed whatever it is of.
    assert_eq!(checkpoints.state, FollowerState::Following);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_is_no_event() {
    let (head, adjudicator, _) = after(|next| {
        format!(
            "update ledger_head set position = {next}; {EVENT} ('site', 'no id', 1, 'Registered', \
             '1', '{{\"Nothing\":7}}', '{{}}', {next}, clock_timestamp(), sha256(''))"
        )
    })
    .await;
    names(&adjudicator, head.0 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole() {
    let (head, adjudicator, checkpoints) = after(|next| {
        let beyond = next + 1;
        format!(
            "update ledger_head set position = {beyond}; {EVENT} ('site', 's', 1, 'Registered', \
             '1', '{{}}', '{{}}', {beyond}, clock_timestamp(), sha256(''))"
        )
    })
    .await;
    assert_eq!(checkpoints.state, FollowerState::Refused);
    for status in [adjudicator, checkpoints] {
        names(&status, head.0 + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_beyond_the_events() {
    let (head, adjudicator, checkpoints) =
        after(|next| format!("update ledger_head set position = {}", next + 4)).await;
    assert_eq!(checkpoints.state, FollowerState::Refused);
    for status in [adjudicator, checkpoints] {
        names(&status, head.0 + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone() {
    let (_, adjudicator, _) = after(|_| "alter table events rename to elsewhere".to_owned()).await;
    assert!(adjudicator.error.unwrap().contains("events"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_below_the_newest_checkpoint_whose_edge_is_spoilt() {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(dir.path(), OrgId::NIL).unwrap());
    let checkpoints = Checkpoints::new(world.pools.writer.clone(), Arc::clone(&folder));
    let size = checkpoints.advance().await.unwrap();
    assert!(size.0 >= 2);
    for edge in ["frontier", "frontier.previous"] {
        fs::write(dir.path().join("checkpoints/0001").join(edge), b"not an edge").unwrap();
    }
    for (place, gone) in [(size.0, "the last"), (1, "the first")] {
        as_owner(
            &world,
            &format!(
                "alter table events disable trigger all; \
                 delete from events where position = {place}"
            ),
        )
        .await;
        let refused = checkpoints.advance().await.unwrap_err();
        let at = Position(place);
        assert!(matches!(refused, CheckpointError::Hole(hole) if hole == at), "{gone}: {refused}");
    }
    world.close().await;
}
