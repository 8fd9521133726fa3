use std::path::PathBuf;
use std::time::Duration;

use clicktally_proto::identity::ids::NodeId;
use clicktally_raft_store::OpenError;
use clicktally_raft_store::peers::transport::PeerCall;
use clicktally_raft_store::store_config::SnapshotRules;

use crate::world::World;

/// Snapshots so often that a few dozen proposals leave two of them and a purged log.
fn often() -> SnapshotRules {
    SnapshotRules { every_entries: 10, check_interval: Duration::from_millis(50), ..SnapshotRules::default() }
}

pub(crate) fn snapshot_files(world: &World, node: NodeId) -> Vec<PathBuf> {
    let folder = world.node_folder(node).join("group-0");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "clicktally"));
    files.sort();
    files
}

/// Proposes until a node has purged more. A node that received all entries at once has built only one snapshot of
/// them. It purges after the second.
async fn until_purged(world: &World, node: NodeId, more_than: Option<u64>) {
    while world.group(node, 0).status().purged <= more_than {
        world.set_campaigns(1, 0, 0..1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_behind_the_purged_log_gets_a_snapshot_and_equals() {
    let mut world = World::start(1, often()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..60).await;
    let leader = world.leader(0).await;
    until_purged(&world, leader, Some(5)).await;

    let address = world.reserve_address(4).await;
    world.run(4).await;
    world.group(2, 0).add_member(4, &address).await.unwrap();
    world.assert_equal_states(0).await;
    let status = world.status_when(4, 0, |status| status.voters.contains_key(&4)).await;
    assert!(status.snapshot.is_some(), "the new member needs a snapshot, because the log is purged: {status:?}");
    assert_eq!(world.group(4, 0).read(|state| state.campaigns().len()), 60);
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_newest_snapshot_is_ignored_and_the_log_makes_up_for_it() {
    let mut world = World::start(1, often()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..60).await;
    until_purged(&world, 3, Some(5)).await;
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

/// Damages every snapshot file of a node.
fn ruin_snapshots(world: &World, node: NodeId) {
    for file in snapshot_files(world, node) {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_every_snapshot_gets_one_from_a_peer_and_keeps_its_vote() {
    let mut world = World::start(1, often()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..60).await;
    until_purged(&world, 3, Some(5)).await;
    let purged = world.group(3, 0).status().purged;
    world.assert_equal_states(0).await;
    world.stop(3).await;
    ruin_snapshots(&world, 3);

    world.run(3).await;
    assert_eq!(snapshot_files(&world, 3).len(), 1, "only the snapshot from a peer is left");
    world.status_when(3, 0, |status| status.snapshot >= purged && status.voters.contains_key(&3)).await;
    world.set_campaigns(3, 0, 60..70).await;
    world.assert_equal_states(0).await;

    // The repaired node counts for the majority again, so another node may stop.
    world.stop(1).await;
    world.set_campaigns(2, 0, 70..80).await;
    world.assert_equal_states(0).await;
    assert_eq!(world.group(3, 0).read(|state| state.campaigns().len()), 80);
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_every_snapshot_and_was_overtaken_gets_one_from_a_peer() {
    let mut world = World::start(1, often()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..60).await;
    until_purged(&world, 3, Some(5)).await;
    world.stop(3).await;
    ruin_snapshots(&world, 3);
    // The other nodes purge the entries that would continue its log.
    let last = world.group(1, 0).status().last_log;
    world.set_campaigns(1, 0, 60..120).await;
    for node in [1, 2] {
        until_purged(&world, node, last).await;
    }
    world.run(3).await;
    world.assert_equal_states(0).await;
    assert_eq!(world.group(3, 0).read(|state| state.campaigns().len()), 120);
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_every_snapshot_refuses_to_start_alone() {
    let mut world = World::start(1, often()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..60).await;
    until_purged(&world, 3, Some(5)).await;
    world.stop_all().await;
    ruin_snapshots(&world, 3);
    assert!(matches!(world.open(3).await, Err(OpenError::SnapshotLost { group: 0, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_snapshots_rot_sends_a_whole_one_and_nothing_damaged_is_applied() {
    let mut world = World::start(1, SnapshotRules { every_entries: 40, ..often() }).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..60).await;
    for node in 1..=3 {
        until_purged(&world, node, Some(5)).await;
    }
    // The leader has just built a snapshot. So it builds no other, undamaged one before the new member needs it.
    let leader = world.leader(0).await;
    let snapshot_before = world.group(leader, 0).status().snapshot;
    while world.group(leader, 0).status().snapshot == snapshot_before {
        world.set_campaigns(1, 0, 0..1).await;
    }
    world.assert_equal_states(0).await;
    // Damage the snapshots of every node, because any of them may be or become the leader.
    for node in 1..=3 {
        ruin_snapshots(&world, node);
    }
    let address = world.reserve_address(4).await;
    world.run(4).await;
    world.group(2, 0).add_member(4, &address).await.unwrap();
    world.assert_equal_states(0).await;
    assert_eq!(world.group(4, 0).read(|state| state.campaigns().len()), 60);
    let damaged = |node| {
        let folder = world.node_folder(node).join("group-0");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "damaged")).count()
    };
    assert!((1..=3).map(damaged).sum::<usize>() >= 1, "no leader detected the damage");
    assert_eq!(damaged(4), 0);
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_piece_that_changes_on_its_way_is_refused_and_the_transfer_begins_again() {
    let mut world = World::start(1, often()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..60).await;
    for node in 1..=3 {
        until_purged(&world, node, Some(5)).await;
    }
    world.links.damage_next(PeerCall::Snapshot);
    let address = world.reserve_address(4).await;
    world.run(4).await;
    world.group(2, 0).add_member(4, &address).await.unwrap();
    world.assert_equal_states(0).await;
    assert_eq!(world.links.damaged(), 1, "no piece was damaged");
    world.stop_all().await;
}
