//! Decides what the next Fetch asks for: which partitions there is memory for, their order, and how long the broker may
//! wait.

use std::time::Duration;

use super::feed::{FetchPosition, NodeMemory};
use crate::topics::{ENVELOPE_BYTES_MAX, WRITTEN_RECORD_BYTES_MAX};

/// Bytes asked for of one partition, and of a whole Fetch. Both are soft: a broker sends at least one whole batch,
/// however large.
pub(super) const PARTITION_BYTES: usize = 1024 * 1024;
pub(super) const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// The largest answer accepted: what was asked for, one batch beyond it, and the names and numbers around them.
pub(super) const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A partition whose chunks pin this many bytes of answers is left out until its reader has read some.
const PARTITION_PINNED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The least that all partitions together may hold, including an answer on its way.
pub(super) const HELD_BYTES_MAX_MIN: usize = 2 * ANSWER_BYTES;

const _: () = assert!(PARTITION_BYTES <= ANSWER_BYTES && ANSWER_BYTES <= PARTITION_PINNED_BYTES_MAX);
const _: () = assert!(ANSWER_BYTES + WRITTEN_RECORD_BYTES_MAX + ENVELOPE_BYTES_MAX < ANSWER_BYTES_MAX);

/// How long a broker waits for news before it answers. This delays no click: the first one ends the wait.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// The same while a partition is left out, which may have room again long before the others have news.
const WAIT_MAX_LEFT_OUT: Duration = Duration::from_millis(10);

/// After an answer smaller than this, the next Fetch waits for [`TRICKLE_PAUSE`]. A Fetch costs broker and fetcher the
/// same whether it brings one click or a thousand, and readers look only every ten milliseconds.
const TRICKLE_BYTES: usize = 64 * 1024;
const TRICKLE_PAUSE: Duration = Duration::from_millis(5);

/// Whether a partition is asked for. `memory`: what all partitions hold, including the answer to come. Above half of
/// its limit, only partitions that hold nothing are asked for. So partitions whose readers stand still (their
/// checkpoints find no quorum) cannot starve the others.
pub(super) fn has_room(partition: &FetchPosition, memory: &NodeMemory) -> bool {
    let (held_bytes, held_bytes_max) = (memory.held_bytes(), memory.held_bytes_max);
    if held_bytes > held_bytes_max {
        false
    } else if held_bytes > held_bytes_max / 2 {
        partition.pinned_bytes == 0
    } else {
        partition.pinned_bytes < PARTITION_PINNED_BYTES_MAX
    }
}

/// Puts the partitions first that have waited longest for records. A broker fills an answer in the order asked, and
/// sends a batch larger than the limit only for the first partition with records. Because they take turns, all make
/// progress.
pub(super) fn put_in_order<T>(asked: &mut [(FetchPosition, T)]) {
    asked.sort_by_key(|(position, _)| position.served);
}

pub(super) fn wait_max(is_any_left_out: bool) -> Duration {
    if is_any_left_out { WAIT_MAX_LEFT_OUT } else { WAIT_MAX }
}

/// How long to wait between two questions, by the size of the last answer.
pub(super) fn pause(answer_bytes: usize) -> Duration {
    if answer_bytes < TRICKLE_BYTES { TRICKLE_PAUSE } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn partition(pinned_bytes: usize, served: u64) -> FetchPosition {
        FetchPosition { offset: 0, last_epoch: -1, pinned_bytes, served }
    }

    #[test]
    fn a_partition_without_a_reader_is_left_out_and_does_not_starve_the_rest() {
        const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;
        let memory = Arc::new(NodeMemory::new(HELD_BYTES_MAX));
        let mut held = memory.hold(ANSWER_BYTES);
        assert!(has_room(&partition(PARTITION_PINNED_BYTES_MAX - 1, 0), &memory));
        assert!(!has_room(&partition(PARTITION_PINNED_BYTES_MAX, 0), &memory));
        held.resize(HELD_BYTES_MAX / 2 + 1);
        assert!(!has_room(&partition(1, 0), &memory) && has_room(&partition(0, 0), &memory));
        held.resize(HELD_BYTES_MAX + 1);
        assert!(!has_room(&partition(0, 0), &memory));
    }

    #[test]
    fn each_partition_comes_first_in_turn() {
        // This broker has records for one partition an answer only: the first that it is asked for.
        let mut served = [0; 5];
        let mut turns = Vec::new();
        for answer in 1..=10 {
            let mut asked: Vec<_> = (0..5).map(|index| (partition(0, served[index]), index)).collect();
            put_in_order(&mut asked);
            let first = asked[0].1;
            served[first] = answer;
            turns.push(first);
        }
        assert_eq!(turns, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    }
}
