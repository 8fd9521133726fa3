//! The meta of a snapshot in openraft's terms: the last log entry that it covers, and the members as of that entry.
//! The snapshot itself treats this as one opaque frame of the codec.

use std::io::{Read, Write};

use clicktally_proto::codec;
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_state::group_state::GroupState;
use clicktally_state::snapshot::{self, SnapshotError};

use crate::type_config::SnapshotMeta;

/// Writes a complete snapshot and returns its size in bytes.
pub(crate) fn encode(meta: &SnapshotMeta, state: &GroupState, sink: &mut dyn Write) -> Result<u64, SnapshotError> {
    let meta = codec::encode(meta).map_err(SnapshotError::Contents)?;
    snapshot::encode(&meta, state, sink)
}

/// Reads a complete snapshot of a group, as a build of this command `level`.
pub(crate) fn decode(
    group: GroupId,
    source: &mut dyn Read,
    level: u16,
) -> Result<(SnapshotMeta, GroupState), SnapshotError> {
    let (meta, state) = snapshot::decode(group, source, level)?;
    Ok((of_frame(&meta)?, state))
}

/// Reads the meta from a snapshot's first chunk, and nothing after it.
pub(crate) fn read(source: &mut dyn Read, level: u16) -> Result<SnapshotMeta, SnapshotError> {
    of_frame(&snapshot::read_meta(source, level)?)
}

fn of_frame(frame: &[u8]) -> Result<SnapshotMeta, SnapshotError> {
    codec::decode(frame).map_err(|error| SnapshotError::of_contents("a Meta chunk", error))
}
