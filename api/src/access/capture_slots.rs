//! How many captures may be in flight at once. Beyond that a node refuses at once instead of queueing.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Each capture may hold a body of up to 1 MiB and the records made of it: the limit bounds the memory of capture to
/// some hundreds of MiB.
pub const CAPTURES_IN_FLIGHT_MAX: usize = 128;

#[derive(Debug)]
pub struct CaptureSlots(Semaphore);

impl Default for CaptureSlots {
    fn default() -> Self {
        CaptureSlots(Semaphore::new(CAPTURES_IN_FLIGHT_MAX))
    }
}

impl CaptureSlots {
    /// `None` if every slot is taken.
    pub fn take(&self) -> Option<SemaphorePermit<'_>> {
        self.0.try_acquire().ok()
    }
}
