//! The size of a seed's cluster: drawn before anything else.

use std::fmt;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::{GroupId, Partitioner};

use crate::simulation::edition::{Edition, Story};

/// This many of a thousand seeds have five nodes, and this many two groups. Both cost time; three nodes and one group
/// show most.
const FIVE_NODES: u64 = 350;
const TWO_GROUPS: u64 = 350;
/// This many of a thousand seeds with two groups get two more.
const FOUR_GROUPS: u64 = 250;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    nodes: u64,
    groups: u16,
}

impl Shape {
    pub(super) fn draw(story: Story) -> Shape {
        let mut random = story.seed.stream("shape");
        let nodes = if random.permille(FIVE_NODES) { 5 } else { 3 };
        let groups = match random.permille(TWO_GROUPS) {
            false => 1,
            true if story.edition >= Edition::FOUR_GROUPS && random.permille(FOUR_GROUPS) => 4,
            true => 2,
        };
        Shape { nodes, groups }
    }

    pub(super) fn nodes(self) -> impl Iterator<Item = NodeId> {
        1..=self.nodes
    }

    pub(super) fn groups(self) -> impl Iterator<Item = GroupId> {
        (0..self.groups).map(GroupId)
    }

    pub(super) fn group_count(self) -> u16 {
        self.groups
    }

    pub(super) fn partitioner(self) -> Partitioner {
        Partitioner::new(self.groups)
    }

    /// This many nodes may lose their disks or be away, and the rest still decides.
    pub(super) fn minority(self) -> usize {
        usize::try_from((self.nodes - 1) / 2).unwrap_or(0)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nodes, groups: {}", self.nodes, self.groups)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::simulation::random::Seed;

    #[test]
    fn every_shape_is_drawn_and_a_seed_has_one() {
        let drawn = |edition| {
            let shape = |seed| Shape::draw(Story { seed: Seed(seed), edition });
            (0..200).map(|seed| shape(seed).to_string()).collect::<BTreeSet<String>>()
        };
        assert_eq!(drawn(Edition::TRANSACTIONS).len(), 4, "{:?}", drawn(Edition::TRANSACTIONS));
        assert_eq!(drawn(Edition::FOUR_GROUPS).len(), 6, "{:?}", drawn(Edition::FOUR_GROUPS));
        assert_eq!(Shape::draw(Story::newest(3)), Shape::draw(Story::newest(3)));
    }
}
