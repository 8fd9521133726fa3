//! The content of one node's log, by group: a pure model of [`LogStorage`](clicktally_raft_store::storage::LogStorage)
//! in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use clicktally_proto::identity::shard_key::GroupId;
use clicktally_raft_store::storage::{LogOperation, LogWrite, StorageError};

/// One group's part.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupImage {
    pub(super) entries: BTreeMap<u64, Arc<[u8]>>,
    pub(super) values: BTreeMap<&'static str, Arc<[u8]>>,
    /// The entries forgotten last: a recovery may bring them back.
    forgotten: BTreeMap<u64, Arc<[u8]>>,
}

/// Clones share the bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct LogImage {
    pub(super) groups: BTreeMap<GroupId, GroupImage>,
}

impl LogImage {
    /// # Panics
    /// If entries leave a gap: the caller has broken the trait's contract.
    pub(super) fn apply(&mut self, write: &LogWrite) {
        let group = self.groups.entry(write.group).or_default();
        for operation in &write.operations {
            match operation {
                LogOperation::Entries(entries) => group.put_entries(entries.iter().map(|e| (e.index, &e.frame[..]))),
                LogOperation::Put { key, value } => drop(group.values.insert(*key, value.as_slice().into())),
                LogOperation::Delete { key } => drop(group.values.remove(key)),
                LogOperation::ForgetBelow { index } => {
                    let kept = group.entries.split_off(index);
                    group.forgotten = std::mem::replace(&mut group.entries, kept);
                }
            }
        }
    }

    /// The log that a start finds: the newest `entries` of those forgotten last may be there again.
    pub(super) fn bring_back(&mut self, entries: usize) {
        for group in self.groups.values_mut() {
            let last = group.forgotten.last_key_value().map(|(index, _)| *index);
            let joins = match (last, group.entries.first_key_value()) {
                (Some(last), Some((first, _))) => last + 1 == *first,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if joins {
                let skipped = group.forgotten.len().saturating_sub(entries);
                let back = group.forgotten.iter().skip(skipped).map(|(index, frame)| (*index, frame.clone()));
                group.entries.extend(back.collect::<Vec<_>>());
            }
        }
    }

    /// Returns true if it had entries, and has forgotten all of them.
    pub(super) fn is_gone(&self, group: GroupId) -> bool {
        self.groups.get(&group).is_some_and(|group| group.entries.is_empty() && !group.forgotten.is_empty())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.groups.values().flat_map(|group| group.entries.values()).map(|frame| frame.len() as u64).sum()
    }

    pub(super) fn value(&self, group: GroupId, key: &str) -> Option<Vec<u8>> {
        self.groups.get(&group)?.values.get(key).map(|value| value.to_vec())
    }

    pub(super) fn first_index(&self, group: GroupId) -> Option<u64> {
        self.groups.get(&group)?.entries.first_key_value().map(|(index, _)| *index)
    }

    pub(super) fn last_index(&self, group: GroupId) -> Option<u64> {
        self.groups.get(&group)?.entries.last_key_value().map(|(index, _)| *index)
    }

    pub(super) fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        bytes_max: Option<usize>,
    ) -> Result<Vec<Vec<u8>>, StorageError> {
        let missing = |index: u64| StorageError::Read(format!("entry {index} is missing").into());
        let entries = &self.groups.get(&group).ok_or_else(|| missing(from))?.entries;
        let (mut frames, mut bytes) = (Vec::new(), 0);
        for index in from..to {
            let frame = entries.get(&index).ok_or_else(|| missing(index))?;
            bytes += frame.len();
            if !frames.is_empty() && bytes_max.is_some_and(|max| bytes > max) {
                break;
            }
            frames.push(frame.to_vec());
        }
        Ok(frames)
    }
}

impl GroupImage {
    fn put_entries<'a>(&mut self, entries: impl Iterator<Item = (u64, &'a [u8])>) {
        for (position, (index, frame)) in entries.enumerate() {
            if position == 0 {
                self.entries.split_off(&index);
            }
            let last = self.entries.last_key_value().map(|(last, _)| *last);
            assert!(last.is_none_or(|last| last + 1 == index), "entry {index} after {last:?} leaves a gap");
            self.entries.insert(index, frame.into());
        }
    }
}
