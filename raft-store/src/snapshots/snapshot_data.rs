//! The snapshot as openraft passes it around: never its bytes, only where they are.

use crate::snapshots::group_snapshots::{GroupSnapshots, ReceivedSnapshot, StoredSnapshot};
use crate::type_config::TypeConfig;

/// What openraft hands from the holder of a snapshot to the task that needs it.
pub(crate) enum SnapshotData {
    /// Only the meta matters: the snapshot is empty, or it is on the disk of the node that built it.
    MetaOnly,
    /// On this node's disk, to be sent.
    Stored(Box<StoredSnapshot>, GroupSnapshots),
    /// From another node, to be installed.
    Received(Box<ReceivedSnapshot>),
}

pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;
