//! How the log's entries and keys are encoded in the storage.

use clicktally_proto::codec::{self, CodecError};
use clicktally_proto::identity::shard_key::GroupId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::GroupLogError;
use crate::type_config::Entry;

pub(super) const KEY_VOTE: &str = "vote";
pub(super) const KEY_COMMITTED: &str = "committed";
pub(super) const KEY_PURGED: &str = "purged";
pub(super) const KEY_TAIL: &str = "tail";
pub(super) const KEY_LOST: &str = "lost";

pub(super) fn encode<T: Serialize>(value: &T, group: GroupId) -> Result<Vec<u8>, GroupLogError> {
    codec::encode(value).map_err(|e| GroupLogError::Damaged { group: group.0, what: e.to_string() })
}

pub(super) fn decode_key<T: DeserializeOwned>(
    frame: Option<Vec<u8>>,
    damaged: &impl Fn(String) -> GroupLogError,
) -> Result<Option<T>, GroupLogError> {
    frame.map(|frame| codec::decode(&frame).map_err(|error| unreadable(error, "", damaged))).transpose()
}

/// Classifies a decoding error. A frame of a newer build is valid, so it must not be treated as damage and repaired
/// away.
fn unreadable(error: CodecError, place: &str, damaged: &impl Fn(String) -> GroupLogError) -> GroupLogError {
    match error {
        CodecError::Version(_) => GroupLogError::Newer(error),
        error => damaged(format!("{place}{error}")),
    }
}

pub(super) fn decode_entry(frame: &[u8], index: u64, group: GroupId) -> Result<Entry, GroupLogError> {
    let damaged = |what: String| GroupLogError::Damaged { group: group.0, what };
    let entry: Entry =
        codec::decode(frame).map_err(|error| unreadable(error, &format!("entry {index}: "), &damaged))?;
    if entry.log_id.index != index {
        return Err(damaged(format!("the entry stored at index {index} has index {}", entry.log_id.index)));
    }
    Ok(entry)
}
