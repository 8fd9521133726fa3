use std::path::PathBuf;
use std::time::Duration;

use clicktally_proto::ids::NodeId;
use clicktally_raft_store::store::OpenError;
use clicktally_raft_store::store_config::SnapshotRules;

use crate::world::World;

/// Often enough that a few dozen proposals leave two snapshots and a purged log.
fn often() -> SnapshotRules {
    SnapshotRules { every_entries: 10, check_interval: Duration::from_millis(50), ..SnapshotRules::default() }
}

fn snapshot_files(world: &World, node: NodeId) -> Vec<PathBuf> {
    let folder = world.node_folder(node).join("group-0");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "clicktally"));
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_behind_the_purged_log_gets_a_snapshot_and_equals() {
    let mut world = World::start(1, often()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..60).await;
    let leader = world.leader(0).await;
    world.status_when(leader, 0, |status| status.purged > Some(5)).await;

    let address = world.reserve_address(4).await;
    world.run(4).await;
    world.group(2, 0).add_member(4, &address).await.unwrap();
    world.assert_equal_states(0).await;
    let status = world.status_when(4, 0, |status| status.voters.contains_key(&4)).await;
    assert!(status.snapshot.is_some(), "the log alone cannot have told it: {status:?}");
    assert_eq!(world.group(4, 0).read(|state| state.campaigns().len()), 60);
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_newest_snapshot_is_ignored_and_the_log_makes_up_for_it() {
    let mut world = World::start(1, often()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..60).await;
    world.status_when(3, 0, |status| status.purged > Some(5)).await;
    let bytes = world.assert_equal_states(0).await;
    world.stop(3).await;

    let newest = snapshot_files(&world, 3).pop().unwrap();
    let whole = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &whole[..whole.len() / 2]).unwrap();
    world.run(3).await;
    assert!(world.assert_equal_states(0).await == bytes);
    assert!(newest.with_extension("damaged").exists());
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_every_snapshot_refuses_to_start() {
    let mut world = World::start(1, often()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..60).await;
    world.status_when(3, 0, |status| status.purged > Some(5)).await;
    world.stop(3).await;
    for file in snapshot_files(&world, 3) {
        std::fs::write(file, b"rotten").unwrap();
    }
    assert!(matches!(world.open(3).await, Err(OpenError::SnapshotLost { group: 0, .. })));
    world.stop_all().await;
}
