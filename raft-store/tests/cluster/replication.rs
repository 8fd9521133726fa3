use clicktally_proto::command::Command;
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_raft_store::store_config::SnapshotRules;
use clicktally_state::liveness::{Heartbeat, ShardLoad};

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_of_every_group_holds_the_same_bytes() {
    let mut world = World::start(2, SnapshotRules::default()).await;
    world.configure(1).await;
    for group in 0..2 {
        for node in 1..=3 {
            // Propose through each node: followers forward to the leader.
            let from = node as usize * 10;
            world.set_campaigns(node, group, from..from + 10).await;
        }
    }
    for group in 0..2 {
        let bytes = world.assert_equal_states(group).await;
        assert_eq!(world.group(1, group).read(|state| state.campaigns().len()), 30);

        // Restart all nodes: the log alone restores the same bytes.
        world.stop_all().await;
        for node in 1..=3 {
            world.run(node).await;
        }
        assert!(world.assert_equal_states(group).await == bytes, "a restart changed the state");
    }
    world.set_campaigns(2, 1, 30..31).await;
    world.assert_equal_states(1).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_knows_how_fresh_it_is() {
    let mut world = World::start(1, SnapshotRules::default()).await;
    let leader = world.leader(0).await;
    let follower = world.running().into_iter().find(|node| *node != leader).unwrap();
    assert!(world.group(follower, 0).read_barrier().await.is_ok());
    assert!(world.group(follower, 0).staleness().is_some());
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_hears_every_other_whoever_leads() {
    let mut world = World::start(2, SnapshotRules::default()).await;
    world.configure(1).await;
    // Each node knows its peers from the membership that it has replicated.
    world.assert_equal_states(0).await;
    for node in 1..=3 {
        let heartbeat = Heartbeat {
            node,
            incarnation: 7,
            accepts_shards: true,
            is_leaving: false,
            threads: 2,
            loads: vec![(ShardId(5), ShardLoad { clicks_per_s: node, lag_clicks: 0 })],
        };
        world.announcer(node).announce(&heartbeat).delivered().await;
        for listener in 1..=3 {
            let heard = world.group(listener, 1).heartbeats();
            assert_eq!(heard.nodes[&node].heartbeat, heartbeat);
            assert_eq!(heard.loads[&ShardId(5)].clicks_per_s, node);
        }
    }
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_lease_goes_through_a_follower_and_is_given_once() {
    let mut world = World::start(1, SnapshotRules::default()).await;
    world.configure(3).await;
    let mut leased = Vec::new();
    for node in 1..=3 {
        let lease = Command::LeaseWorker { node, incarnation: 1 };
        let outcome = world.propose(node, 0, &lease).await;
        assert_eq!(world.propose(node, 0, &lease).await, outcome, "a retry must get the same answer");
        assert!(!leased.contains(&outcome), "{outcome:?} was given twice");
        leased.push(outcome);
    }
    world.stop_all().await;
}
