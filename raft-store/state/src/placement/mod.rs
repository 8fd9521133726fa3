//! Which node counts which shard. Pure: who lives, who owns what and what it costs go in, assignments and plans come
//! out.
//!
//! Run by the leader of each group. In this order:
//!
//! 1. A shard without a living owner is assigned at once, because no node counts it.
//! 2. A node that leaves gives everything away at once, a draining one a few shards at a time, both in order: a plan
//!    asks the owner to commit what it has read and to hand over itself ([`clicktally_proto::command::PlanMove`]).
//! 3. What is left over moves to even out the load, rarely and a little at a time ([`balance`]).
//!
//! Two placements can never cross: every assignment and every plan names the epoch it saw.

pub mod balance;
mod node_loads;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clicktally_proto::command::{AssignShard, PlanMove};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;

use crate::group_state::GroupState;
use crate::liveness::{HeartbeatView, ShardLoad};
use crate::shards::ShardEntry;
use node_loads::NodeLoads;
pub use node_loads::{IDLE_SHARD_CLICKS_PER_S, weight};

/// How many of a group's shards leave a draining node at the same time: each is paused for a moment.
pub const DRAIN_MOVES_MAX: usize = 2;
/// How many shards of the whole cluster move for balance at the same time.
pub const BALANCE_MOVES_MAX: usize = 2;

#[derive(Debug, Clone, Copy)]
pub struct PlacementRules {
    /// A node not heard for this long is dead: its shards go to others.
    pub lease: Duration,
}

/// What the leader sees of the cluster at one moment.
#[derive(Debug)]
pub struct PlacementFacts<'a> {
    pub heartbeats: &'a HeartbeatView,
    /// The nodes that may count: one that was removed may still be heard.
    pub members: &'a BTreeSet<NodeId>,
    pub draining: &'a BTreeSet<NodeId>,
    /// The shards of this group.
    pub shards: &'a BTreeMap<ShardId, ShardEntry>,
    /// The shards of the other groups, so that the rule weighs a node's whole load.
    pub elsewhere: &'a BTreeMap<ShardId, Seat>,
    /// An operator asked for balance now: any improvement is worth a move.
    pub is_balance_asked: bool,
}

/// Where a shard is, and where it is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    pub owner: Option<NodeId>,
    pub heir: Option<NodeId>,
}

impl From<&ShardEntry> for Seat {
    fn from(entry: &ShardEntry) -> Seat {
        Seat { owner: entry.owner, heir: entry.heir }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Now, whatever the owner thinks of it.
    Assign(AssignShard),
    /// In order, by the owner.
    Plan(PlanMove),
}

impl PlacementRules {
    pub fn decide(&self, facts: &PlacementFacts<'_>) -> Vec<Decision> {
        // Until this node has listened for a whole lease, silence proves nothing. It may not have heard every node
        // yet, and would give all shards without an owner to the first node it heard.
        if !facts.heartbeats.has_listened(self.lease) {
            return Vec::new();
        }
        Round::new(self, facts).decide()
    }
}

/// One decision in the making: the seats as they will be.
struct Round<'a> {
    facts: &'a PlacementFacts<'a>,
    /// Nodes whose shards are counted now, whether or not they keep them.
    present: BTreeSet<NodeId>,
    leaving: BTreeSet<NodeId>,
    /// The load of the nodes that may be given shards.
    takers: NodeLoads,
    seats: BTreeMap<ShardId, Seat>,
    decisions: Vec<Decision>,
}

impl<'a> Round<'a> {
    fn new(rules: &PlacementRules, facts: &'a PlacementFacts<'a>) -> Round<'a> {
        let is_member = |node: NodeId| facts.members.contains(&node);
        let live = || {
            let heard = facts.heartbeats.live(rules.lease);
            heard.filter(|(node, heartbeat)| heartbeat.accepts_shards && is_member(*node))
        };
        let is_staying = |node: &NodeId, is_leaving: bool| !is_leaving && !facts.draining.contains(node);
        let mut takers: Vec<(NodeId, u16)> = live()
            .filter(|(node, heartbeat)| is_staying(node, heartbeat.is_leaving))
            .map(|(node, heartbeat)| (node, heartbeat.threads))
            .collect();
        if takers.is_empty() {
            // Better counted by a node that is to be emptied than by none.
            takers = live().filter(|(_, heartbeat)| !heartbeat.is_leaving).map(|(node, h)| (node, h.threads)).collect();
        }
        let mut round = Round {
            facts,
            present: live().map(|(node, _)| node).collect(),
            leaving: live().filter(|(_, heartbeat)| heartbeat.is_leaving).map(|(node, _)| node).collect(),
            takers: NodeLoads::new(takers),
            seats: facts.shards.iter().map(|(&shard, entry)| (shard, entry.into())).collect(),
            decisions: Vec::new(),
        };
        for (&shard, seat) in facts.elsewhere.iter().chain(&round.seats) {
            let keeper = seat.heir.filter(|heir| round.takers.has(*heir)).or(seat.owner);
            if let Some(node) = keeper {
                round.takers.add(node, weight(round.load(shard)));
            }
        }
        round
    }

    fn decide(mut self) -> Vec<Decision> {
        if self.takers.is_empty() {
            return Vec::new();
        }
        self.house_the_homeless();
        self.forget_heirs_that_cannot_take();
        self.empty_nodes();
        self.even_out();
        self.decisions
    }

    /// Heaviest first: the light ones then fill the gaps.
    fn house_the_homeless(&mut self) {
        let mut homeless: Vec<ShardId> =
            self.seats_where(|round, seat| !seat.owner.is_some_and(|n| round.present.contains(&n)));
        homeless.sort_by_key(|&shard| (std::cmp::Reverse(weight(self.load(shard))), shard));
        for shard in homeless {
            let heir = self.seats[&shard].heir.filter(|heir| self.takers.has(*heir));
            // An heir is in the loads already.
            let Some(node) = heir.or_else(|| self.takers.lightest_after(weight(self.load(shard)))) else { return };
            if heir.is_none() {
                self.takers.add(node, weight(self.load(shard)));
            }
            self.seats.insert(shard, Seat { owner: Some(node), heir: None });
            let expected_epoch = self.facts.shards[&shard].epoch;
            self.decisions.push(Decision::Assign(AssignShard { shard, owner: Some(node), expected_epoch }));
        }
    }

    /// Only where the owner may keep the shard; a node that goes is given another heir below.
    fn forget_heirs_that_cannot_take(&mut self) {
        let is_stale = |round: &Round<'_>, seat: &Seat| {
            seat.heir.is_some_and(|heir| !round.takers.has(heir))
                && seat.owner.is_some_and(|owner| round.takers.has(owner))
        };
        for shard in self.seats_where(is_stale) {
            self.plan(shard, None);
        }
    }

    fn empty_nodes(&mut self) {
        let is_going = |round: &Round<'_>, seat: &Seat| seat.owner.is_some_and(|owner| !round.takers.has(owner));
        let has_heir = |round: &Round<'_>, seat: &Seat| seat.heir.is_some_and(|heir| round.takers.has(heir));
        let under_way = self.seats_where(|round, seat| is_going(round, seat) && has_heir(round, seat)).len();
        let mut drains_left = DRAIN_MOVES_MAX.saturating_sub(under_way);
        for shard in self.seats_where(|round, seat| is_going(round, seat) && !has_heir(round, seat)) {
            if !self.seats[&shard].owner.is_some_and(|owner| self.leaving.contains(&owner)) {
                if drains_left == 0 {
                    continue;
                }
                drains_left -= 1;
            }
            let shard_weight = weight(self.load(shard));
            let Some(node) = self.takers.lightest_after(shard_weight) else { return };
            self.takers.add(node, shard_weight);
            self.plan(shard, Some(node));
        }
    }

    fn even_out(&mut self) {
        let is_moving = |seat: &Seat| seat.heir.is_some();
        let seats = self.seats.values().chain(self.facts.elsewhere.values());
        let under_way = seats.filter(|seat| is_moving(seat)).count();
        // Where many shards have just changed hands, balance can wait.
        for _ in under_way..BALANCE_MOVES_MAX {
            let settled =
                self.seats_where(|round, seat| seat.owner.is_some_and(|n| round.takers.has(n)) && !is_moving(seat));
            let movable = settled.into_iter().filter_map(|shard| {
                let owner = self.seats[&shard].owner?;
                let is_just_assigned = self.facts.shards[&shard].owner != Some(owner);
                (!is_just_assigned).then(|| (shard, owner, weight(self.load(shard))))
            });
            let movable: Vec<(ShardId, NodeId, u64)> = movable.collect();
            let Some(best) = balance::best_move(&self.takers, &movable, self.facts.is_balance_asked) else { return };
            self.takers.transfer(best.from, best.to, best.weight);
            self.plan(best.shard, Some(best.to));
        }
    }

    fn plan(&mut self, shard: ShardId, heir: Option<NodeId>) {
        if let Some(seat) = self.seats.get_mut(&shard) {
            seat.heir = heir;
        }
        let expected_epoch = self.facts.shards[&shard].epoch;
        self.decisions.push(Decision::Plan(PlanMove { shard, heir, expected_epoch }));
    }

    fn seats_where(&self, is_wanted: impl Fn(&Round<'_>, &Seat) -> bool) -> Vec<ShardId> {
        self.seats.iter().filter(|(_, seat)| is_wanted(self, seat)).map(|(&shard, _)| shard).collect()
    }

    fn load(&self, shard: ShardId) -> ShardLoad {
        self.facts.heartbeats.loads.get(&shard).copied().unwrap_or_default()
    }
}

/// The seats of a group's shards, for the leaders of others.
pub fn seats(state: &GroupState) -> impl Iterator<Item = (ShardId, Seat)> + '_ {
    state.shards().iter().map(|(&shard, entry)| (shard, entry.into()))
}

#[cfg(test)]
mod tests;
