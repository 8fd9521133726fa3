//! The ends of faults, each at its time.

use std::collections::BTreeMap;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cure {
    Start(NodeId),
    Thaw(NodeId),
    Mend(Vec<(NodeId, NodeId)>),
    Calm(NodeId, NodeId),
    FastDisk(NodeId),
    LogAnswers,
    Leader(ShardId),
    Traffic,
    Undrain(NodeId),
}

#[derive(Debug, Default)]
pub(super) struct Cures {
    /// By due time, then in the order in which they were added.
    due: BTreeMap<(u64, u64), Cure>,
    numbered: u64,
}

impl Cures {
    pub(super) fn at(&mut self, at_ms: u64, cure: Cure) {
        self.numbered += 1;
        self.due.insert((at_ms, self.numbered), cure);
    }

    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<Cure> {
        let due = self.due.first_entry().filter(|due| due.key().0 <= now_ms)?;
        Some(due.remove())
    }

    pub(super) fn all_at_once(&mut self) {
        self.due = std::mem::take(&mut self.due).into_iter().map(|((_, number), cure)| ((0, number), cure)).collect();
    }
}
