//! The Clock seam. Rules never ask for the time, they are told it; shells ask a [`Clock`], so that a simulation can own time.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::event_time::UnixMillis;

/// Wall time for humans and event-time bounds, monotonic time for leases and staleness. Never mix the two.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May jump either way.
    fn now_ms(&self) -> UnixMillis;
    /// Time since an arbitrary fixed point of this process. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clocks: the only place of the workspace that may read them (`clippy.toml` bans the rest).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // The one gate to the wall clock.
    fn now_ms(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    #[allow(clippy::disallowed_methods)] // The one gate to the monotonic clock.
    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}
