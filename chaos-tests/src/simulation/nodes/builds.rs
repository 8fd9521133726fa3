//! Builds of different age in one cluster: a rolling upgrade, in which the operator now and then sets a node back.
//!
//! An older build has any of the supported command levels below the newest, so that every level is played.

use std::collections::BTreeSet;

use clicktally_proto::command::{COMMAND_LEVEL, COMMAND_LEVEL_MIN};
use clicktally_proto::identity::ids::NodeId;

use super::shape::Shape;
use super::world::World;
use crate::simulation::edition::{Edition, Story};
use crate::simulation::random::Stream;

/// In this many of a thousand clusters, some nodes begin as an older build.
const MIXED: u64 = 500;
/// This many of a thousand nodes of such a cluster do.
const OLDER: u64 = 500;
/// This many of a thousand changes set a node back that was upgraded, or was of the newest build from the start.
const SET_BACK: u64 = 150;
/// The time between two changes is drawn below this.
const PAUSE_MS_MAX: u64 = 25_000;

/// Which build a node is started with.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Build {
    #[default]
    Newest,
    /// An older build, of this command level.
    Older(u16),
    /// The same, but it was newer once: its log may hold commands that it does not know.
    SetBack(u16),
}

impl Build {
    pub(super) fn command_level(self) -> u16 {
        match self {
            Build::Newest => COMMAND_LEVEL,
            Build::Older(level) | Build::SetBack(level) => level,
        }
    }

    pub(super) fn is_set_back(self) -> bool {
        matches!(self, Build::SetBack(_))
    }
}

/// Draws the levels of older builds, from a stream of its own.
struct OlderLevels {
    random: Stream,
    /// Half-open, as an older build is older than the newest.
    end: u16,
}

impl OlderLevels {
    fn new(story: Story) -> OlderLevels {
        // In the first edition there was one older level; a level added since must not shift its stories.
        let end = if story.edition < Edition::LEVELS { COMMAND_LEVEL_MIN + 1 } else { COMMAND_LEVEL };
        OlderLevels { random: story.seed.stream("build levels"), end }
    }

    fn draw(&mut self) -> u16 {
        let older = self.end.saturating_sub(COMMAND_LEVEL_MIN);
        COMMAND_LEVEL_MIN + u16::try_from(self.random.below(older.into())).unwrap_or(0)
    }
}

/// Which nodes begin as an older build.
fn first_builds(random: &mut Stream, levels: &mut OlderLevels, nodes: &[NodeId]) -> Vec<(NodeId, Build)> {
    if !random.permille(MIXED) {
        return Vec::new();
    }
    let older = nodes.iter().filter(|_| random.permille(OLDER));
    older.map(|&node| (node, Build::Older(levels.draw()))).collect()
}

/// The command levels that the cluster of a story begins with, without running it.
pub fn levels_at_start(story: Story) -> BTreeSet<u16> {
    let nodes: Vec<NodeId> = Shape::draw(story).nodes().collect();
    let (mut random, mut levels) = (story.seed.stream("builds"), OlderLevels::new(story));
    let older = first_builds(&mut random, &mut levels, &nodes);
    let newest = (older.len() < nodes.len()).then_some(COMMAND_LEVEL);
    older.into_iter().map(|(_, build)| build.command_level()).chain(newest).collect()
}

pub(super) struct Builds {
    random: Stream,
    levels: OlderLevels,
    next_ms: u64,
}

impl Builds {
    pub(super) fn new(story: Story, world: &World, begin_ms: u64) -> Builds {
        let (mut random, mut levels) = (story.seed.stream("builds"), OlderLevels::new(story));
        for (node, build) in first_builds(&mut random, &mut levels, &world.nodes) {
            world.host(node, |host| host.build = build);
            world.line(format_args!("node {node} is of an older build"));
        }
        let next_ms = begin_ms + random.below(PAUSE_MS_MAX);
        Builds { random, levels, next_ms }
    }

    /// A node that has another build from now on. The caller restarts it.
    pub(super) fn change(&mut self, world: &World, now_ms: u64) -> Option<(NodeId, &'static str)> {
        if now_ms < self.next_ms {
            return None;
        }
        self.next_ms = now_ms + self.random.below(PAUSE_MS_MAX);
        let goes_back = self.random.permille(SET_BACK);
        let build = |node: &NodeId| world.host(*node, |host| host.build);
        // One at a time: a node that was set back may stop, and must be upgraded before the next one is set back.
        let may_go_back = world.nodes.iter().all(|node| !build(node).is_set_back());
        let able: Vec<NodeId> =
            world.nodes.iter().copied().filter(|node| (build(node) == Build::Newest) == goes_back).collect();
        let node = self.random.pick(&able).copied().filter(|_| !goes_back || may_go_back)?;
        let build = if goes_back { Build::SetBack(self.levels.draw()) } else { Build::Newest };
        world.host(node, |host| host.build = build);
        Some((node, if goes_back { "set back" } else { "upgrade" }))
    }
}

/// Takes effect when the node next starts.
pub(super) fn upgrade(world: &World, node: NodeId) {
    if world.host(node, |host| std::mem::take(&mut host.build)) != Build::Newest {
        world.line(format_args!("node {node} is upgraded"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every level of a future build that supports five of them, and never its newest.
    #[test]
    fn every_older_level_is_drawn() {
        let random = Story::newest(1).seed.stream("build levels");
        let mut levels = OlderLevels { random, end: COMMAND_LEVEL_MIN + 4 };
        let drawn: BTreeSet<u16> = (0..200).map(|_| levels.draw()).collect();
        assert_eq!(drawn, (COMMAND_LEVEL_MIN..COMMAND_LEVEL_MIN + 4).collect());
    }
}
