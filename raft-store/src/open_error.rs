//! Why a node's Raft store does not open, and what an operator does about it.

use clicktally_proto::codec::CodecError;
use clicktally_proto::identity::ids::NodeId;
use clicktally_state::snapshot::SnapshotError;
use thiserror::Error;

use crate::group_log::GroupLogError;
use crate::storage::StorageError;
use crate::store_config::StoreConfigError;

#[derive(Debug, Error)]
pub enum OpenError {
    #[error(transparent)]
    Config(#[from] StoreConfigError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "the identity in {path} is damaged: {source}. Restore it, or move the folder away and add this node to the \
         cluster again"
    )]
    Identity { path: String, source: CodecError },
    #[error(
        "{path} belongs to node {found_node} of cluster {found_cluster:?}: point this node at its own folder, or move this one away"
    )]
    ForeignFolder { path: String, found_node: NodeId, found_cluster: String },
    #[error(transparent)]
    Log(#[from] GroupLogError),
    #[error("group {group}: cannot use the newest snapshot: {source}")]
    Snapshot { group: u16, source: SnapshotError },
    #[error(
        "group {group}: the log was purged up to {purged}, but no valid snapshot reaches that far (newest: {snapshot:?}), and no \
         other founder that answers has one. Start this node again when the other founders are up; if they are up already, \
         remove this node from the cluster, move its folder away, and add it back empty"
    )]
    SnapshotLost { group: u16, purged: u64, snapshot: Option<u64> },
    #[error(
        "this node's folder is empty, but this node has already acknowledged entries of group {group} up to {acknowledged}. \
         Restore its disk; if its data is lost, remove this node from the cluster and add it back"
    )]
    Wiped { group: u16, acknowledged: u64 },
    #[error(
        "group {group}: this node has acknowledged entries up to {acknowledged}, but its log ends at {last}: its disk has lost \
         entries, and this node must not vote without them. Restore the disk, or remove this node from the cluster, move its \
         folder away, and add it back empty"
    )]
    LogLost { group: u16, acknowledged: u64, last: u64 },
    #[error(
        "group {group}: the Raft log of this node is damaged ({what}). This node has acknowledged entries up to {acknowledged} and \
         must not vote without them, and no other founder that answers has a snapshot that reaches that far. Start this node again \
         when the other founders are up. If they are up already, run `clicktally cluster remove --node <id>`, move the folder \
         away, and use `clicktally cluster add` to add the node back empty, under a new id"
    )]
    LogDamaged { group: u16, acknowledged: u64, what: String },
    #[error("group {group} cannot start: {reason}")]
    Raft { group: u16, reason: String },
}
