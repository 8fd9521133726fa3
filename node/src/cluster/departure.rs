//! A planned stop: this node first hands over the shards it owns and the groups it leads, so that no lease has to run
//! out.
//!
//! *Reads* the local replicas and the heartbeats heard. *Writes* nothing itself: it announces that it leaves, and the
//! leaders of its groups take over. *Promises*: it waits as long as the hand-over makes progress, because a stop that
//! ends as a failover costs a pause of counting. A hand-over that stands still, or takes too long in all, is given
//! up.
//!
//! The node sends heartbeats until its hand-over ends. If none of them arrives for a lease, the leaders take it for
//! dead, like any other node, and assign its shards at once. They cannot tell a node that stalls from one that was
//! killed while it was leaving, and to wait for a dead node would stop its shards. The epoch fences a node that only
//! stalled, so its clicks are read again and none counts twice.

use std::time::Duration;

use clicktally_proto::clock::Clock;
use clicktally_proto::identity::ids::NodeId;
use clicktally_raft_store::group::Group;
use clicktally_state::group_state::GroupState;
use clicktally_state::liveness::HeartbeatView;
use tokio::time::{MissedTickBehavior, interval};

use super::presence::Presence;

/// How long the node waits for the next shard or group to be taken over. On a busy machine all of them together may
/// take longer than that, so every one taken starts the wait anew.
const STANDSTILL_MAX: Duration = Duration::from_secs(5);
/// How long the node waits in all. Supervisors commonly kill after 30 s, and the rest of the stop needs some of that.
const RELIEF_DEADLINE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

const _: () =
    assert!(STANDSTILL_MAX.as_secs() < RELIEF_DEADLINE.as_secs(), "a hand-over may make progress more than once");

/// Tells the other nodes, and waits until they have taken over what they can.
pub async fn depart(node: NodeId, groups: &[Group], presence: &Presence, lease: Duration, clock: &dyn Clock) {
    presence.leave();
    let mut wait = ReliefWait::begin(clock.monotonic());
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let left = Burden {
            owned: groups.iter().map(|group| group.read(|state| owned_by(state, node))).sum(),
            led: groups.iter().filter(|group| group.is_leader()).count(),
        };
        if is_relieved(node, left, &presence.view(), lease) {
            return;
        }
        if wait.is_over(left, clock.monotonic()) {
            let Burden { owned, led } = left;
            tracing::warn!(
                shards = owned,
                groups = led,
                "the other nodes did not take over everything in time; they will take over the rest as from a dead node"
            );
            return;
        }
    }
}

/// What a leaving node still has to hand over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Burden {
    /// Shards owned.
    owned: usize,
    /// Groups led.
    led: usize,
}

impl Burden {
    fn total(self) -> usize {
        self.owned + self.led
    }
}

/// Decides how long a leaving node waits: as long as its burden shrinks, and never beyond the deadline.
#[derive(Debug)]
struct ReliefWait {
    began: Duration,
    /// When the burden was last smaller than ever before.
    progressed: Duration,
    least: usize,
}

impl ReliefWait {
    /// `now` is monotonic, here and below.
    fn begin(now: Duration) -> ReliefWait {
        ReliefWait { began: now, progressed: now, least: usize::MAX }
    }

    fn is_over(&mut self, left: Burden, now: Duration) -> bool {
        assert!(now >= self.progressed, "the monotonic clock went back");
        if left.total() < self.least {
            self.least = left.total();
            self.progressed = now;
        }
        now - self.progressed >= STANDSTILL_MAX || now - self.began >= RELIEF_DEADLINE
    }
}

fn owned_by(state: &GroupState, node: NodeId) -> usize {
    state.shards().values().filter(|shard| shard.owner == Some(node)).count()
}

/// Nothing is left, or no other node is there to take it, as when a whole cluster stops.
fn is_relieved(node: NodeId, left: Burden, heard: &HeartbeatView, lease: Duration) -> bool {
    let others = heard.live(lease).filter(|(other, heartbeat)| *other != node && !heartbeat.is_leaving);
    let (mut another_leads, mut another_counts) = (false, false);
    for (_, heartbeat) in others {
        another_leads = true;
        another_counts |= heartbeat.accepts_shards;
    }
    (left.owned == 0 || !another_counts) && (left.led == 0 || !another_leads)
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
    fn a_node_waits_for_nodes_that_can_relieve_it_and_for_no_others() {
        let beside = heard(&[(1, true, true), (2, true, false)]);
        assert!(!is_relieved(1, Burden { owned: 3, led: 0 }, &beside, LEASE));
        assert!(!is_relieved(1, Burden { owned: 0, led: 1 }, &beside, LEASE));
        assert!(is_relieved(1, Burden { owned: 0, led: 0 }, &beside, LEASE));
        let no_counter = heard(&[(1, true, true), (2, false, false)]);
        assert!(is_relieved(1, Burden { owned: 3, led: 0 }, &no_counter, LEASE));
        assert!(!is_relieved(1, Burden { owned: 3, led: 1 }, &no_counter, LEASE));
        let all_leave = heard(&[(1, true, true), (2, true, true)]);
        assert!(is_relieved(1, Burden { owned: 3, led: 1 }, &all_leave, LEASE));
        assert!(is_relieved(1, Burden { owned: 3, led: 1 }, &heard(&[(1, true, true)]), LEASE));
    }

    #[test]
    fn a_slow_hand_over_is_waited_for_as_long_as_it_makes_progress() {
        let second = Duration::from_secs;
        let mut wait = ReliefWait::begin(second(100));
        // One shard in four seconds: slow, but each is progress.
        for (at, owned) in [(100, 4), (104, 3), (108, 2), (112, 1)] {
            assert!(!wait.is_over(Burden { owned, led: 0 }, second(at)), "given up with {owned} left");
        }
        assert!(!wait.is_over(Burden { owned: 1, led: 0 }, second(116)));
        assert!(wait.is_over(Burden { owned: 1, led: 0 }, second(117)), "five seconds without progress");
    }

    #[test]
    fn a_hand_over_that_goes_back_and_forth_ends_at_the_deadline() {
        let mut wait = ReliefWait::begin(Duration::ZERO);
        let burdens = (0..).map(|step| Burden { owned: 30 - step, led: step % 2 });
        let looks = (0..RELIEF_DEADLINE.as_secs()).map(Duration::from_secs);
        assert!(looks.zip(burdens).all(|(now, left)| !wait.is_over(left, now)));
        assert!(wait.is_over(Burden { owned: 1, led: 0 }, RELIEF_DEADLINE));
    }
}
