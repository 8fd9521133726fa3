//! `[cluster]`: what all nodes of one cluster share.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use clicktally_proto::command::STATE_BYTES_MAX_DEFAULT;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GROUPS_MAX;
use clicktally_proto::limits::NODE_ID_MAX;
use clicktally_raft_store::store_config::SnapshotRules;

use super::bound::{Bound, CLUSTER_NAME, Switch, is_host_and_port};
use super::error::{ConfigError, invalid};
use super::section::section;

/// Below this, a node spends most of its time on snapshots; above it, a restart replays for long.
const SNAPSHOT_EVERY_ENTRIES: RangeInclusive<u64> = 10..=1_000_000;
/// Each group's log takes up to two such stretches on the disk.
const SNAPSHOT_EVERY_BYTES: RangeInclusive<u64> = 1024 * 1024..=1024 * 1024 * 1024;
/// Below this, a single checkpoint of one shard might not fit.
const STATE_BYTES: RangeInclusive<u64> = 64 * 1024 * 1024..=1024 * 1024 * 1024 * 1024;
/// An hour. A longer time would be a mistake of unit.
const ELECTION_MS_MAX: u64 = 60 * 60 * 1_000;

/// Members by id with the addresses of their peer interfaces.
struct Peers;

impl Bound<BTreeMap<String, String>> for Peers {
    fn allowed(&self) -> String {
        format!("a table of different ids from 1 to {NODE_ID_MAX} with different addresses HOST:PORT")
    }

    fn allows(&self, value: &BTreeMap<String, String>) -> bool {
        // "1" and "01" would be one id.
        let is_id =
            |text: &str| text.parse::<u64>().is_ok_and(|id| (1..=NODE_ID_MAX).contains(&id) && id.to_string() == text);
        let addresses: BTreeSet<&String> = value.values().collect();
        value.iter().all(|(id, address)| is_id(id) && is_host_and_port(address)) && addresses.len() == value.len()
    }

    fn shown(&self, value: &BTreeMap<String, String>) -> Option<String> {
        Some(format!("{value:?}"))
    }
}

section! {
    #[derive(Debug)]
    ["cluster"] pub struct ClusterSection {
        /// Nodes of a cluster with another name are refused.
        pub name: String = "clicktally".into(), in CLUSTER_NAME;
        /// Raft groups, over which campaigns are spread.
        pub groups: u16 = 1, in 1..=GROUPS_MAX;
        /// The founding members, `id = "host:port"` of their peer interfaces; the same on every node. A single node
        /// needs none. A founding member is among them.
        pub peers: BTreeMap<String, String> = BTreeMap::new(), in Peers;
        /// This node joins a running cluster by `clicktally cluster add`, and is not among its founding members.
        pub joins: bool = false, in Switch;
        /// How often a leader announces itself. At most half of `election_min_ms`.
        pub heartbeat_ms: u64 = 50, in 1..=ELECTION_MS_MAX;
        /// A follower that hears no leader for this long, or up to `election_max_ms`, stands for election.
        pub election_min_ms: u64 = 150, in 2..=ELECTION_MS_MAX;
        /// See `election_min_ms`, which is below it.
        pub election_max_ms: u64 = 300, in 3..=ELECTION_MS_MAX;
        /// A node silent for this long loses its shards. At least `election_max_ms`.
        pub node_lease_ms: u64 = 1_000, in 3..=ELECTION_MS_MAX;
        /// A group snapshots its state after this many log entries, or after `snapshot_every_bytes`, whichever comes
        /// first. Its log holds at most two such stretches.
        pub snapshot_every_entries: u64 = SnapshotRules::default().every_entries, in SNAPSHOT_EVERY_ENTRIES;
        /// See `snapshot_every_entries`.
        pub snapshot_every_bytes: u64 = SnapshotRules::default().every_bytes, in SNAPSHOT_EVERY_BYTES;
        /// The approximate memory limit for one group's cells and seen ids. At the limit its shards wait for windows to
        /// become final. A restart may raise the limit later, never lower it.
        pub state_bytes_max: u64 = STATE_BYTES_MAX_DEFAULT, in STATE_BYTES;
    }
}

impl ClusterSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_keys()?;
        if self.heartbeat_ms.saturating_mul(2) > self.election_min_ms || self.election_min_ms >= self.election_max_ms {
            return invalid(
                "cluster: heartbeat_ms must be at most half of election_min_ms, and election_min_ms below election_max_ms",
            );
        }
        if self.node_lease_ms < self.election_max_ms {
            return invalid("cluster.node_lease_ms must not be below election_max_ms");
        }
        self.founders().map(drop)
    }

    /// `node`: the id of this node.
    ///
    /// # Errors
    /// A founding member that is not listed would wait for a leader for ever, and so would one with a wrong id.
    pub(super) fn check_membership(&self, node: NodeId) -> Result<(), ConfigError> {
        let founders = self.founders()?;
        match (self.joins, founders.contains_key(&node)) {
            (false, false) if !founders.is_empty() => invalid(format!(
                "cluster.peers lacks this node ({node}): add it with its peer address, or correct node.id. A node that joins \
                 a running cluster has cluster.joins = true instead"
            )),
            (true, true) => invalid(format!(
                "cluster.peers has this node ({node}) as a founding member: remove cluster.joins = true"
            )),
            (true, false) if founders.is_empty() => {
                invalid("cluster.joins needs cluster.peers: name the founding members of the cluster")
            }
            _ => Ok(()),
        }
    }

    /// The founding members by id.
    pub(super) fn founders(&self) -> Result<BTreeMap<NodeId, String>, ConfigError> {
        let parse = |(id, address): (&String, &String)| match id.parse::<NodeId>() {
            Ok(id) if id > 0 => Ok((id, address.clone())),
            _ => invalid(format!("cluster.peers: '{id}' is not a node id (a number above 0)")),
        };
        self.peers.iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_different_nodes() {
        let peers = |listed: &[(&str, &str)]| {
            Peers.allows(&listed.iter().map(|(id, address)| ((*id).to_owned(), (*address).to_owned())).collect())
        };
        assert!(peers(&[]) && peers(&[("1", "a:1"), ("2", "b:1")]));
        for refused in
            [("0", "b:1"), ("01", "b:1"), ("x", "b:1"), ("9007199254740992", "b:1"), ("2", "a:1"), ("2", "b")]
        {
            assert!(!peers(&[("1", "a:1"), refused]), "{refused:?}");
        }
    }
}
