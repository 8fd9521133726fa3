use clicktally_proto::checkpoint::Epoch;
use clicktally_proto::identity::shard_key::GroupId;
use proptest::prelude::*;

use super::*;
use crate::liveness::{HeardNode, Heartbeat};

const RULES: PlacementRules = PlacementRules { lease: Duration::from_millis(1_500) };

/// A cluster whose owners obey every plan at once.
struct World {
    heartbeats: HeartbeatView,
    removed: BTreeSet<NodeId>,
    draining: BTreeSet<NodeId>,
    shards: BTreeMap<ShardId, ShardEntry>,
    elsewhere: BTreeMap<ShardId, Seat>,
    is_balance_asked: bool,
}

impl World {
    fn new(nodes: impl IntoIterator<Item = NodeId>) -> World {
        let mut world = World {
            heartbeats: HeartbeatView { listening_for: RULES.lease, ..HeartbeatView::default() },
            removed: BTreeSet::new(),
            draining: BTreeSet::new(),
            shards: ShardId::of_group(GroupId(0)).map(|shard| (shard, ShardEntry::default())).collect(),
            elsewhere: BTreeMap::new(),
            is_balance_asked: false,
        };
        nodes.into_iter().for_each(|node| world.node(node, |_| {}));
        world
    }

    fn node(&mut self, node: NodeId, change: impl FnOnce(&mut HeardNode)) {
        let fresh = || HeardNode {
            silent_for: Duration::ZERO,
            heartbeat: Heartbeat {
                node,
                incarnation: 1,
                accepts_shards: true,
                is_leaving: false,
                threads: 1,
                loads: Vec::new(),
            },
        };
        change(self.heartbeats.nodes.entry(node).or_insert_with(fresh));
    }

    fn loads(mut self, clicks_per_s: &[u64]) -> World {
        for (&shard, &clicks_per_s) in self.shards.keys().zip(clicks_per_s) {
            self.heartbeats.loads.insert(shard, ShardLoad { clicks_per_s, lag_clicks: 0 });
        }
        self
    }

    fn decide(&self) -> Vec<Decision> {
        let members = self.heartbeats.nodes.keys().copied().filter(|node| !self.removed.contains(node)).collect();
        let facts = PlacementFacts {
            heartbeats: &self.heartbeats,
            members: &members,
            draining: &self.draining,
            shards: &self.shards,
            elsewhere: &self.elsewhere,
            is_balance_asked: self.is_balance_asked,
        };
        RULES.decide(&facts)
    }

    fn carry_out(&mut self, decision: Decision) {
        let (shard, owner, expected) = match decision {
            Decision::Assign(AssignShard { shard, owner, expected_epoch }) => (shard, owner, expected_epoch),
            Decision::Plan(PlanMove { shard, heir: Some(heir), expected_epoch }) => (shard, Some(heir), expected_epoch),
            Decision::Plan(PlanMove { shard, heir: None, .. }) => {
                return self.shards.get_mut(&shard).unwrap().heir = None;
            }
        };
        let entry = self.shards.get_mut(&shard).unwrap();
        assert_eq!(entry.epoch, expected);
        assert!(owner.is_some(), "placement never takes a shard away from everybody");
        assert_ne!(entry.owner, owner, "a move to where the shard is");
        *entry = ShardEntry { owner, heir: None, epoch: Epoch(expected.0 + 1), ..entry.clone() };
    }

    /// Round after round until there is nothing to do; how many decisions there were.
    fn settle(&mut self) -> usize {
        let mut count = 0;
        for _ in 0..200 {
            let decisions = self.decide();
            if decisions.is_empty() {
                return count;
            }
            count += decisions.len();
            decisions.into_iter().for_each(|decision| self.carry_out(decision));
        }
        panic!("placement does not settle: {:?}", self.owners());
    }

    fn owners(&self) -> Vec<Option<NodeId>> {
        self.shards.values().map(|entry| entry.owner).collect()
    }

    fn counts(&self) -> BTreeMap<NodeId, usize> {
        let mut counts = BTreeMap::new();
        for node in self.owners().into_iter().flatten() {
            *counts.entry(node).or_default() += 1;
        }
        counts
    }

    fn weight_of(&self, node: NodeId) -> u64 {
        let own = self.shards.iter().filter(|(_, entry)| entry.owner == Some(node));
        own.map(|(shard, _)| weight(self.heartbeats.loads.get(shard).copied().unwrap_or_default())).sum()
    }
}

fn silence(heard: &mut HeardNode) {
    heard.silent_for = RULES.lease;
}

fn leave(heard: &mut HeardNode) {
    heard.heartbeat.is_leaving = true;
}

#[test]
fn shards_of_a_dead_node_are_assigned_in_one_round_and_a_joining_node_gets_its_share() {
    let mut world = World::new([1, 2]);
    world.settle();
    assert_eq!(world.counts(), BTreeMap::from([(1, 8), (2, 8)]));
    world.node(1, silence);
    let decisions = world.decide();
    assert_eq!(decisions.len(), 8);
    assert!(decisions.iter().all(|decision| matches!(decision, Decision::Assign(_))));
    world.settle();
    assert_eq!(world.counts(), BTreeMap::from([(2, 16)]));
    world.node(1, |heard| heard.silent_for = Duration::ZERO);
    world.node(3, |_| {});
    world.settle();
    assert!(world.counts().values().all(|&n| n == 5 || n == 6), "{:?}", world.counts());
}

#[test]
fn nobody_is_declared_dead_before_a_lease_of_listening() {
    let mut world = World::new([1]);
    world.shards.values_mut().for_each(|entry| entry.owner = Some(9));
    world.heartbeats.listening_for = RULES.lease - Duration::from_millis(1);
    assert!(world.decide().is_empty());
}

#[test]
fn a_draining_node_gives_its_shards_away_a_few_at_a_time_and_in_order() {
    let mut world = World::new([1, 2]);
    world.settle();
    world.draining.insert(1);
    let first = world.decide();
    assert_eq!(first.len(), DRAIN_MOVES_MAX);
    assert!(first.iter().all(|decision| matches!(decision, Decision::Plan(_))), "{first:?}");
    // Plans that are under way count.
    for decision in &first {
        let Decision::Plan(plan) = decision else { unreachable!() };
        world.shards.get_mut(&plan.shard).unwrap().heir = plan.heir;
    }
    assert!(world.decide().is_empty());
    world.shards.values_mut().for_each(|entry| entry.heir = None);
    world.settle();
    assert_eq!(world.counts(), BTreeMap::from([(2, 16)]));
    world.draining.clear();
    world.settle();
    assert_eq!(world.counts(), BTreeMap::from([(1, 8), (2, 8)]));
}

#[test]
fn a_leaving_node_gives_all_its_shards_away_at_once_and_in_order() {
    let mut world = World::new([1, 2, 3]);
    world.settle();
    let owned = world.counts()[&1];
    world.node(1, leave);
    let decisions = world.decide();
    assert_eq!(decisions.len(), owned);
    assert!(decisions.iter().all(|decision| matches!(decision, Decision::Plan(PlanMove { heir: Some(2 | 3), .. }))));
}

#[test]
fn a_shard_whose_heir_died_stays_and_one_whose_owner_died_goes_to_its_heir() {
    let mut world = World::new([1, 2, 3]);
    world.settle();
    let shard = *world.shards.iter().find(|(_, entry)| entry.owner == Some(1)).unwrap().0;
    world.shards.get_mut(&shard).unwrap().heir = Some(3);
    world.node(3, silence);
    let expected_epoch = world.shards[&shard].epoch;
    let back = Decision::Plan(PlanMove { shard, heir: None, expected_epoch });
    assert!(world.decide().contains(&back));

    world.node(3, |heard| heard.silent_for = Duration::ZERO);
    world.node(1, silence);
    let inherited = Decision::Assign(AssignShard { shard, owner: Some(3), expected_epoch });
    assert!(world.decide().contains(&inherited));
}

#[test]
fn a_removed_node_that_is_still_heard_is_given_nothing() {
    let mut world = World::new([1, 2]);
    world.settle();
    world.removed.insert(2);
    world.settle();
    assert_eq!(world.counts(), BTreeMap::from([(1, 16)]));
}

#[test]
fn where_only_draining_nodes_are_left_they_count_on() {
    let mut world = World::new([1]);
    world.draining.insert(1);
    world.settle();
    assert_eq!(world.counts(), BTreeMap::from([(1, 16)]));
}

#[test]
fn load_decides_where_counts_are_even() {
    let mut hot = [0; 16];
    // Round robin gives node 1 the even shards, and all four hot ones.
    hot[0] = 50_000;
    hot[2] = 50_000;
    hot[4] = 50_000;
    hot[6] = 50_000;
    let mut world = World::new([1, 2]);
    for (index, entry) in world.shards.values_mut().enumerate() {
        entry.owner = Some(1 + index as u64 % 2);
    }
    let mut world = world.loads(&hot);
    let before = world.weight_of(1);
    assert!(world.settle() <= 4);
    assert!(world.weight_of(1).max(world.weight_of(2)) < before * 6 / 10, "{:?}", world.owners());
}

#[test]
fn a_hot_shard_alone_on_its_node_is_left_alone() {
    let mut loads = [1_000; 16];
    loads[0] = 1_000_000;
    let mut world = World::new([1, 2, 3]);
    for (index, entry) in world.shards.values_mut().enumerate() {
        entry.owner = Some(if index == 0 { 1 } else { 2 + index as u64 % 2 });
    }
    let mut world = world.loads(&loads);
    assert_eq!(world.settle(), 0);
    // Were it not alone, the others would go and it would stay.
    world.shards.values_mut().for_each(|entry| entry.owner = Some(1));
    world.settle();
    assert_eq!(world.counts()[&1], 1, "{:?}", world.owners());
    assert_eq!(world.owners()[0], Some(1));
}

#[test]
fn more_threads_carry_more() {
    let mut world = World::new([1, 2]);
    world.node(1, |heard| heard.heartbeat.threads = 3);
    world.settle();
    assert_eq!(world.counts(), BTreeMap::from([(1, 12), (2, 4)]));
}

#[test]
fn shards_of_other_groups_weigh_and_their_moves_count() {
    let mut world = World::new([1, 2]);
    for shard in ShardId::of_group(GroupId(1)) {
        world.elsewhere.insert(shard, Seat { owner: Some(1), heir: None });
    }
    world.settle();
    assert_eq!(world.counts(), BTreeMap::from([(2, 16)]));
    world.node(3, |_| {});
    let under_way = world.elsewhere.values_mut().take(BALANCE_MOVES_MAX);
    under_way.for_each(|seat| seat.heir = Some(3));
    assert!(world.decide().is_empty());
}

#[test]
fn small_differences_are_left_alone_unless_somebody_asks() {
    let mut world = World::new([1, 2]);
    for (index, entry) in world.shards.values_mut().enumerate() {
        entry.owner = Some(1 + index as u64 % 2);
    }
    let mut loads: Vec<u64> = (0..16).map(|shard| if shard % 2 == 0 { 20_000 } else { 22_000 }).collect();
    // A small one more on node 1 tips it, by less than anybody should be paused for.
    *world.shards.values_mut().last().map(|entry| &mut entry.owner).unwrap() = Some(1);
    loads[15] = 5_000;
    let mut world = world.loads(&loads);
    assert!(world.decide().is_empty());
    world.is_balance_asked = true;
    let first = world.decide();
    assert!(!first.is_empty());
    assert!(first.len() <= BALANCE_MOVES_MAX);
}

proptest! {
    #[test]
    fn placement_settles_balanced_and_only_on_nodes_that_may_have_shards(
        nodes in proptest::collection::btree_map(1_u64..8, (0_u64..3_000, any::<bool>(), any::<bool>(), any::<bool>()), 0..7),
        owners in proptest::collection::vec(proptest::option::of(1_u64..10), 16),
        heirs in proptest::collection::vec(proptest::option::weighted(0.2, 1_u64..10), 16),
    ) {
        let mut world = World::new([]);
        for (&node, &(silent_ms, accepts, leaves, drains)) in &nodes {
            world.node(node, |heard| {
                heard.silent_for = Duration::from_millis(silent_ms);
                heard.heartbeat.accepts_shards = accepts;
                heard.heartbeat.is_leaving = leaves;
            });
            if drains {
                world.draining.insert(node);
            }
        }
        for ((entry, owner), heir) in world.shards.values_mut().zip(&owners).zip(&heirs) {
            entry.owner = *owner;
            entry.heir = heir.filter(|heir| owner.is_some_and(|owner| owner != *heir));
        }
        world.settle_with_heirs();
        let lives = |(silent_ms, accepts, leaves, _): &(u64, bool, bool, bool)| *silent_ms < 1_500 && *accepts && !*leaves;
        let mut usable: Vec<NodeId> = nodes.iter().filter(|(_, node)| lives(node) && !node.3).map(|(&node, _)| node).collect();
        if usable.is_empty() {
            usable = nodes.iter().filter(|(_, node)| lives(node)).map(|(&node, _)| node).collect();
        }
        if !usable.is_empty() {
            let counts = world.counts();
            prop_assert_eq!(counts.values().sum::<usize>(), 16);
            prop_assert!(counts.keys().all(|node| usable.contains(node)), "{:?} of {:?}", counts, usable);
            let most = counts.values().max().unwrap();
            let least = usable.iter().map(|node| counts.get(node).copied().unwrap_or(0)).min().unwrap();
            prop_assert!(most - least <= 1);
        }
    }

    #[test]
    fn every_balancing_move_lowers_the_heavier_of_its_nodes_and_then_they_end(
        owners in proptest::collection::vec(1_u64..5, 16),
        loads in proptest::collection::vec(prop_oneof![3 => 0_u64..20_000, 1 => 0_u64..1_000_000], 16),
        is_balance_asked in any::<bool>(),
    ) {
        let mut world = World::new(1..5);
        world.is_balance_asked = is_balance_asked;
        for (entry, owner) in world.shards.values_mut().zip(&owners) {
            entry.owner = Some(*owner);
        }
        let mut world = world.loads(&loads);
        let mut moves = 0;
        loop {
            let decisions = world.decide();
            if decisions.is_empty() {
                break;
            }
            prop_assert!(decisions.len() <= BALANCE_MOVES_MAX);
            for decision in decisions {
                let Decision::Plan(PlanMove { shard, heir: Some(to), .. }) = decision else {
                    return Err(TestCaseError::fail(format!("{decision:?}")));
                };
                let from = world.shards[&shard].owner.unwrap();
                let before = world.weight_of(from);
                world.carry_out(decision);
                prop_assert!(world.weight_of(from).max(world.weight_of(to)) < before);
                moves += 1;
                prop_assert!(moves < 200, "it does not come to rest");
            }
        }
        prop_assert_eq!(world.counts().values().sum::<usize>(), 16);
    }
}

impl World {
    /// Owners hand over to heirs that were planned before the world was looked at, as far as those can take.
    fn settle_with_heirs(&mut self) {
        for _ in 0..3 {
            self.settle();
            let able = |world: &World, node: NodeId| world.heartbeats.live(RULES.lease).any(|(live, _)| live == node);
            let planned: Vec<(ShardId, NodeId)> =
                self.shards.iter().filter_map(|(&shard, entry)| Some((shard, entry.heir?))).collect();
            for (shard, heir) in planned.into_iter().filter(|(_, heir)| able(self, *heir)).collect::<Vec<_>>() {
                let entry = self.shards.get_mut(&shard).unwrap();
                *entry = ShardEntry { owner: Some(heir), heir: None, epoch: Epoch(entry.epoch.0 + 1), ..entry.clone() };
            }
        }
        self.settle();
    }
}
