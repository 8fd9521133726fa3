//! Watches a run and calls the checks: the cheap ones at every entry.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_proto::command::{Command, Outcome};
use clicktally_proto::counts::window_count::WindowCount;
use clicktally_proto::event_time::{EventTimeRules, UnixMillis};
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use clicktally_state::group_state::GroupState;
use clicktally_state::shards::ShardEntry;

use super::event::Proposal;
use crate::checks::ct2_offset_chain::{AppliedChain, OffsetChain};
use crate::checks::ct4_revisions_rise::RevisionsRise;
use crate::checks::ct13_watermark_honest::{self, WatermarkClaim};
use crate::checks::ct22_terms_held::TermsHeld;
use crate::checks::{Invariant, Violation, ct14_liveness};
use crate::cluster_client::{OutcomesView, ShardView};
use crate::simulation::click_oracle::{ClickOracle, CommittedWatermark};
use crate::simulation::recount::ad_minute;
use crate::simulation::sim_log::SimLog;

/// The state before an entry was applied.
#[derive(Debug)]
pub(super) struct Before {
    group_watermark_ms: UnixMillis,
    shard: Option<(ShardId, ShardEntry)>,
}

#[derive(Debug)]
pub(super) struct Watch {
    rules: EventTimeRules,
    pub(super) oracle: ClickOracle,
    applied: AppliedChain,
    chain: OffsetChain,
    revisions: RevisionsRise,
    terms: TermsHeld,
    /// Shards with a committed proof that their owner did not know of.
    pub(super) proven_by_another: BTreeSet<ShardId>,
    pub(super) halted: BTreeMap<ShardId, String>,
    pub(super) positive_answers: u64,
    violations: Vec<Violation>,
}

impl Watch {
    pub(super) fn new(partitioner: Partitioner, rules: EventTimeRules) -> Watch {
        Watch {
            rules,
            oracle: ClickOracle::new(partitioner, rules),
            applied: AppliedChain::default(),
            chain: OffsetChain::default(),
            revisions: RevisionsRise::default(),
            terms: TermsHeld::default(),
            proven_by_another: BTreeSet::new(),
            halted: BTreeMap::new(),
            positive_answers: 0,
            violations: Vec::new(),
        }
    }

    pub(super) fn found(&mut self, violations: impl IntoIterator<Item = Violation>) {
        self.violations.extend(violations);
    }

    pub(super) fn has_violations(&self) -> bool {
        !self.violations.is_empty()
    }

    pub(super) fn first_violation(&self) -> Option<&Violation> {
        self.violations.first()
    }

    pub(super) fn sent(&mut self, ids: &[u64], is_acknowledged: bool) {
        self.oracle.sent(ids, is_acknowledged);
    }

    pub(super) fn read_on(&mut self, log: &SimLog, shard: ShardId) {
        self.oracle.read_on(log, shard);
    }

    pub(super) fn before(&self, state: &GroupState, command: &Command) -> Before {
        let shard = match command {
            Command::Checkpoint(checkpoint) => Some(checkpoint.shard),
            Command::AssignShard(assignment) => Some(assignment.shard),
            _ => None,
        };
        let shard = shard.and_then(|shard| Some((shard, state.shard(shard)?.clone())));
        Before { group_watermark_ms: state.watermark_ms(), shard }
    }

    pub(super) fn committed(&mut self, state: &GroupState, before: Before, proposal: &Proposal, outcome: &Outcome) {
        self.found(ct13_watermark_honest::check_monotone("group", before.group_watermark_ms, state.watermark_ms()));
        let forgotten = self.terms.committed(state, &proposal.command, outcome);
        self.found(forgotten);
        let Some((shard, entry_before)) = before.shard else { return };
        let Some(entry) = state.shard(shard) else { return };
        self.found(ct13_watermark_honest::check_monotone("shard", entry_before.watermark_ms, entry.watermark_ms));
        let is_assigned = matches!(outcome, Outcome::Assigned { .. });
        if entry.epoch < entry_before.epoch || (is_assigned && entry.epoch == entry_before.epoch) {
            let detail = format!("shard {}: epoch {} after {}", shard.0, entry.epoch.0, entry_before.epoch.0);
            self.found([Violation { invariant: Invariant::OffsetChain, detail }]);
        }
        self.chain.observe_shard(shard.0, &shard_view(shard, entry));
        let Command::Checkpoint(checkpoint) = &proposal.command else { return };
        if *outcome != Outcome::Done {
            return;
        }
        let (epoch, assigned) = (checkpoint.epoch.0, entry_before.epoch.0);
        let broken = self.applied.observe(shard.0, epoch, assigned, checkpoint.from, checkpoint.to);
        self.found(broken);
        self.oracle
            .note_committed(shard, CommittedWatermark { to: checkpoint.to, watermark_ms: checkpoint.watermark_ms });
        self.found(ct13_watermark_honest::check(&WatermarkClaim {
            shard: shard.0,
            to: checkpoint.to,
            before_ms: entry_before.watermark_ms,
            watermark_ms: checkpoint.watermark_ms,
            out_of_orderness_ms: self.rules.out_of_orderness_ms,
            newest_event_ms: self.oracle.newest_event_ms(shard, checkpoint.to),
            complete_before_ms: entry_before.complete_to_ms,
            complete_to_ms: checkpoint.complete_to_ms,
            unread_arrival_ms: self.oracle.arrival_ms(shard, checkpoint.to),
        }));
    }

    pub(super) fn proof_of_an_earlier_life(&mut self, shard: ShardId) {
        self.proven_by_another.insert(shard);
    }

    pub(super) fn halted(&mut self, shard: ShardId, reason: &str) {
        self.halted.entry(shard).or_insert_with(|| reason.to_owned());
    }

    pub(super) fn rows_written<'a>(&mut self, rows: impl Iterator<Item = &'a WindowCount>) {
        self.revisions.observe(rows.map(ad_minute).collect());
        let found = self.revisions.violations().first().cloned();
        self.found(found);
    }

    pub(super) fn restored<'a>(&mut self, rows: impl Iterator<Item = &'a WindowCount>) {
        self.revisions.restored(rows.map(ad_minute).collect());
    }

    /// The checks of the run as a whole.
    pub(super) fn finish_chain(&mut self, unfinished: &[ct14_liveness::Unfinished], waited_ms: u64) {
        let chain = std::mem::take(&mut self.chain);
        self.found(chain.finish());
        self.found(ct14_liveness::check(unfinished, waited_ms));
    }
}

fn shard_view(shard: ShardId, entry: &ShardEntry) -> ShardView {
    ShardView {
        shard: shard.0,
        owner: entry.owner,
        heir: entry.heir,
        epoch: entry.epoch.0,
        committed_offset: entry.committed_offset,
        lag_records: None,
        outcomes: OutcomesView::from(&entry.outcomes),
    }
}
