//! Checkpoints that survive what happens to their files.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, sync::Arc};

use punchtrail_infra::{
    audit::checkpoint::{CheckpointError, Checkpoints, Folder},
    testing::world::World,
};
use punchtrail_protocol::{OrgId, Position};

#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_edge_of_the_tree_is_made_anew_and_a_spoilt_checkpoint_is_not() {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(dir.path(), OrgId::NIL).unwrap());
    let checkpoints = Checkpoints::new(world.pools.writer.clone(), Arc::clone(&folder));
    let first = checkpoints.advance().await.unwrap();
    world.hire().await;
    checkpoints.advance().await.unwrap();
    let epoch = dir.path().join("checkpoints/0001");
    for spoilt in [b"".as_slice(), b"not an edge"] {
        fs::write(epoch.join("frontier"), spoilt).unwrap();
        fs::write(epoch.join("frontier.previous"), spoilt).unwrap();
        world.hire().await;
        let head = world.ledger.head().await.unwrap();
        assert_eq!(checkpoints.advance().await.unwrap(), head);
        assert_eq!(folder.latest().unwrap().unwrap().checkpoint.size, head.0);
    }
    assert!(first > Position::START);

    // What the signed checkpoint says can't be made up.
    let latest = epoch.join("latest");
    let altered = fs::read_to_string(&latest).unwrap().replacen("punchtrail/", "punchtrial/", 1);
    fs::write(&latest, altered).unwrap();
    world.hire().await;
    let refused = checkpoints.advance().await.unwrap_err();
    assert!(matches!(refused, CheckpointError::Folder(_)), "{refused}");
    world.close().await;
}
