//! How replicas follow the group's log, and which questions wait for them.

use std::sync::Arc;

use super::consensus::encode;
use super::event::{Event, IndexFor, Life, NodeEvent};
use super::owner::Phase;
use super::world::World;
use crate::checks::ct3_replicas_equal;

const CATCH_UP_EVERY_MS: u64 = 300;
/// Entries a replica applies at a time.
const ENTRIES_PER_TURN: u64 = 100;

impl World {
    pub(super) fn catch_up(&mut self, life: Life, is_periodic: bool) {
        if is_periodic {
            self.agenda.after(CATCH_UP_EVERY_MS, Event::To(life, NodeEvent::CatchUp { is_periodic }));
        }
        let Some(leader) = self.consensus.leader.filter(|leader| self.is_linked(*leader, life.node)) else { return };
        let term = self.consensus.term;
        let committed = self.consensus.committed();
        let every = self.plan.snapshot_every;
        // A leader purges the entries that its newest snapshot covers, but keeps those that slightly lagging replicas
        // may need.
        let purged_to = (committed / every * every).saturating_sub(self.plan.log_kept);
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        (node.memory.known_leader, node.memory.known_term) = (Some(leader), term);
        // A leader holds everything committed: it reads its own log.
        if leader != life.node && node.memory.replica.applied < purged_to {
            return self.send_snapshot(leader, life);
        }
        let upto = committed.min(node.memory.replica.applied + ENTRIES_PER_TURN);
        let is_behind = upto < committed;
        let mut digests = Vec::new();
        while node.memory.replica.applied < upto {
            let (replica, disk) = (&mut node.memory.replica, &mut node.disk);
            digests.extend(replica.apply_next(life.node, &self.consensus, disk, self.plan.snapshot_every));
        }
        for found in digests {
            let wanted = self.consensus.digest_at(found.index);
            let sights: Vec<_> = wanted.into_iter().chain([found]).collect();
            self.watch.found(ct3_replicas_equal::check(&sights));
        }
        if is_behind {
            self.agenda.after(1, Event::To(life, NodeEvent::CatchUp { is_periodic: false }));
        }
        self.look_at_assignments(life);
        self.look_at_replica(life);
    }

    /// Sends a snapshot because the leader has purged the entries that this replica lacks. Sends nothing if the
    /// leader's own replica is no further.
    fn send_snapshot(&mut self, leader: u64, to: Life) {
        let replica = &self.nodes[&leader].memory.replica;
        let (index, bytes) = (replica.applied, Arc::from(encode(&replica.state)));
        if index <= self.nodes[&to.node].memory.replica.applied {
            return;
        }
        self.report.fault("snapshot installed");
        self.send(leader, to, NodeEvent::Installed(index, bytes));
    }

    pub(super) fn install(&mut self, life: Life, index: u64, bytes: Arc<[u8]>) {
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        node.memory.replica.install(index, bytes, &mut node.disk);
        self.trace_line(format_args!("node {} installs a snapshot of index {index}", life.node));
        self.look_at_assignments(life);
        self.look_at_replica(life);
    }

    /// Wakes the questions that waited for an index that the replica has now.
    pub(super) fn look_at_replica(&mut self, life: Life) {
        let committed = self.consensus.committed();
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        let applied = node.memory.replica.applied;
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut node.memory.awaited).into_iter().partition(|(index, _)| *index <= applied);
        for (index, index_for) in &waiting {
            debug_assert!(*index <= committed);
            if let IndexFor::Shard(shard, attempt) = index_for
                && let Some(owner) = node.memory.owners.get_mut(shard).filter(|owner| owner.attempt == *attempt)
                && matches!(owner.phase, Phase::AskingBarrier)
            {
                owner.phase = Phase::AwaitingIndex;
            }
        }
        node.memory.awaited = waiting;
        for (index, index_for) in ready {
            match index_for {
                IndexFor::Shard(shard, attempt) => self.restore_owner(life, shard, attempt),
                IndexFor::Freshness { asked_at_ms } => self.proven_fresh(life, asked_at_ms, index),
            }
        }
    }
}
