//! The heartbeats that this node has heard: which nodes are alive and which load each carries. Every node announces
//! itself to every other node, not only to the leaders. So a new leader has listened already and need not wait a
//! lease before it may declare a node dead.
//!
//! Silence is evidence only for a node that was listening. A node that has just started, or was itself frozen, starts
//! to listen anew. Its table reports since when it has listened without interruption.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_state::liveness::{HeardNode, Heartbeat, HeartbeatView, ShardLoad};
use parking_lot::Mutex;

/// Limit of the nodes in the table, far above any cluster. Beyond the limit, the table evicts the node that has been
/// silent the longest.
const HEARD_NODES_MAX: usize = 1_024;

/// The heartbeats that this node has heard. All times are monotonic times of this process.
#[derive(Debug)]
pub struct HeartbeatTable {
    /// If more time than this passes between two of the node's own heartbeats, the table assumes that the node was
    /// frozen or deaf.
    gap_max: Duration,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The start of uninterrupted listening, and the time of the node's own last heartbeat.
    listening: Option<(Duration, Duration)>,
    nodes: BTreeMap<NodeId, (Duration, Heartbeat)>,
    loads: BTreeMap<ShardId, ShardLoad>,
}

impl HeartbeatTable {
    pub fn new(gap_max: Duration) -> HeartbeatTable {
        HeartbeatTable { gap_max, heard: Mutex::default() }
    }

    /// Records this node's own heartbeat. It proves that the node runs and listens.
    pub fn beat(&self, own: Heartbeat, now: Duration) {
        let mut heard = self.heard.lock();
        let since = match heard.listening {
            Some((since, last)) if now.saturating_sub(last) <= self.gap_max => since,
            _ => now,
        };
        heard.listening = Some((since, now));
        heard.record(own, now);
    }

    /// Records another node's heartbeat. `now` is monotonic time of this process.
    pub fn record(&self, heartbeat: Heartbeat, now: Duration) {
        self.heard.lock().record(heartbeat, now);
    }

    pub fn view(&self, now: Duration) -> HeartbeatView {
        let heard = self.heard.lock();
        let nodes = heard.nodes.iter().map(|(node, (at, heartbeat))| {
            (*node, HeardNode { silent_for: now.saturating_sub(*at), heartbeat: heartbeat.clone() })
        });
        let listening_for = match heard.listening {
            Some((since, last)) if now.saturating_sub(last) <= self.gap_max => now.saturating_sub(since),
            _ => Duration::ZERO,
        };
        HeartbeatView { listening_for, nodes: nodes.collect(), loads: heard.loads.clone() }
    }
}

impl Heard {
    fn record(&mut self, heartbeat: Heartbeat, now: Duration) {
        // Keep the load of a shard after its owner is gone. The next owner inherits it before it has measured the
        // load itself.
        self.loads.extend(heartbeat.loads.iter().copied());
        self.nodes.insert(heartbeat.node, (now, heartbeat));
        if self.nodes.len() > HEARD_NODES_MAX {
            let longest_silent = self.nodes.iter().min_by_key(|(_, (at, _))| *at).map(|(node, _)| *node);
            if let Some(node) = longest_silent {
                self.nodes.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn heartbeat(node: NodeId, loads: &[(u16, u64)]) -> Heartbeat {
        let load = |&(shard, clicks_per_s): &(u16, u64)| (ShardId(shard), ShardLoad { clicks_per_s, lag_clicks: 0 });
        Heartbeat {
            node,
            incarnation: 1,
            accepts_shards: true,
            is_leaving: false,
            threads: 1,
            loads: loads.iter().map(load).collect(),
        }
    }

    #[test]
    fn a_listener_that_was_frozen_begins_to_listen_anew() {
        let table = HeartbeatTable::new(SECOND);
        assert_eq!(table.view(SECOND), HeartbeatView::default());
        table.beat(heartbeat(1, &[]), SECOND * 2);
        table.record(heartbeat(2, &[]), SECOND * 2);
        table.beat(heartbeat(1, &[]), SECOND * 3);
        let view = table.view(SECOND * 4);
        assert_eq!(view.listening_for, SECOND * 2);
        assert_eq!(view.nodes[&2].silent_for, SECOND * 2);
        assert_eq!(view.live(SECOND * 2).map(|(node, _)| node).collect::<Vec<_>>(), [1]);

        // The view is the same before and after the next heartbeat: the node was deaf in between.
        assert!(!table.view(SECOND * 9).has_listened(SECOND));
        table.beat(heartbeat(1, &[]), SECOND * 9);
        assert_eq!(table.view(SECOND * 10).listening_for, SECOND);
    }

    #[test]
    fn what_a_shard_costs_is_known_also_after_its_owner_has_gone() {
        let table = HeartbeatTable::new(SECOND);
        table.record(heartbeat(2, &[(3, 100), (4, 50)]), SECOND);
        table.record(heartbeat(1, &[(4, 70)]), SECOND * 2);
        let loads = table.view(SECOND * 9).loads;
        assert_eq!((loads[&ShardId(3)].clicks_per_s, loads[&ShardId(4)].clicks_per_s), (100, 70));
    }
}
