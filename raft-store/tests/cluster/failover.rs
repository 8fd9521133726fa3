use clicktally_raft_store::group::GroupStatus;
use clicktally_raft_store::store_config::SnapshotRules;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_dies_another_leads_and_proposals_go_on() {
    let mut world = World::start(1, SnapshotRules::default()).await;
    world.configure(1).await;
    world.set_campaigns(1, 0, 0..5).await;

    let dead = world.leader(0).await;
    world.stop(dead).await;
    let alive = world.running()[0];
    world.set_campaigns(alive, 0, 5..10).await;
    assert_ne!(world.group(alive, 0).leader(), Some(dead));
    assert!(world.group(alive, 0).staleness().is_some());

    world.run(dead).await;
    world.assert_equal_states(0).await;
    assert_eq!(world.group(dead, 0).read(|state| state.campaigns().len()), 10);
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_committed_and_staleness_grows() {
    let mut world = World::start(1, SnapshotRules::default()).await;
    world.configure(1).await;
    world.stop(2).await;
    world.stop(3).await;
    let alone = world.group(1, 0);
    assert!(alone.propose(&world.campaign(0, 0)).await.is_err());
    assert!(alone.read_barrier().await.is_err());
    assert_eq!(alone.read(|state| state.campaigns().len()), 0);

    world.run(2).await;
    world.set_campaigns(1, 0, 0..1).await;
    world.assert_equal_states(0).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request() {
    let mut world = World::start(1, SnapshotRules::default()).await;
    world.configure(1).await;
    let leader = world.leader(0).await;
    let heir = world.running().into_iter().find(|node| *node != leader).unwrap();
    world.assert_equal_states(0).await;
    world.group(leader, 0).transfer_leader(heir).await.unwrap();
    // A new leader does not know yet how far the others are.
    let knows = |status: &GroupStatus| status.acknowledged.get(&leader).is_some_and(Option::is_some);
    let handed = world.status_when(heir, 0, |status| status.leader == Some(heir) && knows(status)).await;
    let reign = world.group(heir, 0).reign();
    assert_eq!(reign.leader, Some(heir));
    assert!(reign.behind.contains_key(&leader), "{reign:?}");
    world.group(heir, 0).transfer_leader(leader).await.unwrap();
    let back = world.status_when(heir, 0, |status| status.leader == Some(leader)).await;
    // The transfer alone raised the term by one. An election without a winner would have cost another term.
    assert_eq!(back.term, handed.term + 1);
    world.stop_all().await;
}
