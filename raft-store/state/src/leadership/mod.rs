//! Which node leads which group. Pure: who lives and who leads what go in, at most one hand-over comes out.
//!
//! Every node runs it for the groups it leads itself, since only a leader can hand over; and only the one that leads
//! most acts, so that two nodes that see the same do not both give to the same third. Leaders differ by one at most
//! when it has settled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;

use crate::liveness::HeartbeatView;

/// Entries an heir may lack: it has to fetch them before it can lead, and nothing is committed meanwhile.
pub const BEHIND_MAX: u64 = 64;

#[derive(Debug, Clone, Copy)]
pub struct LeadershipRules {
    /// A node not heard for this long leads nothing more.
    pub lease: Duration,
    /// No hand-over for balance before all leaders have been the same for this long. A node that stops or drains does
    /// not wait.
    pub settle: Duration,
}

/// What one node sees at one moment.
#[derive(Debug)]
pub struct LeadershipFacts<'a> {
    /// The node that decides.
    pub node: NodeId,
    pub heartbeats: &'a HeartbeatView,
    pub draining: &'a BTreeSet<NodeId>,
    /// Every group of the cluster.
    pub groups: &'a [GroupReign],
    /// How long no group has changed its leader, as seen here.
    pub settled_for: Duration,
}

/// Who leads a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReign {
    pub group: GroupId,
    pub leader: Option<NodeId>,
    pub voters: BTreeSet<NodeId>,
    /// Where the deciding node leads: how many entries each other member lacks. A member that is not in it is unknown.
    pub behind: BTreeMap<NodeId, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandOver {
    pub group: GroupId,
    pub to: NodeId,
}

impl LeadershipRules {
    pub fn decide(&self, facts: &LeadershipFacts<'_>) -> Option<HandOver> {
        let mut leads = self.leads_of_the_fit(facts);
        let is_leaving = facts.heartbeats.nodes.get(&facts.node).is_some_and(|own| own.heartbeat.is_leaving);
        let own: Vec<&GroupReign> = facts.groups.iter().filter(|reign| reign.leader == Some(facts.node)).collect();
        if is_leaving || facts.draining.contains(&facts.node) {
            leads.remove(&facts.node);
            return own.iter().find_map(|reign| hand_over(reign, &leads, usize::MAX));
        }
        if facts.settled_for < self.settle || facts.groups.iter().any(|reign| reign.leader.is_none()) {
            return None;
        }
        let leads_here = leads.remove(&facts.node)?;
        // Among the nodes that lead most, the one with the smallest id hands over.
        if leads.iter().any(|(&node, &count)| count > leads_here || count == leads_here && node < facts.node) {
            return None;
        }
        own.iter().find_map(|reign| hand_over(reign, &leads, leads_here.saturating_sub(1)))
    }

    /// How many groups each node leads that may lead more.
    fn leads_of_the_fit(&self, facts: &LeadershipFacts<'_>) -> BTreeMap<NodeId, usize> {
        let voters: BTreeSet<NodeId> = facts.groups.iter().flat_map(|reign| &reign.voters).copied().collect();
        let fit = facts.heartbeats.live(self.lease).filter(|(node, heartbeat)| {
            voters.contains(node) && !heartbeat.is_leaving && !facts.draining.contains(node)
        });
        let led_by = |node| facts.groups.iter().filter(|reign| reign.leader == Some(node)).count();
        fit.map(|(node, _)| (node, led_by(node))).collect()
    }
}

/// To the heir that leads least, if that is below `below`.
fn hand_over(reign: &GroupReign, leads: &BTreeMap<NodeId, usize>, below: usize) -> Option<HandOver> {
    let is_able = |node: &NodeId| {
        reign.voters.contains(node) && reign.behind.get(node).is_some_and(|behind| *behind <= BEHIND_MAX)
    };
    let heirs = leads.iter().filter(|(node, count)| is_able(node) && **count < below);
    let (&to, _) = heirs.min_by_key(|(node, count)| (**count, **node))?;
    Some(HandOver { group: reign.group, to })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::liveness::{HeardNode, Heartbeat};

    const RULES: LeadershipRules = LeadershipRules { lease: Duration::from_secs(1), settle: Duration::from_secs(5) };

    #[derive(Debug, Clone, Copy)]
    struct Node {
        is_silent: bool,
        is_leaving: bool,
        is_draining: bool,
        is_behind: bool,
    }

    impl Node {
        const GOOD: Node = Node { is_silent: false, is_leaving: false, is_draining: false, is_behind: false };

        fn may_lead_more(self) -> bool {
            !(self.is_silent || self.is_leaving || self.is_draining || self.is_behind)
        }
    }

    struct World {
        nodes: BTreeMap<NodeId, Node>,
        leaders: Vec<Option<NodeId>>,
        settled_for: Duration,
    }

    impl World {
        fn new(nodes: &[Node], leaders: &[NodeId]) -> World {
            let nodes = (1..).zip(nodes.iter().copied()).collect();
            World { nodes, leaders: leaders.iter().copied().map(Some).collect(), settled_for: RULES.settle }
        }

        fn decide(&self, node: NodeId) -> Option<HandOver> {
            let heard = |(&node, is): (&NodeId, &Node)| {
                let heartbeat = Heartbeat {
                    node,
                    incarnation: 1,
                    accepts_shards: true,
                    is_leaving: is.is_leaving,
                    threads: 1,
                    loads: Vec::new(),
                };
                (node, HeardNode { silent_for: RULES.lease * u32::from(is.is_silent), heartbeat })
            };
            let heartbeats =
                HeartbeatView { nodes: self.nodes.iter().map(heard).collect(), ..HeartbeatView::default() };
            let draining = self.nodes.iter().filter(|(_, is)| is.is_draining).map(|(&node, _)| node).collect();
            let lag = |(&node, is): (&NodeId, &Node)| (node, u64::from(is.is_behind) * (BEHIND_MAX + 1));
            let reign = |(group, &leader): (u16, &Option<NodeId>)| GroupReign {
                group: GroupId(group),
                leader,
                voters: self.nodes.keys().copied().collect(),
                behind: self.nodes.iter().map(lag).collect(),
            };
            let groups: Vec<GroupReign> = (0..).zip(&self.leaders).map(reign).collect();
            let facts = LeadershipFacts {
                node,
                heartbeats: &heartbeats,
                draining: &draining,
                groups: &groups,
                settled_for: self.settled_for,
            };
            RULES.decide(&facts)
        }

        /// Asks every node in turn until no node has anything to hand over. Returns the hand-overs.
        fn settle(&mut self) -> Vec<HandOver> {
            let mut done = Vec::new();
            for _ in 0..1_000 {
                let decided: Vec<HandOver> = self.nodes.keys().filter_map(|&node| self.decide(node)).collect();
                let Some(&first) = decided.first() else { return done };
                self.leaders[usize::from(first.group.0)] = Some(first.to);
                done.push(first);
            }
            panic!("leadership does not settle: {:?}", self.leaders);
        }

        fn led_by(&self, node: NodeId) -> usize {
            self.leaders.iter().filter(|leader| **leader == Some(node)).count()
        }
    }

    #[test]
    fn leaders_spread_evenly_and_then_stay() {
        let mut world = World::new(&[Node::GOOD; 3], &[1, 1, 1, 1]);
        assert_eq!(world.settle().len(), 2);
        assert_eq!([1, 2, 3].map(|node| world.led_by(node)), [2, 1, 1]);
        assert!(World::new(&[Node::GOOD; 3], &[2]).settle().is_empty(), "one group has one leader");
    }

    #[test]
    fn nothing_is_balanced_before_leaders_have_settled_but_a_leaving_node_goes_at_once() {
        let mut world = World::new(&[Node::GOOD; 3], &[1, 1, 1]);
        world.settled_for = Duration::ZERO;
        assert!(world.settle().is_empty());
        world.nodes.insert(1, Node { is_leaving: true, ..Node::GOOD });
        assert_eq!(world.settle().len(), 3);
        assert_eq!(world.led_by(1), 0);
    }

    #[test]
    fn a_group_without_a_leader_is_an_election_to_wait_for() {
        let mut world = World::new(&[Node::GOOD; 2], &[1, 1, 1]);
        world.leaders.push(None);
        assert!(world.settle().is_empty());
    }

    #[test]
    fn two_nodes_that_lead_as_much_do_not_both_hand_over() {
        let world = World::new(&[Node::GOOD; 3], &[1, 1, 2, 2]);
        assert!(world.decide(1).is_some());
        assert_eq!(world.decide(2), None);
    }

    fn any_node() -> impl Strategy<Value = Node> {
        let rarely = || proptest::bool::weighted(0.2);
        (rarely(), rarely(), rarely(), rarely()).prop_map(|(is_silent, is_leaving, is_draining, is_behind)| Node {
            is_silent,
            is_leaving,
            is_draining,
            is_behind,
        })
    }

    proptest! {
        #[test]
        fn hand_overs_end_even_and_never_go_to_a_node_that_should_not_lead(
            nodes in proptest::collection::vec(any_node(), 1..7),
            leaders in proptest::collection::vec(1_u64..7, 1..12),
        ) {
            let count = nodes.len() as u64;
            let leaders: Vec<NodeId> = leaders.into_iter().map(|leader| 1 + leader % count).collect();
            let mut world = World::new(&nodes, &leaders);
            for hand_over in world.settle() {
                prop_assert!(world.nodes[&hand_over.to].may_lead_more(), "{hand_over:?}");
            }
            let able: Vec<NodeId> = world.nodes.iter().filter(|(_, is)| is.may_lead_more()).map(|(&node, _)| node).collect();
            for (&node, is) in world.nodes.iter().filter(|(_, is)| !is.is_silent) {
                if !able.is_empty() && (is.is_leaving || is.is_draining) {
                    prop_assert_eq!(world.led_by(node), 0);
                }
                let least = able.iter().map(|&able| world.led_by(able)).min().unwrap_or(usize::MAX);
                prop_assert!(world.led_by(node) <= least.saturating_add(1), "{:?}", world.leaders);
            }
        }
    }
}
