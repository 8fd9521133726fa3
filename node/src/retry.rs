//! How a worker of this node waits before it tries again: the error's next move decides, and a stop ends the wait.
//!
//! The loops of the sink, the duties and the shards wait here. A `Retry` may pass by itself, so the pause is short. A
//! `Reject` or a `Halt` does not pass before an operator acts, so the loop only looks now and then whether the cause is
//! gone.

use std::time::Duration;

use clicktally_proto::next_move::NextMove;
use tokio::sync::watch;

/// The pause after an error that only an operator can cure. Work continues once the cause is gone: repeating it is
/// harmless, because every write is idempotent or fenced.
pub const HALT_PAUSE: Duration = Duration::from_secs(10);

/// The pauses between the attempts at one thing.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// The same pause after each attempt.
    pub const fn steady(pause: Duration) -> Backoff {
        Backoff { next: pause, max: pause }
    }

    /// The pause doubles from `min` up to `max`.
    pub const fn growing(min: Duration, max: Duration) -> Backoff {
        Backoff { next: min, max }
    }

    /// The pause after an error with this next move.
    pub fn after(&mut self, next_move: NextMove) -> Duration {
        match next_move {
            NextMove::Retry => {
                let pause = self.next;
                self.next = (pause * 2).min(self.max);
                pause
            }
            NextMove::Reject | NextMove::Halt => HALT_PAUSE,
        }
    }

    /// Waits after an error that may pass, where dropping the future is the stop.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.after(NextMove::Retry)).await;
    }
}

/// Waits; `None` when stopped meanwhile.
pub async fn pause(length: Duration, stop: &mut watch::Receiver<bool>) -> Option<()> {
    tokio::select! {
        () = tokio::time::sleep(length) => Some(()),
        _ = stop.wait_for(|stop| *stop) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_grow_to_their_limit_and_an_error_that_does_not_pass_waits_longest() {
        let mut backoff = Backoff::growing(20 * MS, 50 * MS);
        assert_eq!([0; 4].map(|_| backoff.after(NextMove::Retry)), [20 * MS, 40 * MS, 50 * MS, 50 * MS]);
        assert_eq!([NextMove::Reject, NextMove::Halt].map(|next_move| backoff.after(next_move)), [HALT_PAUSE; 2]);
        let mut steady = Backoff::steady(5 * MS);
        assert_eq!([0; 2].map(|_| steady.after(NextMove::Retry)), [5 * MS; 2]);
    }

    #[tokio::test]
    async fn a_stop_ends_the_longest_pause_at_once() {
        let (sender, mut stop) = watch::channel(false);
        let waiting = tokio::spawn(async move { pause(Duration::from_secs(3_600), &mut stop).await });
        sender.send(true).unwrap();
        assert_eq!(waiting.await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_pause_ends_by_itself() {
        let (_sender, mut stop) = watch::channel(false);
        assert_eq!(pause(MS, &mut stop).await, Some(()));
    }
}
