//! The end of a run: everything heals, comes to rest, and is compared with the log.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_proto::counts::window_count::WindowCount;
use clicktally_proto::identity::shard_key::ShardId;

use super::plan::HEAL_MS;
use super::world::World;
use crate::checks::ct4_published_is_held::RowKey;
use crate::checks::ct14_liveness::Unfinished;
use crate::checks::{Invariant, Violation, ct3_replicas_equal, ct4_published_is_held, ct11_acknowledged_is_logged};
use crate::simulation::click_oracle::declared_late;
use crate::simulation::recount::RecountComparison;
use crate::simulation::sim_sink::{TransactionFate, read_rows, rows_held};

/// How often a healing cluster is inspected. What was there at one inspection must be everywhere at the next.
const LOOK_EVERY_MS: u64 = 2_000;

/// The progress of everything at an inspection.
#[derive(Debug, Clone, Default)]
struct Progress {
    committed: u64,
    newest_revision: u64,
    /// The newest revision in the records up to `out_ends`.
    published_revision: u64,
    out_ends: BTreeMap<(&'static str, i32), i64>,
}

impl World {
    /// Heals, waits, and compares.
    pub(super) fn settle(&mut self) {
        self.heal_everything();
        let healed_at_ms = self.now_ms();
        let mut before = self.progress();
        loop {
            self.run_until(self.now_ms() + LOOK_EVERY_MS);
            if self.watch.has_violations() {
                return;
            }
            let unfinished = self.unfinished(&before);
            let waited_ms = self.now_ms() - healed_at_ms;
            if unfinished.is_empty() || waited_ms >= HEAL_MS {
                self.watch.finish_chain(&unfinished, waited_ms);
                break;
            }
            before = self.progress();
        }
        if !self.watch.has_violations() {
            self.compare(&before);
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            committed: self.consensus.committed(),
            newest_revision: self.consensus.state.newest_revision(),
            published_revision: self.consensus.state.published_revision(),
            out_ends: self.log.outbound_ends().collect(),
        }
    }

    fn unfinished(&self, before: &Progress) -> Vec<Unfinished> {
        let mut unfinished = Vec::new();
        if self.consensus.leader.is_none() {
            unfinished.push(Unfinished::NoLeader);
        }
        let state = &self.consensus.state;
        for (&shard, entry) in state.shards() {
            // A shard whose log has lost records, or was made again, halts until an operator repairs it.
            if self.log.is_lost(shard) {
                continue;
            }
            if entry.owner.is_none() {
                unfinished.push(Unfinished::NoOwner { shard: shard.0 });
            }
            let (committed, end) = (entry.committed_offset, self.log.held(shard).len() as u64);
            if committed != end {
                unfinished.push(Unfinished::Unread { shard: shard.0, committed, end });
            }
        }
        for node in self.nodes.values().filter(|node| !node.is_gone) {
            let applied = node.memory.replica.applied;
            if applied < before.committed {
                unfinished.push(Unfinished::ReplicaBehind { node: node.id, applied, committed: before.committed });
            }
        }
        // As of the previous inspection: records that reached the topic since then need not be written yet.
        let (published, newest) = (before.published_revision, before.newest_revision);
        if published < newest {
            unfinished.push(Unfinished::Unpublished { published, newest });
        }
        let progress = &self.sink.database.tables().progress;
        for (at, &end) in &before.out_ends {
            let read = progress.get(at).copied().unwrap_or(0);
            if read < end {
                unfinished.push(Unfinished::Unwritten { partition: at.1, read, end });
            }
        }
        unfinished
    }

    /// The rows that PostgreSQL holds or will hold: a window may have been published and evicted since the last
    /// inspection.
    fn published_rows(&self) -> BTreeMap<RowKey, WindowCount> {
        let mut database = self.sink.database.clone();
        let mut positions = database.tables().progress.clone();
        loop {
            let unread = read_rows(&self.log, &mut positions);
            if unread.is_empty() {
                return database.tables().rows.clone();
            }
            database.write(&unread, TransactionFate::Committed).expect("the copy has no other writer");
        }
    }

    fn compare(&mut self, before: &Progress) {
        for node in self.nodes.values_mut().filter(|node| !node.is_gone) {
            let (replica, disk) = (&mut node.memory.replica, &mut node.disk);
            while replica.applied < self.consensus.committed() {
                replica.apply_next(node.id, &self.consensus, disk, self.plan.snapshot_every);
            }
        }
        let mut digests: Vec<_> = self.consensus.digest_at(self.consensus.committed()).into_iter().collect();
        let running = self.nodes.values().filter(|node| !node.is_gone);
        digests.extend(running.map(|node| node.memory.replica.digest(node.id)));
        self.watch.found(ct3_replicas_equal::check(&digests));
        // Snapshots decide what a digest sees. A field that they lose is seen here, after a restart from one.
        let running = self.nodes.values().filter(|node| !node.is_gone);
        let different = running.filter(|node| node.memory.replica.state != self.consensus.state).map(|node| node.id);
        self.watch.found(ct3_replicas_equal::check_restored(&different.collect::<Vec<_>>()));

        let truncated: BTreeSet<ShardId> = self.log.shards().filter(|shard| self.log.is_lost(*shard)).collect();
        let ends: BTreeMap<ShardId, u64> =
            truncated.iter().map(|shard| (*shard, self.consensus.state.shards()[shard].committed_offset)).collect();
        for shard in self.log.shards() {
            self.watch.read_on(&self.log, shard);
        }
        let declared = declared_late(&self.log, &ends);
        let told = self
            .watch
            .proven_by_another
            .iter()
            .map(|shard| (*shard, declared.iter().filter(|instance| instance.shard == *shard).copied().collect()));
        let expected = self.watch.oracle.expect(&told.collect(), &ends);
        self.report.clicks = expected.clicks_in_log;
        let mut recount = RecountComparison::new(&expected);
        recount.group(&self.consensus.state, self.published_rows().values());
        let mut found = recount.finish(&declared);
        if truncated.is_empty() {
            found.extend(ct11_acknowledged_is_logged::check(self.watch.oracle.acknowledged(), &expected.ids));
            found.extend(ct11_acknowledged_is_logged::check(&expected.ids, self.watch.oracle.ever_sent()));
            found.extend(ct11_acknowledged_is_logged::check(&expected.not_rerouted, &BTreeSet::new()));
        }
        let halted = self.watch.halted.iter().filter(|(shard, _)| !truncated.contains(shard));
        found.extend(halted.map(|(shard, reason)| Violation {
            invariant: Invariant::Liveness,
            detail: format!("shard {} was halted: {reason}", shard.0),
        }));
        let held = rows_held(&self.consensus.state);
        found.extend(ct4_published_is_held::check(&held, before.published_revision, &self.sink.database.tables().rows));
        self.watch.found(found);
    }
}
