//! Mints click ids under the worker id that this process has leased from the cluster.

use std::sync::Arc;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::{ClickId, SnowflakeMinter};
use parking_lot::Mutex;

/// Shared by all requests of a node; minting takes nanoseconds under the lock.
#[derive(Debug, Clone, Default)]
pub struct IdMinter(Arc<Mutex<Option<SnowflakeMinter>>>);

impl IdMinter {
    /// `worker` must come from `Command::LeaseWorker` for this process. Otherwise two processes could mint the same id.
    pub fn arm(&self, worker: u16) {
        *self.0.lock() = Some(SnowflakeMinter::new(worker));
    }

    pub fn is_armed(&self) -> bool {
        self.0.lock().is_some()
    }

    /// `None` until armed.
    pub fn mint(&self, now_ms: UnixMillis) -> Option<ClickId> {
        self.0.lock().as_mut().map(|minter| minter.mint(now_ms))
    }
}
