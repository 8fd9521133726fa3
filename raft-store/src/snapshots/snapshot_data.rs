//! The snapshot as openraft passes it around: never its bytes, only where they are.

use crate::snapshots::group_snapshots::{GroupSnapshots, ReceivedSnapshot, StoredSnapshot};
use crate::type_config::TypeConfig;

/// The snapshot that openraft passes between its source and its receiver.
pub(crate) enum SnapshotData {
    /// Only the meta matters: the snapshot is empty, or it is on the disk of the node that built it.
    MetaOnly,
    /// A snapshot on this node's disk, to be sent.
    Stored(Box<StoredSnapshot>, GroupSnapshots),
    /// A snapshot from another node, to be installed.
    Received(Box<ReceivedSnapshot>),
}

pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;
