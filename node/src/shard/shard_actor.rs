//! The actor of one owned shard: it drains its partition, folds the clicks, and commits one checkpoint at a time.
//!
//! While a checkpoint is in flight, the actor folds into the next delta, up to the limits of [`ShardState::is_full`].
//! At the limit it stops draining: the reader's queue fills and the fetcher stops. Back-pressure therefore needs no
//! queue of its own.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use clicktally_proto::click_log::{ClickLog, LogError, ShardReader};
use clicktally_proto::clock::Clock;
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::fault::{self, Mutant, is_broken};
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::group::Group;
use tokio::sync::oneshot;

use super::commit::{Committed, commit};
use super::commit_answer::CommitEnd;
use super::meters::ShardMeters;
use super::metrics::METRICS;
use super::shard_life::Arrival;
use super::shard_state::ShardState;
use crate::log_clock::LogClock;

/// Each wake-up costs as much as the work it does. Ten milliseconds keep latency low and wake-ups rare.
const DRAIN_EVERY: Duration = Duration::from_millis(10);
/// Records requested from the reader at a time. After `CLICKS_PER_TURN_MAX` clicks, the other shards of the thread get
/// their turn.
const RECORDS_PER_DRAIN: usize = 128;
const CLICKS_PER_TURN_MAX: u64 = 20_000;

/// Why this node stopped counting a shard.
#[derive(Debug)]
pub(super) enum ShardEnd {
    Stopped,
    /// A planned end: everything read is committed, or the shard never began.
    Finished,
    Fenced,
    /// The shard must start again from replicated state.
    Restart(String),
    /// The shard needs an operator.
    Halted(String),
}

pub(super) struct ShardParts {
    pub(super) state: ShardState,
    pub(super) reader: Box<dyn ShardReader>,
    pub(super) group: Arc<Group>,
    pub(super) log: Arc<dyn ClickLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) log_clock: Arc<LogClock>,
    pub(super) meters: Arc<ShardMeters>,
    pub(super) arrival: Option<Arrival>,
    pub(super) checkpoint_interval: Duration,
}

pub(super) struct ShardActor {
    parts: ShardParts,
    /// A checkpoint is between its cut and its outcome.
    is_committing: bool,
    /// The interval elapsed while another checkpoint was in flight.
    is_due: bool,
    /// This owner has not committed a checkpoint yet. The first one must not wait for the interval: until it commits,
    /// readers see no progress in the shard.
    awaits_first: bool,
    /// The actor stops reading, and ends with the next commit.
    is_finishing: bool,
    /// Another turn of draining is already queued.
    has_turn: bool,
    ended: Option<oneshot::Sender<ShardEnd>>,
}

/// Gives another turn to a shard that has more to read.
#[derive(Message)]
#[rtype(result = "()")]
struct Turn;

/// Stops reading, commits what is read, and ends.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Finish;

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop;

impl ShardActor {
    /// The receiver gets exactly one end. If the sender is dropped without one, the actor panicked.
    pub(super) fn new(parts: ShardParts) -> (ShardActor, oneshot::Receiver<ShardEnd>) {
        let (sender, receiver) = oneshot::channel();
        let actor = ShardActor {
            parts,
            is_committing: false,
            is_due: false,
            awaits_first: true,
            is_finishing: false,
            has_turn: false,
            ended: Some(sender),
        };
        (actor, receiver)
    }

    fn drain(&mut self, ctx: &mut Context<ShardActor>) {
        if self.is_finishing {
            return;
        }
        let ShardParts { state, reader, .. } = &mut self.parts;
        if fault::holds("shard.drain", state.shard().0) {
            return;
        }
        let read_before = state.outcomes().read;
        let has_more = loop {
            if state.is_full() {
                break false;
            }
            if state.outcomes().read - read_before >= CLICKS_PER_TURN_MAX {
                break true;
            }
            let drained = reader.drain(RECORDS_PER_DRAIN, &mut |record| {
                fault::point("shard.after_poll");
                state.take(record);
            });
            if drained.is_ok() {
                state.pass_to(reader.position());
            }
            match drained {
                Ok(RECORDS_PER_DRAIN) => {}
                Ok(0) => break false,
                Ok(_) => {
                    fault::point("shard.after_fold");
                    break false;
                }
                // This reader is unusable. The next one begins at the committed offset, so that no record is skipped.
                Err(error) => {
                    let end = match error.next_move() {
                        NextMove::Retry => ShardEnd::Restart(format!("cannot read the log: {error}")),
                        NextMove::Reject | NextMove::Halt => ShardEnd::Halted(error.to_string()),
                    };
                    return self.end(end, ctx);
                }
            }
        };
        let has_first = self.awaits_first && self.parts.state.outcomes().read > 0 && !self.is_committing;
        if has_first || self.parts.state.is_full() {
            self.checkpoint(ctx);
        }
        if has_more && !self.has_turn {
            self.has_turn = true;
            ctx.notify(Turn);
        }
    }

    /// Asks the log for its end, so that the checkpoint can report how complete it is; then cuts and commits.
    fn checkpoint(&mut self, ctx: &mut Context<ShardActor>) {
        if self.is_committing {
            self.is_due = true;
            return;
        }
        self.is_committing = true;
        self.is_due = false;
        if self.parts.state.is_full() {
            return self.propose(ctx);
        }
        // The time is taken before the question, because the answer does not cover later arrivals.
        let asked_at_ms = self.parts.log_clock.reached();
        let (log, shard) = (Arc::clone(&self.parts.log), self.parts.state.shard());
        let question = async move { log.end_offset(shard).await };
        ctx.spawn(question.into_actor(self).map(move |end, actor, ctx| {
            let is_stamped_late = is_broken(Mutant::ProofAfterAnswer);
            let proven_at_ms = if is_stamped_late { actor.parts.log_clock.reached() } else { asked_at_ms };
            actor.note_end(proven_at_ms, end);
            actor.propose(ctx);
        }));
    }

    /// `asked_at_ms`: time of the log before the question, if this node knows it.
    fn note_end(&mut self, asked_at_ms: Option<UnixMillis>, end: Result<u64, LogError>) {
        let state = &mut self.parts.state;
        let shard = state.shard();
        match end {
            Ok(end) => {
                let lag_records = end.saturating_sub(state.position());
                METRICS.lag(shard, lag_records);
                self.parts.meters.lag(shard, lag_records);
                // Without the log's time, the answer proves nothing of any time.
                if let Some(asked_at_ms) = asked_at_ms {
                    state.note_end(asked_at_ms, end);
                }
            }
            // Without a proof the watermark does not move.
            Err(error) => tracing::warn!(shard = shard.0, %error, "cannot ask the log for its end"),
        }
    }

    fn propose(&mut self, ctx: &mut Context<ShardActor>) {
        let Some(cut) = self.parts.state.cut() else {
            self.is_committing = false;
            if self.is_finishing {
                self.end(ShardEnd::Finished, ctx);
            }
            return;
        };
        let records = cut.checkpoint.to - cut.checkpoint.from;
        let cut_at = self.parts.clock.monotonic();
        let commit = commit(Arc::clone(&self.parts.group), Arc::clone(&self.parts.log), cut);
        ctx.spawn(commit.into_actor(self).map(move |(end, committed), actor, ctx| {
            actor.settle(cut_at, records, end, committed, ctx);
        }));
    }

    fn settle(
        &mut self,
        cut_at: Duration,
        records: u64,
        end: CommitEnd,
        committed: Committed,
        ctx: &mut Context<ShardActor>,
    ) {
        match end {
            CommitEnd::Committed => {
                fault::point("checkpoint.after_commit");
                let ShardParts { state, clock, .. } = &self.parts;
                METRICS.committed(state, &committed, clock.monotonic().saturating_sub(cut_at), clock.now_ms());
                self.parts.meters.committed(state.shard(), committed.outcomes.read, records);
                self.note_first();
                self.is_committing = false;
                if self.is_finishing && self.is_due {
                    // Commit what was read while this checkpoint was in flight.
                    return self.checkpoint(ctx);
                }
                if self.is_finishing {
                    return self.end(ShardEnd::Finished, ctx);
                }
                if self.is_due {
                    self.checkpoint(ctx);
                }
                self.drain(ctx);
            }
            CommitEnd::Fenced => self.end(ShardEnd::Fenced, ctx),
            CommitEnd::Restart(reason) => self.end(ShardEnd::Restart(reason), ctx),
            CommitEnd::Halted(reason) => self.end(ShardEnd::Halted(reason), ctx),
        }
    }

    fn note_first(&mut self) {
        if !std::mem::take(&mut self.awaits_first) {
            return;
        }
        let ShardParts { state, clock, meters, arrival, .. } = &self.parts;
        if let Some(Arrival { cause, committed_at }) = *arrival {
            let pause = clock.monotonic().saturating_sub(committed_at);
            METRICS.moved(cause, pause);
            meters.moved(state.shard(), pause);
            let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(shard = state.shard().0, pause_ms, "counting on after a {} move", cause.label());
        }
    }

    fn end(&mut self, end: ShardEnd, ctx: &mut Context<ShardActor>) {
        if let Some(ended) = self.ended.take() {
            // The receiver is gone if the whole host is stopping.
            let _ = ended.send(end);
        }
        ctx.stop();
    }
}

impl Actor for ShardActor {
    type Context = Context<ShardActor>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(DRAIN_EVERY, |actor, ctx| actor.drain(ctx));
        // Proves an idle shard complete at once. A shard with waiting clicks commits its first drain.
        self.checkpoint(ctx);
        ctx.run_interval(self.parts.checkpoint_interval, |actor, ctx| actor.checkpoint(ctx));
    }
}

impl Handler<Turn> for ShardActor {
    type Result = ();

    fn handle(&mut self, _: Turn, ctx: &mut Self::Context) {
        self.has_turn = false;
        self.drain(ctx);
    }
}

impl Handler<Finish> for ShardActor {
    type Result = ();

    fn handle(&mut self, _: Finish, ctx: &mut Self::Context) {
        self.is_finishing = true;
        self.checkpoint(ctx);
    }
}

impl Handler<Stop> for ShardActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.end(ShardEnd::Stopped, ctx);
    }
}
