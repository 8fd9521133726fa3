use clicktally_proto::command::{Command, NodeRecord, Outcome};
use clicktally_raft_store::group::MemberError;
use clicktally_raft_store::store_config::SnapshotRules;
use clicktally_raft_store::{MemberChange, OpenError};

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_voter_is_refused_until_it_is_removed_and_added_back() {
    let mut world = World::start(1, SnapshotRules::default()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..10).await;
    let leader = world.leader(0).await;
    let wiped = world.running().into_iter().find(|node| *node != leader).unwrap();
    world.status_when(leader, 0, |status| status.acknowledged[&wiped] == status.last_log).await;
    world.stop(wiped).await;
    world.wipe(wiped);
    assert!(matches!(world.open(wiped).await, Err(OpenError::Wiped { group: 0, .. })));
    world.wipe(wiped);

    world.group(leader, 0).remove_member(wiped).await.unwrap();
    let address = world.reserve_address(wiped).await;
    world.run(wiped).await;
    world.group(leader, 0).add_member(wiped, &address).await.unwrap();
    world.assert_equal_states(0).await;
    let status = world.group(leader, 0).status();
    assert_eq!(status.voters.len(), 3);
    assert_eq!(world.group(wiped, 0).read(|state| state.campaigns().len()), 10);
    world.stop_all().await;
}

/// With one of the others it could elect a leader that lacks what it acknowledged before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_voter_is_refused_also_while_there_is_no_leader() {
    let mut world = World::start(1, SnapshotRules::default()).await;
    world.configure(1).await;
    let leader = world.leader(0).await;
    let wiped = world.running().into_iter().find(|node| *node != leader).unwrap();
    let address = String::new();
    let record = NodeRecord { node: wiped, http_address: address.clone(), peer_address: address, can_aggregate: true };
    assert_eq!(world.propose(leader, 0, &Command::RegisterNode(record)).await, Outcome::Done);
    world.assert_equal_states(0).await;
    world.stop(wiped).await;
    world.wipe(wiped);
    world.stop(leader).await;
    let opened = world.open(wiped).await;
    assert!(matches!(opened, Err(OpenError::Wiped { group: 0, .. })), "{:?}", opened.err());
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_change_of_members_is_refused_once_they_have_changed() {
    let mut world = World::start(1, SnapshotRules::default()).await;
    // Commits the first members, too.
    world.configure(1).await;
    let leader = world.leader(0).await;
    let moved = world.running().into_iter().find(|node| *node != leader).unwrap();
    let group = world.group(leader, 0);
    let (address, before) = (group.status().voters[&moved].clone(), group.members_seen().await.unwrap());
    group.change_members_if(MemberChange::Remove { node: moved }, before).await.unwrap();
    let between = group.members_seen().await.unwrap();
    group.add_member(moved, &address).await.unwrap();
    for (change, seen) in [
        (MemberChange::Remove { node: moved }, before),
        (MemberChange::Remove { node: moved }, between),
        (MemberChange::Add { node: 4, address }, between),
    ] {
        let late = group.change_members_if(change, seen).await;
        assert!(matches!(&late, Err(MemberError::Retry(why)) if why.contains("have changed")), "{late:?}");
    }
    assert_eq!(group.status().voters.len(), 3);
    world.assert_equal_states(0).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_disk_forgot_what_it_acknowledged_is_refused() {
    let mut world = World::start(1, SnapshotRules::default()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..5).await;
    let leader = world.leader(0).await;
    let restored = world.running().into_iter().find(|node| *node != leader).unwrap();
    world.stop(restored).await;
    world.back_up(restored);
    world.run(restored).await;
    world.set_campaigns(leader, 0, 5..10).await;
    world.status_when(leader, 0, |status| status.acknowledged[&restored] == status.last_log).await;
    world.stop(restored).await;
    world.restore(restored);
    let opened = world.open(restored).await;
    assert!(matches!(opened, Err(OpenError::LogLost { group: 0, .. })), "{:?}", opened.err());

    // The others are enough to elect a leader with this node, and know nothing of what it acknowledged.
    world.stop(leader).await;
    let opened = world.open(restored).await;
    assert!(matches!(opened, Err(OpenError::LogLost { group: 0, .. })), "{:?}", opened.err());
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_to_voters_only_and_a_folder_to_its_own_node() {
    let mut world = World::start(1, SnapshotRules::default()).await;
    let leader = world.leader(0).await;
    let refused = world.group(leader, 0).transfer_leader(9).await;
    assert!(matches!(refused, Err(MemberError::Reject(_))), "{refused:?}");

    world.stop(3).await;
    std::fs::rename(world.node_folder(3), world.node_folder(4)).unwrap();
    world.reserve_address(4).await;
    assert!(matches!(world.open(4).await, Err(OpenError::ForeignFolder { found_node: 3, .. })));
    world.stop_all().await;
}
