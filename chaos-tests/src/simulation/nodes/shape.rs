//! The size of a seed's cluster: drawn before anything else.

use std::fmt;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::{GroupId, Partitioner};

use crate::simulation::random::Seed;

/// This many of a thousand seeds have five nodes, and this many two groups. Both cost time; three nodes and one group
/// show most.
const FIVE_NODES: u64 = 350;
const TWO_GROUPS: u64 = 350;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    nodes: u64,
    groups: u16,
}

impl Shape {
    pub(super) fn draw(seed: Seed) -> Shape {
        let mut random = seed.stream("shape");
        let nodes = if random.permille(FIVE_NODES) { 5 } else { 3 };
        let groups = if random.permille(TWO_GROUPS) { 2 } else { 1 };
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

    #[test]
    fn every_shape_is_drawn_and_a_seed_has_one() {
        let drawn: BTreeSet<String> = (0..50).map(|seed| Shape::draw(Seed(seed)).to_string()).collect();
        assert_eq!(drawn.len(), 4, "{drawn:?}");
        assert_eq!(Shape::draw(Seed(3)), Shape::draw(Seed(3)));
    }
}
