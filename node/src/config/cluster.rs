//! `[cluster]`: what all nodes of one cluster share.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use clicktally_proto::command::STATE_BYTES_MAX_DEFAULT;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GROUPS_MAX;
use clicktally_raft_store::store_config::SnapshotRules;

use super::error::{ConfigError, invalid};
use super::section::section;

/// Below this, a node spends most of its time on snapshots; above it, a restart replays for long.
const SNAPSHOT_EVERY_ENTRIES: RangeInclusive<u64> = 10..=1_000_000;
/// Each group's log takes up to two such stretches on the disk.
const SNAPSHOT_EVERY_BYTES: RangeInclusive<u64> = 1024 * 1024..=1024 * 1024 * 1024;
/// Below this, a single checkpoint of one shard might not fit.
const STATE_BYTES_LEAST: u64 = 64 * 1024 * 1024;

section! {
    #[derive(Debug)]
    pub struct ClusterSection {
        /// Nodes of a cluster with another name are refused.
        pub name: String = "clicktally".into(),
        /// Raft groups, over which campaigns are spread.
        pub groups: u16 = 1,
        /// The founding members, `id = "host:port"` of their peer interfaces; the same on every node. A single node
        /// needs none.
        pub peers: BTreeMap<String, String> = BTreeMap::new(),
        /// How often a leader announces itself. At most half of `election_min_ms`.
        pub heartbeat_ms: u64 = 50,
        /// A follower that hears no leader for this long, or up to `election_max_ms`, stands for election.
        pub election_min_ms: u64 = 150,
        /// See `election_min_ms`, which is below it.
        pub election_max_ms: u64 = 300,
        /// A node silent for this long loses its shards. At least `election_max_ms`.
        pub node_lease_ms: u64 = 1_000,
        /// A group snapshots its state after this many log entries, or after `snapshot_every_bytes`, whichever comes
        /// first. Its log holds at most two such stretches.
        pub snapshot_every_entries: u64 = SnapshotRules::default().every_entries,
        /// See `snapshot_every_entries`.
        pub snapshot_every_bytes: u64 = SnapshotRules::default().every_bytes,
        /// The approximate memory limit for one group's cells and seen ids. At the limit its shards wait for windows to
        /// become final. A restart may raise the limit later, never lower it.
        pub state_bytes_max: u64 = STATE_BYTES_MAX_DEFAULT,
    }
}

impl ClusterSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(1..=GROUPS_MAX).contains(&self.groups) {
            return invalid(format!("cluster.groups must be 1..={GROUPS_MAX}, is {}", self.groups));
        }
        if self.heartbeat_ms.saturating_mul(2) > self.election_min_ms || self.election_min_ms >= self.election_max_ms {
            return invalid(
                "cluster: heartbeat_ms must be at most half of election_min_ms, and election_min_ms below election_max_ms",
            );
        }
        if self.node_lease_ms < self.election_max_ms {
            return invalid("cluster.node_lease_ms must not be below election_max_ms");
        }
        for (key, range, is) in [
            ("snapshot_every_entries", SNAPSHOT_EVERY_ENTRIES, self.snapshot_every_entries),
            ("snapshot_every_bytes", SNAPSHOT_EVERY_BYTES, self.snapshot_every_bytes),
        ] {
            if !range.contains(&is) {
                return invalid(format!("cluster.{key} must be {}..={}, is {is}", range.start(), range.end()));
            }
        }
        if self.state_bytes_max < STATE_BYTES_LEAST {
            let is = self.state_bytes_max;
            return invalid(format!("cluster.state_bytes_max must be {STATE_BYTES_LEAST} or more, is {is}"));
        }
        self.founders().map(drop)
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
