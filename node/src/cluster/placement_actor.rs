//! Decides which node counts which shard, for each group that this node leads.
//!
//! Reads: heartbeats, drain marks and assignments. Writes: `AssignShard` and `PlanMove`. Promises: at most one round is
//! in flight. A round that lost a race changes nothing, because each assignment names the epoch it saw. On restart:
//! listens for a whole lease first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use clicktally_proto::command::{Command, Outcome, Rejection};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_raft_store::FailStopOnPanic;
use clicktally_raft_store::group::Group;
use clicktally_state::placement::{Decision, PlacementFacts, PlacementRules, Seat, seats};
use futures::future::join_all;

/// How often placement looks. It notices a dead node within a lease plus one of these intervals.
const ROUND: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct PlacementActor {
    group: Group,
    /// Every group of the cluster, to measure a node's whole load.
    all: Arc<[Group]>,
    rules: PlacementRules,
    is_deciding: bool,
    /// A node whose placement has ended must not go on leading.
    _guard: FailStopOnPanic,
}

impl PlacementActor {
    pub fn new(group: Group, all: Arc<[Group]>, lease: Duration) -> PlacementActor {
        let guard = FailStopOnPanic("placing the shards of a group");
        PlacementActor { group, all, rules: PlacementRules { lease }, is_deciding: false, _guard: guard }
    }

    /// Returns the seats of the other groups' shards, as this node's replicas have them.
    fn seats_elsewhere(&self) -> BTreeMap<ShardId, Seat> {
        let others = self.all.iter().filter(|group| group.id() != self.group.id());
        others.flat_map(|group| group.read(|state| seats(state).collect::<Vec<_>>())).collect()
    }

    fn round(&mut self, context: &mut Context<Self>) {
        if self.is_deciding || !self.group.is_leader() {
            return;
        }
        let (shards, draining, members) = self.group.read(|state| {
            let members: BTreeSet<NodeId> = state.nodes().keys().copied().collect();
            (state.shards().clone(), state.draining().clone(), members)
        });
        let decisions = self.rules.decide(&PlacementFacts {
            heartbeats: &self.group.heartbeats(),
            members: &members,
            draining: &draining,
            shards: &shards,
            elsewhere: &self.seats_elsewhere(),
            is_balance_asked: self.group.take_rebalance(),
        });
        if decisions.is_empty() {
            return;
        }
        self.is_deciding = true;
        let group = self.group.clone();
        // Propose all moves at once: a dead node's shards should not wait for each other's commits.
        let carry_out = async move {
            join_all(decisions.into_iter().map(|decision| carry_out(&group, decision))).await;
        };
        context.spawn(carry_out.into_actor(self).map(|(), actor, _| actor.is_deciding = false));
    }
}

async fn carry_out(group: &Group, decision: Decision) {
    let (command, shard, node) = match decision {
        Decision::Assign(assignment) => (Command::AssignShard(assignment), assignment.shard, assignment.owner),
        Decision::Plan(plan) => (Command::PlanMove(plan), plan.shard, plan.heir),
    };
    let shard = shard.0;
    match (decision, group.propose(&command).await) {
        (Decision::Assign(_), Ok(Outcome::Assigned { epoch })) => {
            tracing::info!(shard, owner = node, epoch = epoch.0, "shard assigned");
        }
        (Decision::Plan(_), Ok(Outcome::Done)) => tracing::info!(shard, heir = node, "move planned"),
        // During an upgrade this happens in every round.
        (Decision::Plan(_), Ok(Outcome::Rejected(reason @ Rejection::NeedsUpgrade { .. }))) => {
            tracing::debug!(shard, %reason, "a planned move is not possible yet");
        }
        // The next round sees the change.
        (_, other) => tracing::info!(shard, node, ?other, "decision not carried out"),
    }
}

impl Actor for PlacementActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.run_interval(ROUND, Self::round);
    }
}
