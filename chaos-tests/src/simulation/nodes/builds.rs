//! Builds of different age in one cluster: a rolling upgrade, with somebody who goes back now and then.

use clicktally_proto::command::COMMAND_LEVEL;
use clicktally_proto::identity::ids::NodeId;

use super::world::World;
use crate::simulation::random::Stream;

/// Of a thousand clusters, how many begin with nodes of an older build.
const MIXED: u64 = 500;
/// Of a thousand nodes of such a cluster.
const OLDER: u64 = 500;
/// Of a thousand changes, how many set a node back that was upgraded, or was new from the start.
const SET_BACK: u64 = 150;
/// Between two changes: drawn up to this.
const PAUSE_MS_MAX: u64 = 25_000;

/// Which build a node is started with.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Build {
    #[default]
    Newest,
    Older,
    /// It was newer once, so that there may be commands in its log that it does not know.
    SetBack,
}

impl Build {
    pub(super) fn command_level(self) -> u16 {
        if self == Build::Newest { COMMAND_LEVEL } else { COMMAND_LEVEL - 1 }
    }
}

pub(super) struct Builds {
    random: Stream,
    next_ms: u64,
}

impl Builds {
    pub(super) fn new(mut random: Stream, world: &World, begin_ms: u64) -> Builds {
        if random.permille(MIXED) {
            for &node in &world.nodes {
                if random.permille(OLDER) {
                    world.host(node, |host| host.build = Build::Older);
                    world.line(format_args!("node {node} is of an older build"));
                }
            }
        }
        let next_ms = begin_ms + random.below(PAUSE_MS_MAX);
        Builds { random, next_ms }
    }

    /// A node that has another build from now on, to be started anew with it.
    pub(super) fn change(&mut self, world: &World, now_ms: u64) -> Option<(NodeId, &'static str)> {
        if now_ms < self.next_ms {
            return None;
        }
        self.next_ms = now_ms + self.random.below(PAUSE_MS_MAX);
        let goes_back = self.random.permille(SET_BACK);
        let build = |node: &NodeId| world.host(*node, |host| host.build);
        // One at a time: whoever is set back may stop, and has to be upgraded before the next one is.
        let may_go_back = world.nodes.iter().all(|node| build(node) != Build::SetBack);
        let able: Vec<NodeId> =
            world.nodes.iter().copied().filter(|node| (build(node) == Build::Newest) == goes_back).collect();
        let node = self.random.pick(&able).copied().filter(|_| !goes_back || may_go_back)?;
        world.host(node, |host| host.build = if goes_back { Build::SetBack } else { Build::Newest });
        Some((node, if goes_back { "set back" } else { "upgrade" }))
    }
}

/// From the next start on.
pub(super) fn upgrade(world: &World, node: NodeId) {
    if world.host(node, |host| std::mem::take(&mut host.build)) != Build::Newest {
        world.line(format_args!("node {node} is upgraded"));
    }
}
