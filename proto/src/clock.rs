//! The Clock seam. Rules take the time as an argument. Shells ask a [`Clock`], so that a simulation can control time.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::event_time::UnixMillis;

/// Wall time serves people and event-time bounds. Monotonic time serves leases and staleness. Never mix the two.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May jump forwards and backwards.
    fn now_ms(&self) -> UnixMillis;
    /// Time since an arbitrary fixed point of this process. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clocks. Only this type may read them: `clippy.toml` bans reading them elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // The only reader of the wall clock.
    fn now_ms(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    #[allow(clippy::disallowed_methods)] // The only reader of the monotonic clock.
    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}
