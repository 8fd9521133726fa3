//! Snowflake worker ids. Each incarnation of a node gets a new one, so that two processes never mint the same click id.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_proto::identity::ids::{NodeId, WORKERS_MAX};
use serde::{Deserialize, Serialize};

use crate::check::{BrokenInvariant, require};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLeases {
    /// The search for a free id starts here. Ids are used in turn, so a released id rests as long as possible.
    next: u16,
    /// Worker id to node and incarnation.
    held: BTreeMap<u16, (NodeId, u64)>,
}

impl WorkerLeases {
    /// The id of an incarnation, or `None` if all ids are held. A new incarnation gets the id that was released
    /// longest ago, because the node's wall clock may have stepped back since its last incarnation.
    pub(crate) fn lease(&mut self, node: NodeId, incarnation: u64) -> Option<u16> {
        let held = self.held.iter().find(|(_, holder)| **holder == (node, incarnation));
        if let Some((&worker, _)) = held {
            return Some(worker);
        }
        let worker = (0..WORKERS_MAX)
            .map(|step| (self.next + step) % WORKERS_MAX)
            .find(|worker| !self.held.contains_key(worker))?;
        self.release(node);
        self.held.insert(worker, (node, incarnation));
        self.next = (worker + 1) % WORKERS_MAX;
        Some(worker)
    }

    pub(crate) fn release(&mut self, node: NodeId) {
        self.held.retain(|_, (holder, _)| *holder != node);
    }

    pub(crate) fn check(&self) -> Result<(), BrokenInvariant> {
        let holders: BTreeSet<_> = self.held.values().map(|(node, _)| node).collect();
        let told = || format!("{:?}", self.held);
        require(holders.len() == self.held.len(), "a node holds one worker id at most", told)?;
        let is_in_range = self.held.keys().all(|worker| *worker < WORKERS_MAX) && self.next < WORKERS_MAX;
        require(is_in_range, "a worker id fits its bits of a click id", told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::assert_breaks;

    #[test]
    fn two_incarnations_never_share_a_worker_id_and_a_retry_gets_the_same() {
        let mut leases = WorkerLeases::default();
        let first = leases.lease(1, 100).unwrap();
        assert_eq!(leases.lease(1, 100), Some(first));
        let second = leases.lease(1, 101).unwrap();
        let other = leases.lease(2, 100).unwrap();
        assert!(first != second && second != other && first != other);
    }

    #[test]
    fn a_released_id_is_the_last_to_be_used_again() {
        let mut leases = WorkerLeases::default();
        let released = leases.lease(1, 0).unwrap();
        leases.release(1);
        let others: Vec<u16> = (2..=u64::from(WORKERS_MAX)).map(|node| leases.lease(node, 0).unwrap()).collect();
        assert!(!others.contains(&released));
        assert_eq!(leases.lease(9_999, 0), Some(released));
        assert_eq!(leases.lease(10_000, 0), None, "all ids are held");
    }

    #[test]
    fn each_rule_is_broken_once() {
        let twice = WorkerLeases { next: 0, held: BTreeMap::from([(1, (1, 7)), (2, (1, 8))]) };
        assert_breaks(twice.check(), "a node holds one worker id at most");
        let beyond = WorkerLeases { next: 0, held: BTreeMap::from([(WORKERS_MAX, (1, 7))]) };
        assert_breaks(beyond.check(), "a worker id fits its bits of a click id");
    }
}
