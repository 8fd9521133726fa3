//! The configuration of a node's Raft groups. It is checked before any group is opened.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GROUPS_MAX;
use openraft::{Config, SnapshotPolicy};
use thiserror::Error;

/// Trades fast detection of a dead leader against tolerance for a slow one. A failover takes at most about `2 ×
/// election_max_ms`, because the old lease must expire first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftTiming {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}

impl Default for RaftTiming {
    /// Tolerates half a second of starved cores. A failover takes about one second.
    fn default() -> RaftTiming {
        RaftTiming { heartbeat_ms: 100, election_min_ms: 300, election_max_ms: 600 }
    }
}

impl RaftTiming {
    /// A failover takes about half a second. For machines with spare cores.
    pub const FAST: RaftTiming = RaftTiming { heartbeat_ms: 50, election_min_ms: 150, election_max_ms: 300 };
}

/// When to build a snapshot: at the first limit that is reached. The log holds at most two such intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRules {
    pub every_entries: u64,
    pub every_bytes: u64,
    /// How often the rules are checked.
    pub check_interval: Duration,
}

impl Default for SnapshotRules {
    fn default() -> SnapshotRules {
        SnapshotRules { every_entries: 5_000, every_bytes: 64 * 1024 * 1024, check_interval: Duration::from_secs(1) }
    }
}

#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The name of the cluster. Nodes of another cluster are refused. It may contain letters, digits, `-` and `_`.
    pub cluster: String,
    pub node: NodeId,
    /// Fixed for the life of the cluster.
    pub groups: u16,
    /// The founders, each with the `host:port` of its peer interface. The map must be the same on every founder. A
    /// node that is not a founder waits until it is added.
    pub founders: BTreeMap<NodeId, String>,
    pub timing: RaftTiming,
    pub snapshots: SnapshotRules,
    /// A node whose own heartbeats have a longer gap was frozen. It must listen anew before it declares another node
    /// dead.
    pub heartbeat_gap_max: Duration,
    /// The highest level of the commands that this build applies, [`clicktally_proto::command::COMMAND_LEVEL`]. An
    /// older build has a lower level.
    pub command_level: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreConfigError {
    #[error("cluster name {0:?}: use letters, digits, - and _ only")]
    ClusterName(String),
    #[error("{0} groups are configured; allowed are 1 to {GROUPS_MAX}")]
    Groups(u16),
    #[error("snapshot rules must be above zero")]
    SnapshotRules,
    #[error("raft timing: {0}")]
    Timing(String),
}

impl StoreConfig {
    pub(crate) fn check(&self) -> Result<(), StoreConfigError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.cluster.is_empty() || !self.cluster.chars().all(is_plain) {
            return Err(StoreConfigError::ClusterName(self.cluster.clone()));
        }
        if self.groups == 0 || self.groups > GROUPS_MAX {
            return Err(StoreConfigError::Groups(self.groups));
        }
        let SnapshotRules { every_entries, every_bytes, check_interval } = self.snapshots;
        if every_entries == 0 || every_bytes == 0 || check_interval.is_zero() {
            return Err(StoreConfigError::SnapshotRules);
        }
        Ok(())
    }

    pub(crate) fn raft_config(&self) -> Result<Config, StoreConfigError> {
        let config = Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: self.timing.heartbeat_ms,
            election_timeout_min: self.timing.election_min_ms,
            election_timeout_max: self.timing.election_max_ms,
            // A node that returns from a partition must not depose a working leader.
            enable_pre_vote: Some(true),
            // The state machine is in memory, and the committed index is not fsynced. So a restarted leader must win
            // an election before it serves. Otherwise it could serve an older state than before.
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshots.every_entries),
            // openraft purges by count. We purge up to the older of the two kept snapshots, so that one of them may
            // rot.
            max_in_snapshot_log_to_keep: u64::MAX / 2,
            // A new member counts as caught up when it is this close to the end. The default (5,000) would be several
            // minutes of our entries.
            replication_lag_threshold: 100,
            ..Config::default()
        };
        config.validate().map_err(|e| StoreConfigError::Timing(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::command::COMMAND_LEVEL;

    use super::*;

    fn config() -> StoreConfig {
        StoreConfig {
            cluster: "clicks-1".to_owned(),
            node: 1,
            groups: 1,
            founders: BTreeMap::new(),
            timing: RaftTiming::default(),
            snapshots: SnapshotRules::default(),
            heartbeat_gap_max: Duration::from_secs(1),
            command_level: COMMAND_LEVEL,
        }
    }

    #[test]
    fn only_a_sane_configuration_is_opened() {
        assert_eq!(config().check(), Ok(()));
        assert!(StoreConfig { cluster: "a/b".to_owned(), ..config() }.check().is_err());
        assert!(StoreConfig { groups: 0, ..config() }.check().is_err());
        assert!(StoreConfig { groups: GROUPS_MAX + 1, ..config() }.check().is_err());
        assert!(config().raft_config().is_ok());
        assert!(StoreConfig { timing: RaftTiming::FAST, ..config() }.raft_config().is_ok());
        let absurd = RaftTiming { heartbeat_ms: 500, election_min_ms: 300, election_max_ms: 600 };
        assert!(StoreConfig { timing: absurd, ..config() }.raft_config().is_err());
    }
}
