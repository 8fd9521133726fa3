//! The nodes of a group: their addresses, which of them drain, the command level of each, and their worker ids.
//!
//! Liveness is not here: it needs a clock, and apply has none ([`crate::liveness`]).

mod worker_leases;

use std::collections::{BTreeMap, BTreeSet};

use clicktally_proto::command::{COMMAND_LEVEL_MIN, NodeRecord};
use clicktally_proto::identity::ids::NodeId;

pub use self::worker_leases::WorkerLeases;
use crate::check::{BrokenInvariant, require};
use crate::head::{Field, HeadError, HeadReader, HeadWriter, Tag};
use crate::limits::NODES_MAX;

const NODES: Field<BTreeMap<NodeId, NodeRecord>> = Field { tag: Tag::Nodes, before: BTreeMap::new };
const DRAINING: Field<BTreeSet<NodeId>> = Field { tag: Tag::Draining, before: BTreeSet::new };
const LEVELS: Field<BTreeMap<NodeId, u16>> = Field { tag: Tag::Levels, before: BTreeMap::new };
const WORKERS: Field<WorkerLeases> = Field { tag: Tag::Workers, before: WorkerLeases::default };

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    nodes: BTreeMap<NodeId, NodeRecord>,
    /// The nodes that are being emptied. They are separate from the records, because a node writes a new record each
    /// time it starts, and draining must survive that.
    draining: BTreeSet<NodeId>,
    /// The command level that each node announced last.
    levels: BTreeMap<NodeId, u16>,
    workers: WorkerLeases,
}

impl Roster {
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeRecord> {
        &self.nodes
    }

    pub fn draining(&self) -> &BTreeSet<NodeId> {
        &self.draining
    }

    /// The highest level of the commands that a node applies. A node that has announced nothing has the lowest.
    pub fn command_level(&self, node: NodeId) -> u16 {
        self.levels.get(&node).copied().unwrap_or(COMMAND_LEVEL_MIN)
    }

    /// The level that every registered node applies. Without nodes it is the lowest.
    pub fn common_level(&self) -> u16 {
        self.nodes.keys().map(|node| self.command_level(*node)).min().unwrap_or(COMMAND_LEVEL_MIN)
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Whether the node is registered and counts shards.
    pub(crate) fn can_aggregate(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|record| record.can_aggregate)
    }

    /// Whether there is room for the node's record. The record of a known node is replaced.
    pub(crate) fn has_room_for(&self, node: NodeId) -> bool {
        self.contains(node) || self.nodes.len() < NODES_MAX
    }

    pub(crate) fn register(&mut self, record: NodeRecord) {
        self.nodes.insert(record.node, record);
    }

    /// Forgets everything about a registered node. Returns false for any other, and changes nothing: an unregistered
    /// node may hold a worker id, and its removal is a rejection.
    pub(crate) fn remove(&mut self, node: NodeId) -> bool {
        let is_known = self.nodes.remove(&node).is_some();
        if is_known {
            self.draining.remove(&node);
            self.levels.remove(&node);
            self.workers.release(node);
        }
        is_known
    }

    /// Returns whether anything changed.
    pub(crate) fn set_draining(&mut self, node: NodeId, is_draining: bool) -> bool {
        if is_draining { self.draining.insert(node) } else { self.draining.remove(&node) }
    }

    /// Returns whether anything changed.
    pub(crate) fn set_level(&mut self, node: NodeId, level: u16) -> bool {
        self.levels.insert(node, level) != Some(level)
    }

    pub(crate) fn workers(&mut self) -> &mut WorkerLeases {
        &mut self.workers
    }

    pub(crate) fn check(&self) -> Result<(), BrokenInvariant> {
        let nodes = self.nodes.len();
        require(nodes <= NODES_MAX, "a group has at most NODES_MAX nodes", || format!("{nodes} nodes"))?;
        let strays: Vec<_> =
            self.draining.iter().chain(self.levels.keys()).filter(|node| !self.contains(**node)).collect();
        require(strays.is_empty(), "only registered nodes drain or have a level", || format!("nodes {strays:?}"))?;
        let is_own = |(node, record): (&NodeId, &NodeRecord)| *node == record.node;
        require(self.nodes.iter().all(is_own), "a record is under its own node", || format!("{:?}", self.nodes))?;
        self.workers.check()
    }

    pub(crate) fn put(&self, head: &mut HeadWriter) -> Result<(), HeadError> {
        let Roster { nodes, draining, levels, workers } = self;
        head.put(&NODES, nodes)?;
        head.put(&DRAINING, draining)?;
        head.put(&LEVELS, levels)?;
        head.put(&WORKERS, workers)
    }

    pub(crate) fn take(head: &mut HeadReader) -> Result<Roster, HeadError> {
        Ok(Roster {
            nodes: head.take(&NODES)?,
            draining: head.take(&DRAINING)?,
            levels: head.take(&LEVELS)?,
            workers: head.take(&WORKERS)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::assert_breaks;

    fn roster() -> Roster {
        let mut roster = Roster::default();
        for node in [1, 2] {
            let (http_address, peer_address) = ("a:1".to_owned(), "a:2".to_owned());
            roster.register(NodeRecord { node, http_address, peer_address, can_aggregate: true });
        }
        roster.check().unwrap();
        roster
    }

    #[test]
    fn the_common_level_is_that_of_the_oldest_build() {
        let mut roster = roster();
        assert_eq!(Roster::default().common_level(), COMMAND_LEVEL_MIN);
        assert!(roster.set_level(1, 5));
        assert_eq!(roster.common_level(), COMMAND_LEVEL_MIN, "node 2 has announced nothing");
        assert!(roster.set_level(2, 4));
        assert_eq!(roster.common_level(), 4);
    }

    #[test]
    fn removing_an_unknown_node_changes_nothing_not_even_its_worker_id() {
        let mut roster = roster();
        roster.workers().lease(9, 100).unwrap();
        let before = roster.clone();
        assert!(!roster.remove(9));
        assert_eq!(roster, before);
    }

    #[test]
    fn each_rule_is_broken_once() {
        let broken = |change: fn(&mut Roster)| {
            let mut roster = roster();
            change(&mut roster);
            roster.check()
        };
        let draining = broken(|roster| assert!(roster.set_draining(9, true)));
        assert_breaks(draining, "only registered nodes drain or have a level");
        let misplaced = broken(|roster| {
            let record = roster.nodes[&1].clone();
            roster.nodes.insert(3, record);
        });
        assert_breaks(misplaced, "a record is under its own node");
    }
}
