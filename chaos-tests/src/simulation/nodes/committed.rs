//! How far each group has committed: an entry applied by any replica is committed for ever.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use clicktally_proto::identity::shard_key::GroupId;

/// Rises remembered for each group: some ten seconds of them.
const RISES_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Committed {
    groups: BTreeMap<GroupId, VecDeque<(Duration, u64)>>,
}

impl Committed {
    /// Some replica had applied that much at that time.
    pub(super) fn note(&mut self, group: GroupId, elapsed: Duration, index: u64) {
        if self.index(group) >= index {
            return;
        }
        let rises = self.groups.entry(group).or_default();
        if rises.len() == RISES_MAX {
            rises.pop_front();
        }
        rises.push_back((elapsed, index));
    }

    /// The highest log index that any replica has ever applied.
    pub(super) fn index(&self, group: GroupId) -> u64 {
        self.groups.get(&group).and_then(VecDeque::back).map_or(0, |(_, index)| *index)
    }

    /// The same at an earlier time; 0 if that is too long ago to know.
    pub(super) fn index_at(&self, group: GroupId, elapsed: Duration) -> u64 {
        let rises = self.groups.get(&group);
        rises.and_then(|rises| rises.iter().rev().find(|(at, _)| *at <= elapsed)).map_or(0, |(_, index)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_its_own_past_and_what_is_forgotten_accuses_nobody() {
        let (one, other, at) = (GroupId(0), GroupId(1), Duration::from_millis);
        let mut committed = Committed::default();
        committed.note(one, at(10), 5);
        committed.note(one, at(20), 3);
        committed.note(one, at(30), 8);
        assert_eq!((committed.index(one), committed.index(other)), (8, 0));
        assert_eq!([5, 10, 29, 30].map(|ms| committed.index_at(one, at(ms))), [0, 5, 5, 8]);
        (0..RISES_MAX as u64).for_each(|n| committed.note(one, at(40 + n), 9 + n));
        assert_eq!(committed.index_at(one, at(30)), 0);
    }
}
