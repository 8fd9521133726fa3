//! Where this node leads a group, it decides which node counts which shard.
//!
//! Reads: heartbeats and assignments. Writes: `AssignShard`. Promises: at most one round in flight; a round that lost a race
//! changes nothing, because each assignment names the epoch it saw. On restart: listens for a whole lease first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use clicktally_proto::command::{Command, Outcome};
use clicktally_raft_store::group::Group;
use clicktally_raft_store::placement::{Facts, PlacementRules};

/// How often placement looks. A dead node is noticed within a lease and one of these.
const ROUND: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct PlacementActor {
    group: Group,
    /// Every group of the cluster, to weigh a node's whole load.
    all: Arc<[Group]>,
    rules: PlacementRules,
    is_deciding: bool,
}

impl PlacementActor {
    pub fn new(group: Group, all: Arc<[Group]>, lease: Duration) -> PlacementActor {
        PlacementActor { group, all, rules: PlacementRules { lease }, is_deciding: false }
    }

    fn load_elsewhere(&self) -> BTreeMap<u64, usize> {
        let mut load = BTreeMap::new();
        for group in self.all.iter().filter(|group| group.id() != self.group.id()) {
            group.read(|state| {
                for owner in state.shards().values().filter_map(|shard| shard.owner) {
                    *load.entry(owner).or_default() += 1;
                }
            });
        }
        load
    }

    fn round(&mut self, context: &mut Context<Self>) {
        if self.is_deciding || !self.group.is_leader() {
            return;
        }
        let heartbeats = self.group.heartbeats();
        let shards = self.group.read(|state| state.shards().clone());
        let elsewhere = self.load_elsewhere();
        let decisions = self.rules.decide(&Facts { heartbeats: &heartbeats, shards: &shards, elsewhere: &elsewhere });
        if decisions.is_empty() {
            return;
        }
        self.is_deciding = true;
        let group = self.group.clone();
        let carry_out = async move {
            for assignment in decisions {
                let outcome = group.propose(&Command::AssignShard(assignment)).await;
                match outcome {
                    Ok(Outcome::Assigned { epoch }) => tracing::info!(
                        shard = assignment.shard.0,
                        owner = assignment.owner,
                        epoch = epoch.0,
                        "shard assigned"
                    ),
                    // The next round sees what has changed.
                    other => tracing::info!(shard = assignment.shard.0, ?other, "assignment not taken"),
                }
            }
        };
        context.spawn(carry_out.into_actor(self).map(|(), actor, _| actor.is_deciding = false));
    }
}

impl Actor for PlacementActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.run_interval(ROUND, Self::round);
    }
}
