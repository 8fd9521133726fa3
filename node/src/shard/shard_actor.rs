//! The actor of one owned shard: drains its partition, folds, and gets checkpoints committed, one at a time.
//!
//! It goes on folding into the next delta while a checkpoint is on its way, up to the limits of
//! [`ShardState::is_full`]; then it stops draining, the reader's queue fills, and the fetcher stops: back-pressure
//! without a queue of its own.

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

/// Each wake-up costs as much as the work it does: ten milliseconds keep latency low and wake-ups rare.
const DRAIN_EVERY: Duration = Duration::from_millis(10);
/// Records asked of the reader at a time, and clicks after which the thread's other shards have their turn.
const RECORDS_PER_DRAIN: usize = 128;
const CLICKS_PER_TURN_MAX: u64 = 20_000;

/// Why a shard is no longer counted here.
#[derive(Debug)]
pub(super) enum ShardEnd {
    Stopped,
    /// In order: everything read is committed, or nothing was begun.
    Finished,
    Fenced,
    /// To be started again from replicated state.
    Restart(String),
    /// Needs a person.
    Halted(String),
}

pub(super) struct ShardParts {
    pub(super) state: ShardState,
    pub(super) reader: Box<dyn ShardReader>,
    pub(super) group: Arc<Group>,
    pub(super) log: Arc<dyn ClickLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) meters: Arc<ShardMeters>,
    pub(super) arrival: Option<Arrival>,
    pub(super) checkpoint_interval: Duration,
}

pub(super) struct ShardActor {
    parts: ShardParts,
    /// A checkpoint is between its cut and its outcome.
    is_committing: bool,
    /// The interval passed while one was on its way.
    is_due: bool,
    /// No checkpoint was committed here yet. The first one must not wait for the interval, because until then all
    /// readers see the shard stand still.
    awaits_first: bool,
    /// Reads no more, and ends with the next commit.
    is_finishing: bool,
    /// Another turn of draining is queued already.
    has_turn: bool,
    ended: Option<oneshot::Sender<ShardEnd>>,
}

/// Another turn for a shard that has more to read.
#[derive(Message)]
#[rtype(result = "()")]
struct Turn;

/// Reads no more, commits what is read, and ends.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Finish;

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop;

impl ShardActor {
    /// The receiver gets exactly one end; if it is dropped instead, the actor panicked.
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
            match drained {
                Ok(RECORDS_PER_DRAIN) => {}
                Ok(0) => break false,
                Ok(_) => {
                    fault::point("shard.after_fold");
                    break false;
                }
                // The reader is of no more use: another one begins at the committed offset, so that nothing is skipped.
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

    /// Asks the log for its end, so that the checkpoint can say how complete it is, then cuts and commits.
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
        // Taken before the question: whatever arrives later is not covered by its answer.
        let asked_at_ms = self.parts.clock.now_ms();
        let (log, shard) = (Arc::clone(&self.parts.log), self.parts.state.shard());
        let question = async move { log.end_offset(shard).await };
        ctx.spawn(question.into_actor(self).map(move |end, actor, ctx| {
            let is_stamped_late = is_broken(Mutant::ProofAfterAnswer);
            let proven_at_ms = if is_stamped_late { actor.parts.clock.now_ms() } else { asked_at_ms };
            actor.note_end(proven_at_ms, end);
            actor.propose(ctx);
        }));
    }

    fn note_end(&mut self, asked_at_ms: UnixMillis, end: Result<u64, LogError>) {
        let state = &mut self.parts.state;
        let shard = state.shard();
        match end {
            Ok(end) => {
                let lag_records = end.saturating_sub(state.position());
                METRICS.lag(shard, lag_records);
                self.parts.meters.lag(shard, lag_records);
                state.note_end(asked_at_ms, end);
            }
            // No proof, so the watermark keeps still.
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
                    // What was read while this one was on its way.
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
            // The receiver is gone when the whole host is going down.
            let _ = ended.send(end);
        }
        ctx.stop();
    }
}

impl Actor for ShardActor {
    type Context = Context<ShardActor>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(DRAIN_EVERY, |actor, ctx| actor.drain(ctx));
        // Proves an idle shard complete at once; one with clicks waiting commits its first drain.
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
