//! Keeps leadership spread over the nodes, and away from a node that drains or leaves.
//!
//! Reads: heartbeats, the drain marks, and who leads each group. Does: at most one hand-over at a time, of a group that
//! this node leads ([`clicktally_state::leadership`] decides which). A hand-over that fails changes nothing, and is
//! decided anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::clock::Clock;
use clicktally_proto::identity::ids::NodeId;
use clicktally_raft_store::group::Group;
use clicktally_state::leadership::{GroupReign, HandOver, LeadershipFacts, LeadershipRules};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::metrics::METRICS;
use super::presence::Presence;

/// How often the keeper looks. A leaving node gives away one group per look, so this is short.
const ROUND: Duration = Duration::from_millis(50);
/// How long all leaders must be unchanged before one is moved for balance.
const SETTLE: Duration = Duration::from_secs(3);

pub struct LeadershipKeeper {
    node: NodeId,
    groups: Arc<[Group]>,
    presence: Presence,
    clock: Arc<dyn Clock>,
    rules: LeadershipRules,
    /// Leader and term of each group at the last look, and when any of them last changed, in monotonic time.
    reigns: Vec<(Option<NodeId>, u64)>,
    changed_at: Duration,
}

impl LeadershipKeeper {
    pub fn new(
        node: NodeId,
        groups: Arc<[Group]>,
        presence: Presence,
        clock: Arc<dyn Clock>,
        lease: Duration,
    ) -> LeadershipKeeper {
        let changed_at = clock.monotonic();
        let rules = LeadershipRules { lease, settle: SETTLE };
        LeadershipKeeper { node, groups, presence, clock, rules, reigns: Vec::new(), changed_at }
    }

    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut ticks = interval(ROUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let Some(HandOver { group, to }) = self.look() else { continue };
            let Some(handed) = self.groups.iter().find(|own| own.id() == group) else { continue };
            let outcome = tokio::select! {
                outcome = handed.transfer_leader(to) => outcome,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match outcome {
                Ok(()) => tracing::info!(group = group.0, to, "leadership handed over"),
                Err(error) => tracing::warn!(group = group.0, to, %error, "leadership not handed over"),
            }
        }
    }

    fn look(&mut self) -> Option<HandOver> {
        let now = self.clock.monotonic();
        self.note_leaders(now);
        let reigns: Vec<GroupReign> = self.groups.iter().map(Group::reign).collect();
        let led = reigns.iter().filter(|reign| reign.leader == Some(self.node)).count();
        METRICS.groups_led.set(i64::try_from(led).unwrap_or(i64::MAX));
        let draining: BTreeSet<NodeId> =
            self.groups.iter().flat_map(|group| group.read(|state| state.draining().clone())).collect();
        METRICS.is_draining.set(i64::from(draining.contains(&self.node)));
        if led == 0 {
            return None;
        }
        self.rules.decide(&LeadershipFacts {
            node: self.node,
            heartbeats: &self.presence.view(),
            draining: &draining,
            groups: &reigns,
            settled_for: now.saturating_sub(self.changed_at),
        })
    }

    fn note_leaders(&mut self, now: Duration) {
        let reigns: Vec<(Option<NodeId>, u64)> = self.groups.iter().map(Group::leader_and_term).collect();
        for (slot, &(leader, term)) in reigns.iter().enumerate() {
            let before = self.reigns.get(slot).copied();
            if before == Some((leader, term)) {
                continue;
            }
            self.changed_at = now;
            if leader.is_some() {
                let group = self.groups[slot].id().0;
                METRICS.leader_changes.with_label_values(&[&group.to_string()]).inc();
                tracing::info!(group, leader, term, "a leader");
            }
        }
        self.reigns = reigns;
    }
}
