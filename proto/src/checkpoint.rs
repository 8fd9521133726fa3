//! A shard's checkpoint: the offsets that it has read and everything counted from them, as one replicated command.
//!
//! Offsets and counts cannot disagree, because they are one entry. Exactly-once counting depends on this type and on
//! the rule that applies it.

use serde::{Deserialize, Serialize};

use crate::counts::cell_block::CellBlock;
use crate::event_time::UnixMillis;
use crate::identity::seen_ids::SeenBlock;
use crate::identity::shard_key::ShardId;

/// Grows with each owner of a shard. A proposal with a smaller epoch is fenced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// The outcome of every click that a shard read. The conservation equation:
/// `read = counted + duplicate + late + invalid + quarantined + misrouted`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCounts {
    pub read: u64,
    pub counted: u64,
    pub duplicate: u64,
    pub late: u64,
    pub invalid: u64,
    /// Unreadable records, each counted as one because its clicks cannot be counted, and clicks dated too far ahead.
    pub quarantined: u64,
    /// Clicks found in another shard's partition and republished to their own.
    pub misrouted: u64,
}

impl OutcomeCounts {
    pub fn is_conserved(&self) -> bool {
        self.read == self.counted + self.duplicate + self.late + self.invalid + self.quarantined + self.misrouted
    }

    /// Each count with its name in metrics; `read` first.
    pub fn named(&self) -> [(&'static str, u64); 7] {
        let OutcomeCounts { read, counted, duplicate, late, invalid, quarantined, misrouted } = *self;
        [
            ("read", read),
            ("counted", counted),
            ("duplicate", duplicate),
            ("late", late),
            ("invalid", invalid),
            ("quarantined", quarantined),
            ("misrouted", misrouted),
        ]
    }

    pub fn add(&mut self, other: &OutcomeCounts) {
        self.read += other.read;
        self.counted += other.counted;
        self.duplicate += other.duplicate;
        self.late += other.late;
        self.invalid += other.invalid;
        self.quarantined += other.quarantined;
        self.misrouted += other.misrouted;
    }
}

/// `[from, to)` of the shard's partition, and its deltas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub shard: ShardId,
    pub epoch: Epoch,
    pub from: u64,
    pub to: u64,
    /// The shard's watermark after these records. Never below an earlier one.
    pub watermark_ms: UnixMillis,
    /// Wall time up to which everything in the partition has been read: the arrival of the last record read. If the
    /// partition is proven to be read to its end, it is the time of that proof.
    pub complete_to_ms: UnixMillis,
    pub outcomes: OutcomeCounts,
    pub cells: CellBlock,
    pub seen: Vec<SeenBlock>,
}
