//! Who lives, as the leader of a group has heard it. Volatile on purpose: a new leader must hear every node itself before it
//! may call one dead.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_proto::ids::NodeId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Sent by every node to the leader of each group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub node: NodeId,
    /// Differs between two lives of a node.
    pub incarnation: u64,
    /// False while draining: owns shards still, is given no more.
    pub accepts_shards: bool,
}

/// A copy of the leader's table, with the age of each entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeartbeatView {
    /// How long this node has led the group without interruption; zero elsewhere.
    pub leading_for: Duration,
    pub nodes: BTreeMap<NodeId, HeardNode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardNode {
    pub silent_for: Duration,
    pub heartbeat: Heartbeat,
}

/// Nodes the table keeps at most; far above any cluster. Beyond it the longest silent is forgotten.
const HEARD_NODES_MAX: usize = 1_024;

/// What this node has heard while it led. Times are monotonic times of this process.
#[derive(Debug, Default)]
pub(crate) struct HeartbeatTable {
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The term this node leads in, and since when.
    leading: Option<(u64, Duration)>,
    nodes: BTreeMap<NodeId, (Duration, Heartbeat)>,
}

impl HeartbeatTable {
    /// Told often: the term this node leads in now, if it leads. Another term is another reign, even of the same node.
    pub(crate) fn observe(&self, term_led: Option<u64>, now: Duration) {
        let mut heard = self.heard.lock();
        if heard.leading.map(|(term, _)| term) != term_led {
            heard.leading = term_led.map(|term| (term, now));
            heard.nodes.clear();
        }
    }

    pub(crate) fn record(&self, heartbeat: Heartbeat, now: Duration) {
        let mut heard = self.heard.lock();
        heard.nodes.insert(heartbeat.node, (now, heartbeat));
        if heard.nodes.len() > HEARD_NODES_MAX {
            let longest_silent = heard.nodes.iter().min_by_key(|(_, (at, _))| *at).map(|(node, _)| *node);
            if let Some(node) = longest_silent {
                heard.nodes.remove(&node);
            }
        }
    }

    pub(crate) fn view(&self, now: Duration) -> HeartbeatView {
        let heard = self.heard.lock();
        let Some((_, since)) = heard.leading else { return HeartbeatView::default() };
        let nodes = heard.nodes.iter().map(|(node, (at, heartbeat))| {
            (*node, HeardNode { silent_for: now.saturating_sub(*at), heartbeat: heartbeat.clone() })
        });
        HeartbeatView { leading_for: now.saturating_sub(since), nodes: nodes.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(node: NodeId) -> Heartbeat {
        Heartbeat { node, incarnation: 1, accepts_shards: true }
    }

    #[test]
    fn a_new_reign_starts_with_an_empty_table() {
        let table = HeartbeatTable::default();
        let second = Duration::from_secs;
        table.observe(Some(4), second(1));
        table.record(heartbeat(2), second(2));
        table.observe(Some(4), second(3));
        let view = table.view(second(5));
        assert_eq!(view.leading_for, second(4));
        assert_eq!(view.nodes[&2].silent_for, second(3));

        table.observe(Some(6), second(7));
        let view = table.view(second(8));
        assert_eq!(view.leading_for, second(1));
        assert!(view.nodes.is_empty());

        table.observe(None, second(9));
        assert_eq!(table.view(second(10)), HeartbeatView::default());
    }
}
