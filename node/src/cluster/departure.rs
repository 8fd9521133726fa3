//! A planned stop: what this node owns and leads goes to others first, so that nobody has to notice its silence.

use std::time::Duration;

use clicktally_proto::identity::ids::NodeId;
use clicktally_raft_store::group::Group;
use clicktally_state::group_state::GroupState;
use clicktally_state::liveness::HeartbeatView;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::presence::Presence;

/// How long the node waits to be relieved. Beyond it it just stops: the others then take over as from a dead node.
const RELIEF_DEADLINE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Tells the others, and waits until they have taken what they can.
pub async fn depart(node: NodeId, groups: &[Group], presence: &Presence, lease: Duration) {
    presence.leave();
    let relieved = async {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let owned = groups.iter().map(|group| group.read(|state| owned_by(state, node))).sum();
            let led = groups.iter().filter(|group| group.is_leader()).count();
            if is_relieved(node, owned, led, &presence.view(), lease) {
                return;
            }
        }
    };
    if timeout(RELIEF_DEADLINE, relieved).await.is_err() {
        tracing::warn!("not everything was taken over in time; the others will notice that this node is gone");
    }
}

fn owned_by(state: &GroupState, node: NodeId) -> usize {
    state.shards().values().filter(|shard| shard.owner == Some(node)).count()
}

/// Nothing is left, or nobody is there to take it, as when a whole cluster stops.
fn is_relieved(node: NodeId, owned: usize, led: usize, heard: &HeartbeatView, lease: Duration) -> bool {
    let others = heard.live(lease).filter(|(other, heartbeat)| *other != node && !heartbeat.is_leaving);
    let (mut someone, mut someone_counts) = (false, false);
    for (_, heartbeat) in others {
        someone = true;
        someone_counts |= heartbeat.accepts_shards;
    }
    (owned == 0 || !someone_counts) && (led == 0 || !someone)
}

#[cfg(test)]
mod tests {
    use clicktally_state::liveness::{HeardNode, Heartbeat};

    use super::*;

    const LEASE: Duration = Duration::from_secs(1);

    fn heard(nodes: &[(NodeId, bool, bool)]) -> HeartbeatView {
        let node = |&(node, accepts_shards, is_leaving): &(NodeId, bool, bool)| {
            let heartbeat =
                Heartbeat { node, incarnation: 1, accepts_shards, is_leaving, threads: 1, loads: Vec::new() };
            (node, HeardNode { silent_for: Duration::ZERO, heartbeat })
        };
        HeartbeatView { nodes: nodes.iter().map(node).collect(), ..HeartbeatView::default() }
    }

    #[test]
    fn a_node_waits_for_whoever_can_relieve_it_and_for_nobody_else() {
        let beside = heard(&[(1, true, true), (2, true, false)]);
        assert!(!is_relieved(1, 3, 0, &beside, LEASE));
        assert!(!is_relieved(1, 0, 1, &beside, LEASE));
        assert!(is_relieved(1, 0, 0, &beside, LEASE));
        let no_counter = heard(&[(1, true, true), (2, false, false)]);
        assert!(is_relieved(1, 3, 0, &no_counter, LEASE));
        assert!(!is_relieved(1, 3, 1, &no_counter, LEASE));
        let all_leave = heard(&[(1, true, true), (2, true, true)]);
        assert!(is_relieved(1, 3, 1, &all_leave, LEASE));
        assert!(is_relieved(1, 3, 1, &heard(&[(1, true, true)]), LEASE));
    }
}
