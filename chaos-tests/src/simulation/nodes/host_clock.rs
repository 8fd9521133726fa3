//! The clocks of one host. Its monotonic clock is that of its timers, and the same on all hosts. Its wall clock drifts
//! and jumps.

use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::clock::Clock;
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::NodeId;

use super::world::{EPOCH_MS, World, millis};

pub(super) struct HostClock {
    world: Arc<World>,
    node: NodeId,
    /// The beginning of this life: a monotonic clock means nothing beyond one process.
    started: Duration,
}

impl HostClock {
    pub(super) fn new(world: Arc<World>, node: NodeId) -> HostClock {
        let started = world.elapsed();
        HostClock { world, node, started }
    }
}

impl Clock for HostClock {
    fn now_ms(&self) -> UnixMillis {
        let elapsed_ms = i64::try_from(millis(self.world.elapsed())).unwrap_or(i64::MAX);
        let (offset_ms, drift_ppm) = self.world.host(self.node, |host| (host.wall_offset_ms, host.drift_ppm));
        EPOCH_MS.saturating_add_signed(elapsed_ms + elapsed_ms * drift_ppm / 1_000_000 + offset_ms)
    }

    fn monotonic(&self) -> Duration {
        self.world.elapsed().saturating_sub(self.started)
    }
}
