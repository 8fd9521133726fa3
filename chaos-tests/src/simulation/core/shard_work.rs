//! Counting: the steps of the owners of shards, as the shells in `node/src/shard` take them, with a chance to die
//! between any two steps.

use std::sync::Arc;

use clicktally_node::shard::commit_answer::{BACKOFF_MAX, BACKOFF_MIN, CommitAttempts, CommitEnd, NextStep};
use clicktally_node::shard::log_identity::{Recognised, recognise};
use clicktally_node::shard::shard_state::{ShardState, ShardTerms};
use clicktally_proto::click_log::{LogError, LogRecord};
use clicktally_proto::command::{AssignShard, Command, Outcome, Rejection};
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use clicktally_raft_store::group::ProposeError;

use super::event::{Event, IndexFor, Life, NodeEvent, Proposal, Proposer, ShardEvent};
use super::owner::{AttemptId, CheckpointStep, Counting, Cutting, Owner, Phase};
use super::plan::LAST_COMMIT_DEADLINE_MS;
use super::world::World;
use crate::simulation::edition::Edition;
use crate::simulation::sim_log::Fate;

const RECORDS_PER_DRAIN: usize = 64;
/// An owner without an answer to its barrier asks again after this.
const BARRIER_AGAIN_MS: u64 = 500;

/// Where a node may die.
#[derive(Debug, Clone, Copy)]
enum Step {
    Poll,
    Fold,
    Cut,
    Publish,
    Propose,
    Ack,
}

impl World {
    /// Returns true if the node is dead now.
    fn dies_at(&mut self, life: Life, step: Step) -> bool {
        let one_in = if self.is_calm { 0 } else { self.plan.step_crash_one_in };
        if one_in == 0 || self.steps.below(one_in) != 0 {
            return false;
        }
        self.report.fault(&format!("crash at {step:?}").to_lowercase());
        self.crash(life.node);
        true
    }

    /// Keeps the owners of a node equal to what its replica assigns to it.
    pub(super) fn look_at_assignments(&mut self, life: Life) {
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        let mut begun = Vec::new();
        let mut ordered = Vec::new();
        for (&shard, entry) in node.memory.replica.state.shards() {
            if entry.owner != Some(life.node) {
                node.memory.owners.remove(&shard);
                continue;
            }
            match node.memory.owners.get_mut(&shard) {
                Some(owner) if owner.epoch == entry.epoch => {
                    if owner.heir != entry.heir {
                        owner.heir = entry.heir;
                        ordered.push((shard, owner.attempt));
                    }
                }
                _ => {
                    self.ids += 1;
                    let attempt = AttemptId(self.ids);
                    let owner =
                        Owner { epoch: entry.epoch, attempt, heir: entry.heir, phase: Phase::Resting, restarts: 0 };
                    node.memory.owners.insert(shard, owner);
                    begun.push((shard, attempt));
                }
            }
        }
        for (shard, attempt) in begun {
            self.soon(life, shard, attempt, 1, ShardEvent::Begin);
        }
        for (shard, attempt) in ordered {
            self.obey(life, shard, attempt);
        }
    }

    fn soon(&mut self, life: Life, shard: ShardId, attempt: AttemptId, delay_ms: u64, event: ShardEvent) {
        self.agenda.after(delay_ms, Event::To(life, NodeEvent::Shard(shard, attempt, event)));
    }

    fn owner(&mut self, life: Life, shard: ShardId, attempt: AttemptId) -> Option<&mut Owner> {
        let owner = self.nodes.get_mut(&life.node)?.memory.owners.get_mut(&shard)?;
        (owner.attempt == attempt).then_some(owner)
    }

    fn counting(&mut self, life: Life, shard: ShardId, attempt: AttemptId) -> Option<&mut Counting> {
        match &mut self.owner(life, shard, attempt)?.phase {
            Phase::Counting(counting) => Some(&mut **counting),
            _ => None,
        }
    }

    pub(super) fn work_shard(&mut self, life: Life, shard: ShardId, attempt: AttemptId, event: ShardEvent) {
        let Some(owner) = self.owner(life, shard, attempt) else { return };
        match event {
            ShardEvent::Begin => {
                let is_resting = matches!(owner.phase, Phase::Resting);
                if is_resting && owner.heir.is_some() {
                    self.hand_over(life, shard, attempt);
                } else if is_resting {
                    owner.phase = Phase::AskingBarrier;
                    self.work_shard(life, shard, attempt, ShardEvent::AskBarrier);
                }
            }
            ShardEvent::AskBarrier => {
                if matches!(owner.phase, Phase::AskingBarrier) {
                    self.ask_index(life, IndexFor::Shard(shard, attempt));
                    self.soon(life, shard, attempt, BARRIER_AGAIN_MS, ShardEvent::AskBarrier);
                }
            }
            ShardEvent::End { proven_at_ms, end } => self.end_told(life, shard, attempt, proven_at_ms, end),
            ShardEvent::Publish => self.publish_out_records(life, shard, attempt),
            ShardEvent::Propose => self.propose_checkpoint(life, shard, attempt),
            ShardEvent::LastCommitIsLate => {
                if self.counting(life, shard, attempt).is_some_and(|counting| counting.is_finishing) {
                    self.hand_over(life, shard, attempt);
                }
            }
        }
    }

    /// The replica holds everything that was committed when the owner asked, so the owner may restore.
    pub(super) fn restore_owner(&mut self, life: Life, shard: ShardId, attempt: AttemptId) {
        let is_waiting = |owner: &mut Owner| matches!(owner.phase, Phase::AskingBarrier | Phase::AwaitingIndex);
        if !self.owner(life, shard, attempt).is_some_and(is_waiting) || !self.recognises_log(life, shard, attempt) {
            return;
        }
        let (event_time, log_id) = (self.plan.rules, self.log.id());
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        let Some(owner) = node.memory.owners.get_mut(&shard).filter(|owner| owner.attempt == attempt) else { return };
        let state = &node.memory.replica.state;
        let Some(entry) = state.shard(shard).filter(|entry| entry.epoch == owner.epoch) else { return };
        let terms = ShardTerms { shard, epoch: owner.epoch, partitioner: Partitioner::new(1), event_time };
        let restored = ShardState::restore(terms, entry, &state.seen_blocks(shard)).expect("blocks are whole");
        owner.phase = Phase::Counting(Box::new(Counting {
            state: restored,
            log_id,
            checkpoint: CheckpointStep::None,
            is_due: false,
            awaits_first: true,
            is_finishing: false,
            is_opened: false,
        }));
        // Proves an idle shard complete at once.
        self.begin_checkpoint(life, shard, attempt);
    }

    /// As the shell's `recognise_log`. The stories of earlier editions have no names for the log.
    fn recognises_log(&mut self, life: Life, shard: ShardId, attempt: AttemptId) -> bool {
        if self.report.edition < Edition::LOG_IDENTITY {
            return true;
        }
        let counted = self.nodes[&life.node].memory.replica.state.log_id();
        match recognise(counted, Some(self.log.id())) {
            Recognised::Same => true,
            Recognised::First(log) => {
                let named = self.consensus.leader.map(|_| self.commit_unannounced(Command::IdentifyLog { log }));
                let is_named = matches!(named, Some(Outcome::Done | Outcome::AlreadyApplied));
                if !is_named {
                    self.rest(life, shard, attempt, "the log has no name yet");
                }
                is_named
            }
            Recognised::Other(error) => {
                self.halt(life, shard, attempt, &error.to_string());
                false
            }
        }
    }

    pub(super) fn drain_all(&mut self, life: Life) {
        self.agenda.after(self.plan.drain_every_ms, Event::To(life, NodeEvent::Drain));
        for (shard, attempt) in self.attempts(life) {
            self.drain(life, shard, attempt);
            if !self.nodes[&life.node].is_alive {
                return;
            }
        }
    }

    pub(super) fn checkpoint_all(&mut self, life: Life) {
        self.agenda.after(self.plan.checkpoint_interval_ms, Event::To(life, NodeEvent::CheckpointDue));
        for (shard, attempt) in self.attempts(life) {
            self.begin_checkpoint(life, shard, attempt);
            if !self.nodes[&life.node].is_alive {
                return;
            }
        }
    }

    fn attempts(&self, life: Life) -> Vec<(ShardId, AttemptId)> {
        let owners = &self.nodes[&life.node].memory.owners;
        owners
            .iter()
            .filter(|(_, owner)| matches!(owner.phase, Phase::Counting(_)))
            .map(|(&shard, owner)| (shard, owner.attempt))
            .collect()
    }

    fn drain(&mut self, life: Life, shard: ShardId, attempt: AttemptId) {
        let newest_ms = self.log_ms() - if self.is_calm { 0 } else { self.plan.fetch_lag_ms };
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        let is_reachable = node.is_log_reachable;
        let Some(owner) = node.memory.owners.get_mut(&shard) else { return };
        let Phase::Counting(counting) = &mut owner.phase else { return };
        if counting.is_finishing || counting.state.is_full() || !is_reachable {
            return;
        }
        // The fetcher notices when it asks for the leaders, which deleting a topic makes it do.
        let (counted, found) = (counting.log_id, self.log.id());
        if counted != found {
            let error = LogError::OtherLog { counted, found };
            return self.halt(life, shard, attempt, &error.to_string());
        }
        if !std::mem::replace(&mut counting.is_opened, true) && is_broken(Mutant::ResetToLatest) {
            let end = self.log.end_offset(shard).unwrap_or(0);
            if end > counting.state.position() {
                let last = self.log.held(shard).last().map(|record| Arc::clone(&record.value)).unwrap_or_default();
                let (offset, arrival_ms) = (end - 1, newest_ms);
                counting.state.take(LogRecord { offset, arrival_ms, value: &last });
            }
        }
        match self.log.read(shard, counting.state.position(), RECORDS_PER_DRAIN) {
            Ok(records) => {
                let mut folded = 0;
                let mut position = counting.state.position();
                for record in records.iter().take_while(|record| record.arrival_ms <= newest_ms) {
                    if record.is_handed_over() {
                        let (offset, arrival_ms) = (position, record.arrival_ms);
                        counting.state.take(LogRecord { offset, arrival_ms, value: &record.value });
                        folded += 1;
                    }
                    position += 1;
                }
                counting.state.pass_to(position);
                let is_first = counting.awaits_first && counting.state.outcomes().read > 0;
                let begins = !counting.is_committing() && (is_first || counting.state.is_full());
                if folded > 0 && (self.dies_at(life, Step::Poll) || self.dies_at(life, Step::Fold)) {
                    return;
                }
                if begins {
                    self.begin_checkpoint(life, shard, attempt);
                }
            }
            Err(LogError::Unavailable(reason)) => self.rest(life, shard, attempt, &reason),
            Err(error) => self.halt(life, shard, attempt, &error.to_string()),
        }
    }

    fn begin_checkpoint(&mut self, life: Life, shard: ShardId, attempt: AttemptId) {
        let Some(counting) = self.counting(life, shard, attempt) else { return };
        if counting.is_committing() {
            counting.is_due = true;
            return;
        }
        counting.checkpoint = CheckpointStep::AskingEnd;
        counting.is_due = false;
        if counting.state.is_full() {
            return self.cut(life, shard, attempt);
        }
        let counted_id = counting.log_id;
        let (now_ms, log_ms) = (self.now_ms(), self.log_ms());
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        node.ask_log_time(now_ms, log_ms);
        let (asked_at_ms, is_reachable) = (node.log_reached(now_ms), node.is_log_reachable);
        // The log's answer is of some moment between the question and the answer.
        let unavailable = || LogError::Unavailable("no answer".into());
        let end =
            if is_reachable && counted_id == self.log.id() { self.log.end_offset(shard) } else { Err(unavailable()) };
        let delay_ms = self.latency_ms();
        let is_stamped_late = is_broken(Mutant::ProofAfterAnswer);
        let proven_at_ms = asked_at_ms.map(|asked_at_ms| asked_at_ms + if is_stamped_late { delay_ms } else { 0 });
        self.soon(life, shard, attempt, delay_ms, ShardEvent::End { proven_at_ms, end });
    }

    fn end_told(
        &mut self,
        life: Life,
        shard: ShardId,
        attempt: AttemptId,
        proven_at_ms: Option<u64>,
        end: Result<u64, LogError>,
    ) {
        let Some(counting) = self.counting(life, shard, attempt) else { return };
        if !matches!(counting.checkpoint, CheckpointStep::AskingEnd) {
            return;
        }
        if let (Ok(end), Some(proven_at_ms)) = (end, proven_at_ms) {
            counting.state.note_end(proven_at_ms, end);
        }
        self.cut(life, shard, attempt);
    }

    fn cut(&mut self, life: Life, shard: ShardId, attempt: AttemptId) {
        let Some(counting) = self.counting(life, shard, attempt) else { return };
        let Some(cut) = counting.state.cut() else {
            counting.checkpoint = CheckpointStep::None;
            if counting.is_finishing {
                self.hand_over(life, shard, attempt);
            }
            return;
        };
        counting.checkpoint = CheckpointStep::Publishing(Box::new(Cutting {
            command: Command::Checkpoint(cut.checkpoint),
            out_records: cut.out_records,
            attempts: CommitAttempts::default(),
            tries: 0,
        }));
        if self.dies_at(life, Step::Cut) {
            return;
        }
        let delay_ms = self.latency_ms();
        self.soon(life, shard, attempt, delay_ms, ShardEvent::Publish);
    }

    fn fate(&mut self) -> Fate {
        if !self.is_lost() {
            return Fate::Written;
        }
        self.report.fault("write to the log without an answer");
        let fates = [Fate::WrittenUnknown, Fate::HalfWrittenUnknown, Fate::WrittenTwice, Fate::Lost];
        self.network.pick(&fates).copied().unwrap_or(Fate::Written)
    }

    /// Writes to the log as a node does.
    pub(super) fn write_log(
        &mut self,
        life: Life,
        records: &[clicktally_proto::click_log::OutRecord],
    ) -> Result<(), LogError> {
        if !self.nodes[&life.node].is_log_reachable {
            return Err(LogError::Unavailable("the log is out of reach".into()));
        }
        let (now_ms, fate) = (self.log_ms(), self.fate());
        self.log.publish(records, now_ms, fate)
    }

    fn publish_out_records(&mut self, life: Life, shard: ShardId, attempt: AttemptId) {
        let Some(counting) = self.counting(life, shard, attempt) else { return };
        let CheckpointStep::Publishing(cutting) = &mut counting.checkpoint else { return };
        let out_records = std::mem::take(&mut cutting.out_records);
        let comes_later = is_broken(Mutant::LateAfterCommit);
        if !out_records.is_empty() && !comes_later && self.write_log(life, &out_records).is_err() {
            let delay_ms = u64::try_from(BACKOFF_MAX.as_millis()).unwrap_or(1_000) / 2;
            if let Some(counting) = self.counting(life, shard, attempt)
                && let CheckpointStep::Publishing(cutting) = &mut counting.checkpoint
            {
                cutting.out_records = out_records;
            }
            return self.soon(life, shard, attempt, delay_ms, ShardEvent::Publish);
        }
        if self.dies_at(life, Step::Publish) {
            return;
        }
        let Some(counting) = self.counting(life, shard, attempt) else { return };
        if let CheckpointStep::Publishing(mut cutting) =
            std::mem::replace(&mut counting.checkpoint, CheckpointStep::None)
        {
            if comes_later {
                cutting.out_records = out_records;
            }
            counting.checkpoint = CheckpointStep::Proposing(cutting);
        }
        self.propose_checkpoint(life, shard, attempt);
    }

    fn propose_checkpoint(&mut self, life: Life, shard: ShardId, attempt: AttemptId) {
        let Some(counting) = self.counting(life, shard, attempt) else { return };
        let CheckpointStep::Proposing(cutting) = &counting.checkpoint else { return };
        let command = cutting.command.clone();
        if is_broken(Mutant::CutUncommitted) {
            counting.checkpoint = CheckpointStep::None;
        }
        self.propose(life, Proposer::Checkpoint(shard, attempt), command);
        self.dies_at(life, Step::Propose);
    }

    pub(super) fn checkpoint_answered(
        &mut self,
        life: Life,
        shard: ShardId,
        attempt: AttemptId,
        answer: Result<Outcome, ProposeError>,
    ) {
        let is_answer_lost = answer.is_ok() && self.is_lost();
        let Some(counting) = self.counting(life, shard, attempt) else { return };
        let CheckpointStep::Proposing(cutting) = &mut counting.checkpoint else {
            if is_broken(Mutant::CutUncommitted) && matches!(answer, Ok(Outcome::OffsetGap { .. })) {
                self.rest(life, shard, attempt, "a gap");
            }
            return;
        };
        let next = cutting.attempts.judge(answer, is_answer_lost);
        cutting.tries += 1;
        let backoff = BACKOFF_MIN * 2_u32.saturating_pow(cutting.tries.min(8));
        let backoff_ms = u64::try_from(backoff.min(BACKOFF_MAX).as_millis()).unwrap_or(1_000);
        match next {
            NextStep::End(CommitEnd::Committed) => self.checkpoint_committed(life, shard, attempt),
            NextStep::End(CommitEnd::Fenced) => self.fence(life, shard, attempt),
            NextStep::End(CommitEnd::Restart(reason)) => self.rest(life, shard, attempt, &reason),
            NextStep::End(CommitEnd::Halted(reason)) => self.halt(life, shard, attempt, &reason),
            NextStep::Again => self.soon(life, shard, attempt, 1, ShardEvent::Propose),
            NextStep::AgainLater(_) | NextStep::AwaitRoom(_) => {
                self.soon(life, shard, attempt, backoff_ms, ShardEvent::Propose);
            }
        }
    }

    fn checkpoint_committed(&mut self, life: Life, shard: ShardId, attempt: AttemptId) {
        if self.dies_at(life, Step::Ack) {
            return;
        }
        let Some(counting) = self.counting(life, shard, attempt) else { return };
        let done = std::mem::replace(&mut counting.checkpoint, CheckpointStep::None);
        counting.awaits_first = false;
        let (is_due, is_finishing) = (counting.is_due, counting.is_finishing);
        if let CheckpointStep::Proposing(cutting) = done
            && !cutting.out_records.is_empty()
        {
            // Only a mutant that breaks the order has records left here.
            let _ = self.write_log(life, &cutting.out_records);
        }
        if is_due {
            self.begin_checkpoint(life, shard, attempt);
        } else if is_finishing {
            self.hand_over(life, shard, attempt);
        } else {
            self.drain(life, shard, attempt);
        }
    }

    /// The owner ends. The replica on this node decides what comes next.
    fn fence(&mut self, life: Life, shard: ShardId, attempt: AttemptId) {
        if let Some(owner) = self.owner(life, shard, attempt) {
            owner.phase = Phase::Halted;
        }
        self.trace_line(format_args!("node {} is fenced from shard {}", life.node, shard.0));
    }

    fn halt(&mut self, life: Life, shard: ShardId, attempt: AttemptId, reason: &str) {
        // Without the reason: a story must not change with the words of an error.
        self.trace_line(format_args!("node {} halts shard {}", life.node, shard.0));
        self.watch.halted(shard, reason);
        if let Some(owner) = self.owner(life, shard, attempt) {
            owner.phase = Phase::Halted;
        }
    }

    /// Starts again from replicated state after a pause.
    fn rest(&mut self, life: Life, shard: ShardId, attempt: AttemptId, reason: &str) {
        self.trace_line(format_args!("node {} restarts shard {}: {reason}", life.node, shard.0));
        self.ids += 1;
        let next = AttemptId(self.ids);
        let Some(owner) = self.owner(life, shard, attempt) else { return };
        owner.attempt = next;
        owner.phase = Phase::Resting;
        owner.restarts += 1;
        let backoff = BACKOFF_MIN * 2_u32.saturating_pow(owner.restarts.min(8));
        let delay_ms = u64::try_from(backoff.min(BACKOFF_MAX).as_millis()).unwrap_or(1_000);
        self.soon(life, shard, next, delay_ms, ShardEvent::Begin);
    }

    /// The heir appears or disappears.
    fn obey(&mut self, life: Life, shard: ShardId, attempt: AttemptId) {
        let Some(owner) = self.owner(life, shard, attempt) else { return };
        let has_heir = owner.heir.is_some();
        match &mut owner.phase {
            Phase::Counting(counting) if has_heir && !counting.is_finishing => {
                counting.is_finishing = true;
                self.soon(life, shard, attempt, LAST_COMMIT_DEADLINE_MS, ShardEvent::LastCommitIsLate);
                self.begin_checkpoint(life, shard, attempt);
            }
            Phase::AskingBarrier | Phase::AwaitingIndex if has_heir => self.hand_over(life, shard, attempt),
            _ => {}
        }
    }

    /// Assigns the shard to its heir. If the plan was taken back, counts on.
    fn hand_over(&mut self, life: Life, shard: ShardId, attempt: AttemptId) {
        let Some(owner) = self.owner(life, shard, attempt) else { return };
        let Some(heir) = owner.heir else { return self.rest(life, shard, attempt, "the plan was taken back") };
        owner.phase = Phase::HandingOver;
        let assignment = AssignShard { shard, owner: Some(heir), expected_epoch: owner.epoch };
        self.propose(life, Proposer::HandOver(shard, attempt), Command::AssignShard(assignment));
    }

    pub(super) fn handed_over(
        &mut self,
        life: Life,
        shard: ShardId,
        attempt: AttemptId,
        answer: Result<Outcome, ProposeError>,
    ) {
        let Some(owner) = self.owner(life, shard, attempt) else { return };
        if !matches!(owner.phase, Phase::HandingOver) {
            return;
        }
        match answer {
            Ok(Outcome::Assigned { .. } | Outcome::Rejected(Rejection::EpochMoved(_))) => owner.phase = Phase::Halted,
            _ => self.rest(life, shard, attempt, "not handed over"),
        }
    }

    /// A checkpoint of an attempt that is over was accepted while another attempt counts under the same epoch.
    pub(super) fn is_counted_by_another(&self, proposal: &Proposal) -> bool {
        let (Command::Checkpoint(checkpoint), Proposer::Checkpoint(shard, attempt)) =
            (&proposal.command, proposal.proposer)
        else {
            return false;
        };
        let owners = self.nodes.values().filter_map(|node| node.memory.owners.get(&shard));
        owners
            .filter(|owner| owner.epoch == checkpoint.epoch)
            .any(|owner| owner.attempt != attempt && matches!(owner.phase, Phase::Counting(_)))
    }
}
