//! Gets one cut committed: out-records first, then the proposal, until there is an answer.

use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::checkpoint::OutcomeCounts;
use clicktally_proto::click_log::{ClickLog, LogError};
use clicktally_proto::command::{Command, Outcome, Rejection};
use clicktally_proto::fault;
use clicktally_raft_store::group::{Group, ProposeError};

use super::metrics::METRICS;
use super::shard_state::Cut;

/// Between attempts; doubles from the first to the last.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Grows from [`BACKOFF_MIN`] to [`BACKOFF_MAX`].
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff(BACKOFF_MIN)
    }
}

impl Backoff {
    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
    }
}

/// What is in replicated state now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Committed {
    pub(super) outcomes: OutcomeCounts,
    /// Partial counts, one for each (ad, minute) of the checkpoint.
    pub(super) partials: u64,
}

#[derive(Debug)]
pub(super) enum CommitEnd {
    Committed(Committed),
    /// Another owner counts this shard now.
    Fenced,
    /// Memory and replicated state went apart: start again from the latter.
    Restart(String),
    Halted(String),
}

/// Tries for as long as the answer is unknown; dropping the future gives up, and what it left undecided is settled by the
/// offsets of whoever proposes next.
pub(super) async fn commit(group: Arc<Group>, log: Arc<dyn ClickLog>, cut: Cut) -> CommitEnd {
    let Cut { checkpoint, partials, out_records } = cut;
    let shard = checkpoint.shard.0;
    let committed = Committed { outcomes: checkpoint.outcomes, partials };
    let mut backoff = Backoff::default();
    // 1. What the checkpoint says was sent elsewhere is durable there before the checkpoint is: a crash in between repeats it.
    while !out_records.is_empty() {
        match log.publish(out_records.clone()).await {
            Ok(()) => break,
            Err(LogError::Unavailable(reason)) => {
                METRICS.checkpoint_failures.inc();
                tracing::warn!(shard, reason, "cannot send late or quarantined clicks yet");
                backoff.wait().await;
            }
            Err(error) => return CommitEnd::Halted(error.to_string()),
        }
    }
    drop(out_records);
    fault::point("checkpoint.before_propose");
    // 2. Offsets and counts, in one entry.
    let command = Command::Checkpoint(checkpoint);
    let mut is_repeat = false;
    let mut is_waiting_for_room = false;
    loop {
        match group.propose(&command).await {
            Ok(Outcome::Done | Outcome::AlreadyApplied) if fault::loses("checkpoint.ack") => {}
            Ok(Outcome::Done) => return CommitEnd::Committed(committed),
            Ok(Outcome::AlreadyApplied) if is_repeat => return CommitEnd::Committed(committed),
            // Somebody read the same records under this epoch: this node, in an earlier life. Its watermark may differ.
            Ok(Outcome::AlreadyApplied) => {
                return CommitEnd::Restart("an earlier life committed the same offsets".into());
            }
            Ok(Outcome::Fenced { .. }) => return CommitEnd::Fenced,
            Ok(Outcome::OffsetGap { expected }) => {
                return CommitEnd::Restart(format!("the group is at offset {expected}"));
            }
            Ok(Outcome::Rejected(rejection @ Rejection::FinalWindow)) => {
                return CommitEnd::Restart(rejection.to_string());
            }
            // Certainly not applied, and only a matter of time. Meanwhile the shard stops reading at its own limit.
            Ok(Outcome::Rejected(rejection @ Rejection::StateFull { .. })) => {
                METRICS.checkpoint_failures.inc();
                if !is_waiting_for_room {
                    is_waiting_for_room = true;
                    tracing::warn!(shard, %rejection, "the shard waits until windows become final and leave");
                }
                backoff.wait().await;
                continue;
            }
            Ok(other) => return CommitEnd::Halted(format!("the group refused a checkpoint: {other:?}")),
            Err(ProposeError::Retry(reason)) => {
                METRICS.checkpoint_failures.inc();
                tracing::debug!(shard, reason, "checkpoint undecided");
                backoff.wait().await;
            }
            Err(ProposeError::Halt(reason)) => return CommitEnd::Halted(reason),
        }
        is_repeat = true;
    }
}
