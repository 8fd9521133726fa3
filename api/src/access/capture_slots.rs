//! How many captures may be in flight at once: beyond that a node says so instead of queueing.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Each may hold a body of `BODY_BYTES_MAX` and its records: this bounds the memory of capture to some
/// hundreds of MiB.
pub const CAPTURES_IN_FLIGHT_MAX: usize = 128;

#[derive(Debug)]
pub struct CaptureSlots(Semaphore);

impl Default for CaptureSlots {
    fn default() -> Self {
        CaptureSlots(Semaphore::new(CAPTURES_IN_FLIGHT_MAX))
    }
}

impl CaptureSlots {
    /// `None` where every slot is taken.
    pub fn take(&self) -> Option<SemaphorePermit<'_>> {
        self.0.try_acquire().ok()
    }
}
