//! Bit rot in a replica's log or promises is detected, whatever recovery makes of it. A peer repairs the replica
//! before it takes part again. All nodes are stopped when the rot happens, so no leader can remember what was
//! acknowledged.

use std::path::PathBuf;

use clicktally_proto::identity::ids::NodeId;
use clicktally_raft_store::OpenError;
use clicktally_raft_store::store_config::SnapshotRules;

use crate::snapshots::snapshot_files;
use crate::world::World;

/// The node whose disk rots.
const DAMAGED: NodeId = 3;

async fn stopped_world() -> World {
    // No snapshot is due, so a snapshot that exists afterwards came from a peer.
    let mut world = World::start(1, SnapshotRules::default()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..60).await;
    world.assert_equal_states(0).await;
    world.stop_all().await;
    assert!(snapshot_files(&world, DAMAGED).is_empty());
    world
}

/// Finds the last occurrence of `marker` and changes its last byte.
fn flip(file: PathBuf, marker: &[u8]) {
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(marker.len()).rposition(|window| window == marker).unwrap();
    bytes[at + marker.len() - 1] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

fn log_file(world: &World) -> PathBuf {
    world.node_folder(DAMAGED).join("log").join("0000000000000001.raftlog")
}

fn promises_file(world: &World) -> PathBuf {
    world.node_folder(DAMAGED).join("group-0").join("promises")
}

async fn assert_comes_back_healed(world: &mut World) {
    for node in [1, 2] {
        world.run(node).await;
    }
    world.leader(0).await;
    world.run(DAMAGED).await;
    assert_eq!(snapshot_files(world, DAMAGED).len(), 1, "the node did not detect the damage");
    world.assert_equal_states(0).await;
    assert_eq!(world.group(DAMAGED, 0).read(|state| state.campaigns().len()), 60);

    // The repaired node counts for the majority again, so another node may stop.
    world.stop(1).await;
    world.set_campaigns(2, 0, 60..70).await;
    world.assert_equal_states(0).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_in_the_middle_of_the_log_that_rotted_is_noticed_and_healed() {
    let mut world = stopped_world().await;
    flip(log_file(&world), b"campaign 30");
    assert_comes_back_healed(&mut world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_entry_acknowledged_is_missed_although_it_looks_torn_off() {
    let mut world = stopped_world().await;
    flip(log_file(&world), b"campaign 59");
    // No bytes follow the damaged entry now. A crash during the append leaves the same file.
    let file = log_file(&world);
    let bytes = std::fs::read(&file).unwrap();
    let entry = bytes.windows(10).rposition(|window| window == b"campaign 5").unwrap();
    std::fs::write(&file, &bytes[..entry]).unwrap();
    assert_comes_back_healed(&mut world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_gone_altogether_is_healed_too() {
    let mut world = stopped_world().await;
    flip(log_file(&world), b"RAFT-LOG-FILE-HEADER");
    assert_comes_back_healed(&mut world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_vote_takes_the_log_behind_it_along_and_the_promise_is_kept() {
    let mut world = stopped_world().await;
    flip(log_file(&world), b"vote");
    // Without peers, the node neither starts with the rest of its log nor votes.
    let alone = world.open(DAMAGED).await;
    assert!(matches!(alone, Err(OpenError::LogDamaged { group: 0, .. })), "{:?}", alone.err());
    assert_comes_back_healed(&mut world).await;
}

/// Found by seed 1795558578533 of the simulation: after a power cut, the record of the log's end may claim less than
/// the log holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_older_than_the_log_lets_no_committed_entry_be_forgotten() {
    let mut world = World::start(1, SnapshotRules::default()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..30).await;
    world.assert_equal_states(0).await;
    let record = std::fs::read(promises_file(&world)).unwrap();
    // Node 3's acknowledgement is needed to commit these entries.
    world.stop(1).await;
    world.set_campaigns(2, 0, 30..60).await;
    world.assert_equal_states(0).await;
    world.stop_all().await;
    std::fs::write(promises_file(&world), record).unwrap();
    flip(log_file(&world), b"campaign 10");

    // Node 3 asks node 1 first. With node 1 it would form a majority without those entries, so it must wait for
    // another node.
    world.run(1).await;
    let (damaged, other) = tokio::join!(world.open_to_peers(DAMAGED), world.open_to_peers(2));
    world.keep(DAMAGED, damaged);
    world.keep(2, other);
    assert_eq!(
        world.group(DAMAGED, 0).read(|state| state.campaigns().len()),
        60,
        "node 3 took part without the committed entries"
    );
    world.assert_equal_states(0).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_second_copy_costs_nothing_and_is_written_anew() {
    let mut world = stopped_world().await;
    let whole = std::fs::read(promises_file(&world)).unwrap();
    let mut bytes = whole.clone();
    bytes[7] ^= 1;
    std::fs::write(promises_file(&world), bytes).unwrap();
    world.open(DAMAGED).await.unwrap().shutdown().await;
    assert_eq!(std::fs::read(promises_file(&world)).unwrap(), whole);
    assert!(snapshot_files(&world, DAMAGED).is_empty(), "the log was intact, so no repair was needed");

    // Without both copies, the node cannot know which entries it must keep.
    let mut bytes = whole;
    bytes[7] ^= 1;
    std::fs::write(promises_file(&world), bytes).unwrap();
    flip(log_file(&world), b"RAFT-LOG-FILE-HEADER");
    let opened = world.open(DAMAGED).await;
    assert!(matches!(opened, Err(OpenError::Log(_))), "{:?}", opened.err());
    world.stop_all().await;
}
