//! CT-19: a log reaches back to the snapshot before the newest, so that a rotten snapshot only costs a longer replay. A
//! peer's snapshot replaces everything before it.

use super::{Invariant, Violation};

/// The durable snapshots of one replica, by the last log index in each.
#[derive(Debug, Default, Clone)]
pub struct SnapshotReach {
    newest: Option<u64>,
    /// The log may be forgotten up to this index.
    fallback: Option<u64>,
}

impl SnapshotReach {
    /// It was made from the replica's own state.
    pub fn built(&mut self, index: u64) {
        if self.newest < Some(index) {
            self.fallback = self.fallback.max(self.newest);
            self.newest = Some(index);
        }
    }

    /// A peer sent it.
    pub fn received(&mut self, index: u64) {
        self.newest = self.newest.max(Some(index));
        self.fallback = self.fallback.max(Some(index));
    }

    /// Entries up to and including `forgotten` are forgotten; others are kept.
    pub fn check(&self, forgotten: u64) -> Option<Violation> {
        let detail = || format!("the log is forgotten up to {forgotten}, and the snapshots are {self:?}");
        (Some(forgotten) > self.fallback).then(|| Violation { invariant: Invariant::LogReachesBack, detail: detail() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_forgotten_up_to_the_newest_snapshot_is_seen() {
        let mut reach = SnapshotReach::default();
        assert!(reach.check(1).is_some());
        reach.built(10);
        assert!(reach.check(10).is_some());
        reach.built(20);
        reach.built(20);
        assert!(reach.check(10).is_none() && reach.check(11).is_some());
        reach.received(15);
        assert!(reach.check(15).is_none() && reach.check(16).is_some());
        reach.received(30);
        assert!(reach.check(30).is_none() && reach.check(31).is_some());
    }
}
