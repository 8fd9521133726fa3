//! Commits one cut: publishes its out-records first, then proposes the checkpoint until there is an answer.

use std::sync::Arc;

use clicktally_proto::checkpoint::OutcomeCounts;
use clicktally_proto::click_log::ClickLog;
use clicktally_proto::command::{Command, Outcome};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::fault;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::group::Group;

use super::commit_answer::{BACKOFF_MAX, BACKOFF_MIN, CommitAttempts, CommitEnd, NextStep};
use super::metrics::METRICS;
use super::shard_state::Cut;
use crate::retry::Backoff;

/// What a cut adds to replicated state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Committed {
    pub(super) outcomes: OutcomeCounts,
    /// Partial counts, one for each (ad, minute) of the checkpoint.
    pub(super) partials: u64,
    /// Packed bytes of the partial counts, and of the seen ids.
    pub(super) cell_bytes: usize,
    pub(super) seen_bytes: usize,
    pub(super) oldest_arrival_ms: Option<UnixMillis>,
}

/// Tries for as long as the outcome is unknown. Dropping the future abandons the attempt. The offsets of the next
/// proposal then settle what this one left undecided.
pub(super) async fn commit(group: Arc<Group>, log: Arc<dyn ClickLog>, cut: Cut) -> (CommitEnd, Committed) {
    let Cut { checkpoint, partials, oldest_arrival_ms, out_records } = cut;
    let shard = checkpoint.shard.0;
    let committed = Committed {
        outcomes: checkpoint.outcomes,
        partials,
        cell_bytes: checkpoint.cells.packed_bytes(),
        seen_bytes: checkpoint.seen.iter().map(SeenBlock::packed_bytes).sum(),
        oldest_arrival_ms,
    };
    let mut backoff = Backoff::growing(BACKOFF_MIN, BACKOFF_MAX);
    // 1. Publish the records that the checkpoint reports as sent elsewhere, so that they are durable before it is. A
    //    crash in between repeats them.
    while !out_records.is_empty() {
        match log.publish(out_records.clone()).await {
            Ok(()) => break,
            Err(error) if error.next_move() == NextMove::Retry => {
                METRICS.checkpoint_failures.inc();
                tracing::warn!(shard, %error, "cannot send late or quarantined clicks yet");
                backoff.wait().await;
            }
            Err(error) => return (CommitEnd::Halted(error.to_string()), committed),
        }
    }
    drop(out_records);
    fault::point("checkpoint.before_propose");
    // 2. Propose offsets and counts in one entry.
    let command = Command::Checkpoint(checkpoint);
    let mut attempts = CommitAttempts::default();
    let mut is_waiting_for_room = false;
    loop {
        let answer = group.propose(&command).await;
        let is_applied = matches!(answer, Ok(Outcome::Done | Outcome::AlreadyApplied));
        match attempts.judge(answer, is_applied && fault::loses("checkpoint.ack")) {
            NextStep::End(end) => return (end, committed),
            NextStep::Again => {}
            NextStep::AgainLater(reason) => {
                METRICS.checkpoint_failures.inc();
                tracing::debug!(shard, reason, "checkpoint undecided");
                backoff.wait().await;
            }
            NextStep::AwaitRoom(rejection) => {
                METRICS.checkpoint_failures.inc();
                if !is_waiting_for_room {
                    is_waiting_for_room = true;
                    tracing::warn!(shard, %rejection, "the shard waits until windows become final and leave");
                }
                backoff.wait().await;
            }
        }
    }
}
