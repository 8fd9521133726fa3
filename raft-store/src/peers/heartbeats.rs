//! Who lives, and what each carries, as this node has heard it. Every node tells every other, not only the leaders: whoever
//! becomes a leader has listened already, and need not wait a lease before it may call a node dead.
//!
//! Silence proves something only to who was listening. A node that has just started, or was itself frozen, begins anew; its
//! table says since when it has listened without interruption.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_state::liveness::{HeardNode, Heartbeat, HeartbeatView, ShardLoad};
use parking_lot::Mutex;

/// Nodes the table keeps at most; far above any cluster. Beyond it the longest silent is forgotten.
const HEARD_NODES_MAX: usize = 1_024;

/// What this node has heard. Times are monotonic times of this process.
#[derive(Debug)]
pub struct HeartbeatTable {
    /// Between two beats of its own a listener is taken to have been frozen, or deaf, if more than this passed.
    gap_max: Duration,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// Since when without interruption, and the last beat of its own.
    listening: Option<(Duration, Duration)>,
    nodes: BTreeMap<NodeId, (Duration, Heartbeat)>,
    loads: BTreeMap<ShardId, ShardLoad>,
}

impl HeartbeatTable {
    pub fn new(gap_max: Duration) -> HeartbeatTable {
        HeartbeatTable { gap_max, heard: Mutex::default() }
    }

    /// This node's own beat: proof that it runs and hears.
    pub fn beat(&self, own: Heartbeat, now: Duration) {
        let mut heard = self.heard.lock();
        let since = match heard.listening {
            Some((since, last)) if now.saturating_sub(last) <= self.gap_max => since,
            _ => now,
        };
        heard.listening = Some((since, now));
        heard.record(own, now);
    }

    /// What another node said, `now` in monotonic time of this process.
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
        // A load outlives its owner: its successor inherits it before it has measured anything itself.
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

        // Asked before its next beat, and after it: either way it was deaf meanwhile.
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
