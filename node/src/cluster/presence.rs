//! Announces this node to the other nodes: that it lives, what it carries, and when it is about to leave.

use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::clock::Clock;
use clicktally_raft_store::serving::announcer::Announcer;
use clicktally_state::liveness::{Heartbeat, HeartbeatView};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::metrics::METRICS;
use crate::shard::ShardMeters;

/// Heartbeats in one lease. Two of them may be lost.
const HEARTBEATS_PER_LEASE: u32 = 4;

/// How often a node announces that it lives.
pub fn heartbeat_interval(lease: Duration) -> Duration {
    lease / HEARTBEATS_PER_LEASE
}

#[derive(Clone)]
pub struct Presence {
    announcer: Announcer,
    /// The fields of the heartbeat that never change in one life of the node.
    myself: Heartbeat,
    /// `None` if this node counts no shards.
    meters: Option<Arc<ShardMeters>>,
    clock: Arc<dyn Clock>,
    is_leaving: watch::Sender<bool>,
}

impl Presence {
    pub fn new(
        announcer: Announcer,
        myself: Heartbeat,
        meters: Option<Arc<ShardMeters>>,
        clock: Arc<dyn Clock>,
    ) -> Presence {
        Presence { announcer, myself, meters, clock, is_leaving: watch::Sender::new(false) }
    }

    pub fn view(&self) -> HeartbeatView {
        self.announcer.view()
    }

    /// Announces at once, and from now on, that this node is stopping.
    pub fn leave(&self) {
        self.is_leaving.send_replace(true);
    }

    /// Announces this node to all other nodes until stopped.
    pub async fn keep_alive(self, lease: Duration, mut stop: watch::Receiver<bool>) {
        let mut ticks = interval(heartbeat_interval(lease));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaving = self.is_leaving.subscribe();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = leaving.changed() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let is_leaving = *leaving.borrow_and_update();
            let loads = self.meters.as_ref().map(|meters| meters.measure(self.clock.monotonic())).unwrap_or_default();
            let clicks_per_s: u64 = loads.iter().map(|(_, load)| load.clicks_per_s).sum();
            METRICS.load_clicks_per_second.set(i64::try_from(clicks_per_s).unwrap_or(i64::MAX));
            // The announcer does not wait for answers, so that a hanging peer cannot delay the heartbeats to other
            // nodes.
            drop(self.announcer.announce(&Heartbeat { is_leaving, loads, ..self.myself.clone() }));
        }
    }
}
