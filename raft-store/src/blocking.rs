//! Runs disk work and computations that may take long, so that no heartbeat waits for them.
//!
//! In production they run on tokio's blocking threads. A simulated cluster is one thread and must stay so: otherwise
//! the machine, and not the seed, would determine the order of events. In a simulation the work therefore runs at
//! once, on the caller's thread.

use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

static IS_INLINE: AtomicBool = AtomicBool::new(false);

/// The work did not finish: the runtime is shutting down, or the work panicked.
#[derive(Debug, Error)]
pub enum Unfinished {
    #[error("the node is shutting down")]
    ShuttingDown,
    #[error("panic: {0}")]
    Panicked(tokio::task::JoinError),
}

/// From now on, and for the life of this process, work runs on the caller's thread. For simulations only.
pub fn run_inline() {
    IS_INLINE.store(true, Ordering::Relaxed);
}

/// Runs `work` on a blocking thread and waits for its result. Dropping the future does not stop the work.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Unfinished> {
    if IS_INLINE.load(Ordering::Relaxed) {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| if error.is_panic() { Unfinished::Panicked(error) } else { Unfinished::ShuttingDown })
}

/// Frees a large value on a blocking thread, so that the caller does not wait.
pub fn free_elsewhere<T: Send + 'static>(value: T) {
    if !IS_INLINE.load(Ordering::Relaxed) {
        tokio::task::spawn_blocking(move || drop(value));
    }
}
