//! Keeps the log's own time on this node, for proofs of completeness and for the budget lane.
//!
//! *Reads* the log's answers to the question for its time. *Writes* one empty record a second into the topic
//! `log_clock`. *Promises*: [`LogClock::reached`] gives no time that the log's clock has not reached. *On restart*: it
//! knows nothing until the first answer, so nothing is proven and the lane is closed.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clicktally_budget::CLOCK_DIFFERENCE_MAX;
use clicktally_proto::click_log::{ClickLog, LogError};
use clicktally_proto::clock::Clock;
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::log_time::LogTime;
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::metrics_registry::{FIXED, registered};
use parking_lot::Mutex;
use prometheus::Gauge;
use tokio::sync::watch;

use crate::halts::{Halts, Part};
use crate::retry;

/// How often the log is asked. Between two answers this node's monotonic clock may drift by some microseconds.
const ASK_EVERY: Duration = Duration::from_secs(1);

static DIFFERENCE: LazyLock<Gauge> = LazyLock::new(|| {
    registered(
        Gauge::new(
            "clicktally_clock_difference_seconds",
            "how far this node's wall clock is certainly ahead of the log's; negative if it is behind",
        )
        .expect(FIXED),
    )
});

/// What this node knows of the log's clock.
pub struct LogClock {
    clock: Arc<dyn Clock>,
    known: Mutex<Option<LogTime>>,
}

impl LogClock {
    pub fn new(clock: Arc<dyn Clock>) -> LogClock {
        LogClock { clock, known: Mutex::default() }
    }

    /// A time that the log's clock has certainly reached. `None` without a recent answer.
    pub fn reached(&self) -> Option<UnixMillis> {
        if is_broken(Mutant::ProofByOwnClock) {
            return Some(self.clock.now_ms());
        }
        let now = self.clock.monotonic();
        self.known.lock().and_then(|known| known.reached(now))
    }

    /// How far this node's wall clock is certainly ahead of the log's; negative if it is behind. `None` before the
    /// first answer.
    pub fn difference_ms(&self) -> Option<i64> {
        let (wall_ms, now) = (self.clock.now_ms(), self.clock.monotonic());
        self.known.lock().map(|known| known.difference_ms(now, wall_ms))
    }

    /// Asks the log once.
    pub async fn ask(&self, log: &dyn ClickLog) -> Result<(), LogError> {
        let asked_at = self.clock.monotonic();
        let stamped_ms = log.time_ms().await?;
        *self.known.lock() = Some(LogTime::new(stamped_ms, asked_at, self.clock.monotonic()));
        Ok(())
    }

    /// Asks the log until `stop` turns true, and says so when the two clocks differ too much.
    pub async fn keep(self: Arc<Self>, log: Arc<dyn ClickLog>, halts: Arc<Halts>, mut stop: watch::Receiver<bool>) {
        loop {
            let asked = tokio::select! {
                asked = self.ask(log.as_ref()) => asked,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match asked {
                Ok(()) => self.compare(&halts),
                Err(error) if error.next_move() == NextMove::Retry => {
                    tracing::warn!(%error, "cannot ask the log for its time");
                }
                Err(error) => halts.halted(Part::LogClock, &error),
            }
            if retry::pause(ASK_EVERY, &mut stop).await.is_none() {
                return;
            }
        }
    }

    fn compare(&self, halts: &Halts) {
        let difference_ms = self.difference_ms().unwrap_or(0);
        #[allow(clippy::cast_precision_loss)] // A gauge for people.
        DIFFERENCE.set(difference_ms as f64 / 1_000.0);
        if u128::from(difference_ms.unsigned_abs()) <= CLOCK_DIFFERENCE_MAX.as_millis() {
            return halts.works(Part::LogClock);
        }
        let direction = if difference_ms > 0 { "ahead of" } else { "behind" };
        let seconds = difference_ms.unsigned_abs() / 1_000;
        let reason = format!(
            "this node's clock is {seconds} s {direction} the broker's; synchronise both with NTP (timedatectl, chronyc tracking). \
             Counting goes on, by the broker's clock"
        );
        halts.halted(Part::LogClock, &reason);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use clicktally_api::ports::HaltedParts;
    use clicktally_proto::click_log::{OutRecord, ShardReader};
    use clicktally_proto::clock::SystemClock;
    use clicktally_proto::identity::log_id::LogId;
    use clicktally_proto::identity::shard_key::ShardId;

    use super::*;

    /// A log that only tells its time, which is this far ahead of the machine's. [`i64::MIN`]: it refuses.
    struct ToldTime(AtomicI64);

    #[async_trait::async_trait]
    impl ClickLog for ToldTime {
        fn open(&self, _: ShardId, _: u64) -> Result<Box<dyn ShardReader>, LogError> {
            Err(LogError::Unavailable("it only tells its time".to_owned()))
        }

        async fn log_id(&self) -> Result<Option<LogId>, LogError> {
            Ok(None)
        }

        async fn end_offset(&self, _: ShardId) -> Result<u64, LogError> {
            Err(LogError::Unavailable("it only tells its time".to_owned()))
        }

        async fn time_ms(&self) -> Result<UnixMillis, LogError> {
            match self.0.load(Ordering::SeqCst) {
                i64::MIN => Err(LogError::Fatal("no such topic".to_owned())),
                ahead_ms => Ok(SystemClock.now_ms().saturating_add_signed(ahead_ms)),
            }
        }

        async fn publish(&self, _: Vec<OutRecord>) -> Result<(), LogError> {
            Err(LogError::Unavailable("it only tells its time".to_owned()))
        }
    }

    /// Agrees with the machine's clock, for as long as the runtime lives.
    pub(crate) fn agreeing() -> Arc<LogClock> {
        let clock = Arc::new(LogClock::new(Arc::new(SystemClock)));
        let (kept, halts) = (Arc::clone(&clock), Arc::new(Halts::new(Arc::new(SystemClock))));
        tokio::spawn(async move {
            let never = watch::Sender::new(false);
            kept.keep(Arc::new(ToldTime(AtomicI64::new(0))), halts, never.subscribe()).await;
        });
        clock
    }

    fn reason(halts: &Halts) -> Option<String> {
        HaltedParts::halted(halts).into_iter().map(|part| part.reason).next()
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_off_is_said_and_no_proof_goes_by_it() {
        let halts = Arc::new(Halts::new(Arc::new(SystemClock)));
        let (clock, log) = (Arc::new(LogClock::new(Arc::new(SystemClock))), Arc::new(ToldTime(AtomicI64::new(0))));
        assert_eq!((clock.reached(), clock.difference_ms()), (None, None));

        let stop = watch::Sender::new(false);
        let kept = tokio::spawn(Arc::clone(&clock).keep(Arc::clone(&log) as _, Arc::clone(&halts), stop.subscribe()));
        let until = async |wanted: fn(&str) -> bool| {
            while !reason(&halts).as_deref().is_some_and(wanted) {
                tokio::time::sleep(ASK_EVERY).await;
            }
        };
        // The broker is an hour behind, so this node is an hour ahead.
        log.0.store(-3_600_000, Ordering::SeqCst);
        until(|reason| reason.contains("3600 s ahead of") || reason.contains("3599 s ahead of")).await;
        let (reached, wall_ms) = (clock.reached().unwrap(), SystemClock.now_ms());
        assert!(reached <= wall_ms - 3_600_000, "a proof carries a time that the log has not reached");
        log.0.store(3_600_000, Ordering::SeqCst);
        until(|reason| reason.contains("s behind the broker's")).await;
        log.0.store(i64::MIN, Ordering::SeqCst);
        until(|reason| reason.contains("no such topic")).await;
        log.0.store(0, Ordering::SeqCst);
        while reason(&halts).is_some() {
            tokio::time::sleep(ASK_EVERY).await;
        }
        stop.send_replace(true);
        kept.await.unwrap();
    }
}
