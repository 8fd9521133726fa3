//! A group's snapshots on this node's disk, and what openraft is told about them.

pub(crate) mod group_snapshots;
pub(crate) mod snapshot_data;
pub(crate) mod snapshot_meta;
