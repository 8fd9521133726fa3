//! CT-3: replicas that have applied the same entries hold the same state, byte for byte.

use std::collections::BTreeMap;

use super::{Invariant, Violation};

/// A replica and the digest of its encoded state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaDigest {
    pub node: u64,
    /// The log index of the last applied entry.
    pub index: u64,
    pub digest: u64,
}

/// Compares the replicas of one group. Replicas at different indexes are not compared.
pub fn check(replicas: &[ReplicaDigest]) -> Vec<Violation> {
    let mut first_at: BTreeMap<u64, &ReplicaDigest> = BTreeMap::new();
    let mut violations = Vec::new();
    for replica in replicas {
        let first = first_at.entry(replica.index).or_insert(replica);
        if first.digest != replica.digest {
            let detail =
                format!("at index {}, nodes {} and {} hold different states", replica.index, first.node, replica.node);
            violations.push(Violation { invariant: Invariant::ReplicasEqual, detail });
        }
    }
    violations
}

/// `different` are the nodes whose state differs in memory from that of a replica which was never restored.
pub fn check_restored(different: &[u64]) -> Vec<Violation> {
    let violation = |node: &u64| Violation {
        invariant: Invariant::ReplicasEqual,
        detail: format!("node {node} has lost or changed a part of its state that no digest covers"),
    };
    different.iter().map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_different_node_is_named() {
        let found = check_restored(&[2, 3]);
        assert_eq!(found.len(), 2);
        assert!(found[1].detail.contains("node 3"));
    }

    #[test]
    fn only_replicas_at_the_same_index_are_compared() {
        let at = |node, index, digest| ReplicaDigest { node, index, digest };
        assert!(check(&[at(1, 7, 5), at(2, 7, 5), at(3, 6, 4)]).is_empty());
        assert_eq!(check(&[at(1, 7, 5), at(3, 6, 4), at(2, 7, 6)]).len(), 1);
    }
}
