//! Work that may take long, for a disk or for computing: where it runs, so that no heartbeat waits for it.
//!
//! In production on tokio's blocking threads. A simulated cluster is one thread and must stay it, or the order of events would be
//! the machine's and not the seed's: there the work runs at once, in the place of whoever asks for it.

use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

static IS_INLINE: AtomicBool = AtomicBool::new(false);

/// The work did not end: the runtime is shutting down, or it panicked.
#[derive(Debug, Error)]
pub enum Unfinished {
    #[error("the node is shutting down")]
    ShuttingDown,
    #[error("panic: {0}")]
    Panicked(tokio::task::JoinError),
}

/// From now on, and for the life of this process, work runs in the place of whoever asks for it. For simulations only.
pub fn run_inline() {
    IS_INLINE.store(true, Ordering::Relaxed);
}

/// Runs `work` where it delays nobody, and waits for it. Dropping the future does not stop the work.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Unfinished> {
    if IS_INLINE.load(Ordering::Relaxed) {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| if error.is_panic() { Unfinished::Panicked(error) } else { Unfinished::ShuttingDown })
}

/// Frees something large where nobody waits for it.
pub fn free_elsewhere<T: Send + 'static>(value: T) {
    if !IS_INLINE.load(Ordering::Relaxed) {
        tokio::task::spawn_blocking(move || drop(value));
    }
}
