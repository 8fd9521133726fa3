//! Which node counts which shard. Pure: who lives and who owns what go in, assignments come out.
//!
//! Run by the leader of each group. Two placements can never cross: every assignment names the epoch it saw.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_proto::command::AssignShard;
use clicktally_proto::ids::NodeId;
use clicktally_proto::shard_key::ShardId;

use crate::heartbeats::HeartbeatView;
use crate::state::ShardEntry;

/// How many shards may be moved for balance at once: a move pauses its shard, a dead owner's shards cannot wait.
pub const BALANCE_MOVES_MAX: usize = 2;

#[derive(Debug, Clone, Copy)]
pub struct PlacementRules {
    /// A node not heard for this long is dead: its shards go to others.
    pub lease: Duration,
}

/// What the leader sees of the cluster at one moment.
#[derive(Debug)]
pub struct Facts<'a> {
    pub heartbeats: &'a HeartbeatView,
    pub shards: &'a BTreeMap<ShardId, ShardEntry>,
    /// Shards of other groups by owner, so that a node's whole load is weighed.
    pub elsewhere: &'a BTreeMap<NodeId, usize>,
}

impl PlacementRules {
    pub fn decide(&self, facts: &Facts<'_>) -> Vec<AssignShard> {
        let live: BTreeMap<NodeId, bool> = facts
            .heartbeats
            .nodes
            .iter()
            .filter(|(_, heard)| heard.silent_for < self.lease)
            .map(|(&node, heard)| (node, heard.heartbeat.accepts_shards))
            .collect();
        // Before a new leader has listened for a whole lease, silence proves nothing; and until then it has not heard everybody,
        // so it would also give all homeless shards to whoever spoke first.
        if facts.heartbeats.leading_for < self.lease {
            return Vec::new();
        }
        let mut load: BTreeMap<NodeId, usize> = live
            .iter()
            .filter(|(_, accepts)| **accepts)
            .map(|(&node, _)| (node, facts.elsewhere.get(&node).copied().unwrap_or(0)))
            .collect();
        if load.is_empty() {
            return Vec::new();
        }
        let mut owners: BTreeMap<ShardId, Option<NodeId>> = BTreeMap::new();
        for (&shard, entry) in facts.shards {
            let owner = entry.owner.filter(|node| load.contains_key(node));
            if let Some(count) = owner.and_then(|node| load.get_mut(&node)) {
                *count += 1;
            }
            owners.insert(shard, owner);
        }
        let mut decisions = Vec::new();
        let assign = |shard: ShardId, node: NodeId| AssignShard {
            shard,
            owner: Some(node),
            expected_epoch: facts.shards.get(&shard).map(|entry| entry.epoch).unwrap_or_default(),
        };
        for (&shard, owner) in &mut owners {
            if owner.is_some() {
                continue;
            }
            let Some(node) = least_loaded(&load) else { break };
            *owner = Some(node);
            *load.entry(node).or_default() += 1;
            decisions.push(assign(shard, node));
        }
        for _ in 0..BALANCE_MOVES_MAX {
            let (Some(from), Some(to)) = (most_loaded(&load), least_loaded(&load)) else { break };
            if load[&from] <= load[&to] + 1 {
                break;
            }
            let is_movable = |shard: &ShardId| decisions.iter().all(|decided: &AssignShard| decided.shard != *shard);
            let moved = owners.iter().find(|(shard, owner)| **owner == Some(from) && is_movable(shard));
            let Some((&shard, _)) = moved else { break };
            owners.insert(shard, Some(to));
            *load.entry(from).or_default() -= 1;
            *load.entry(to).or_default() += 1;
            decisions.push(assign(shard, to));
        }
        decisions
    }
}

fn least_loaded(load: &BTreeMap<NodeId, usize>) -> Option<NodeId> {
    load.iter().min_by_key(|(node, count)| (**count, **node)).map(|(&node, _)| node)
}

fn most_loaded(load: &BTreeMap<NodeId, usize>) -> Option<NodeId> {
    load.iter().max_by_key(|(node, count)| (**count, **node)).map(|(&node, _)| node)
}

#[cfg(test)]
mod tests {
    use clicktally_proto::checkpoint::Epoch;
    use clicktally_proto::shard_key::GroupId;
    use proptest::prelude::*;

    use super::*;
    use crate::heartbeats::{HeardNode, Heartbeat};

    const LEASE: Duration = Duration::from_millis(1_500);

    fn view(nodes: &[(NodeId, u64, bool)]) -> HeartbeatView {
        let heard = |&(node, silent_ms, accepts_shards): &(NodeId, u64, bool)| {
            let heartbeat = Heartbeat { node, incarnation: 1, accepts_shards };
            (node, HeardNode { silent_for: Duration::from_millis(silent_ms), heartbeat })
        };
        HeartbeatView { leading_for: LEASE, nodes: nodes.iter().map(heard).collect() }
    }

    fn settle(view: &HeartbeatView, shards: &mut BTreeMap<ShardId, ShardEntry>) -> usize {
        let elsewhere = BTreeMap::new();
        for round in 0..100 {
            let decisions =
                PlacementRules { lease: LEASE }.decide(&Facts { heartbeats: view, shards, elsewhere: &elsewhere });
            if decisions.is_empty() {
                return round;
            }
            for decision in decisions {
                let entry = shards.get_mut(&decision.shard).unwrap();
                assert_eq!(entry.epoch, decision.expected_epoch);
                entry.owner = decision.owner;
                entry.epoch = Epoch(entry.epoch.0 + 1);
            }
        }
        panic!("placement does not settle");
    }

    fn shards() -> BTreeMap<ShardId, ShardEntry> {
        ShardId::of_group(GroupId(0)).map(|shard| (shard, ShardEntry::default())).collect()
    }

    fn counts(shards: &BTreeMap<ShardId, ShardEntry>) -> BTreeMap<NodeId, usize> {
        let mut counts = BTreeMap::new();
        for node in shards.values().filter_map(|entry| entry.owner) {
            *counts.entry(node).or_default() += 1;
        }
        counts
    }

    #[test]
    fn shards_of_a_dead_node_move_at_once_and_a_joining_node_gets_its_share() {
        let mut shards = shards();
        settle(&view(&[(1, 0, true), (2, 0, true)]), &mut shards);
        assert_eq!(counts(&shards), BTreeMap::from([(1, 8), (2, 8)]));
        settle(&view(&[(1, 1_500, true), (2, 0, true)]), &mut shards);
        assert_eq!(counts(&shards), BTreeMap::from([(2, 16)]));
        settle(&view(&[(1, 0, true), (2, 0, true), (3, 0, true)]), &mut shards);
        let settled = counts(&shards);
        assert!(settled.values().all(|&n| n == 5 || n == 6), "{settled:?}");
    }

    #[test]
    fn a_new_leader_declares_nobody_dead_before_it_has_listened_for_a_lease() {
        let mut shards = shards();
        shards.values_mut().for_each(|entry| entry.owner = Some(9));
        let heartbeats = HeartbeatView { leading_for: Duration::from_millis(10), ..view(&[(1, 0, true)]) };
        let facts = Facts { heartbeats: &heartbeats, shards: &shards, elsewhere: &BTreeMap::new() };
        assert!(PlacementRules { lease: LEASE }.decide(&facts).is_empty());
    }

    #[test]
    fn a_draining_node_loses_its_shards() {
        let mut shards = shards();
        settle(&view(&[(1, 0, true), (2, 0, true)]), &mut shards);
        settle(&view(&[(1, 0, false), (2, 0, true)]), &mut shards);
        assert_eq!(counts(&shards), BTreeMap::from([(2, 16)]));
    }

    proptest! {
        #[test]
        fn placement_settles_balanced_and_only_on_live_nodes(
            nodes in proptest::collection::btree_map(1_u64..8, (0_u64..3_000, any::<bool>()), 0..7),
            owners in proptest::collection::vec(proptest::option::of(1_u64..10), 16)
        ) {
            let nodes: Vec<_> = nodes.into_iter().map(|(node, (silent, accepts))| (node, silent, accepts)).collect();
            let mut shards = shards();
            for (entry, owner) in shards.values_mut().zip(&owners) {
                entry.owner = *owner;
            }
            settle(&view(&nodes), &mut shards);
            let usable: Vec<NodeId> = nodes.iter().filter(|(_, silent, accepts)| *silent < 1_500 && *accepts).map(|n| n.0).collect();
            if !usable.is_empty() {
                let counts = counts(&shards);
                prop_assert_eq!(counts.values().sum::<usize>(), 16);
                prop_assert!(counts.keys().all(|node| usable.contains(node)));
                let most = counts.values().max().unwrap();
                let least = usable.iter().map(|node| counts.get(node).copied().unwrap_or(0)).min().unwrap();
                prop_assert!(most - least <= 1);
            }
        }
    }
}
