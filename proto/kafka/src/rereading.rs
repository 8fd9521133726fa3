//! Reads a damaged batch again, a few times: the damage may have happened on the way, and another broker may lead the
//! partition by then. Damage that stays is where the batch is stored, and only an operator can cure it.

use std::sync::Arc;

use clicktally_proto::click_log::{LogError, LogRecord, ShardReader};
use clicktally_proto::identity::shard_key::ShardId;

use crate::partition_readers::Reading;

/// Each read asks the broker anew. A shard looks every ten milliseconds, so this takes a tenth of a second at least.
const READS_MAX: u32 = 10;

/// How often damage was met at one offset.
#[derive(Debug, Default)]
struct Damage {
    /// The next offset due, when it was met.
    position: u64,
    reads: u32,
}

impl Damage {
    /// Counts damage met at this position, and decides whether to read again from there.
    fn is_read_again(&mut self, position: u64) -> bool {
        let reads = if position == self.position { self.reads + 1 } else { 1 };
        *self = Damage { position, reads };
        reads < READS_MAX
    }
}

/// Replaces its inner reader after damage.
pub(crate) struct RereadingShardReader {
    reading: Arc<Reading>,
    shard: ShardId,
    /// `None`: it is to be opened again, at `position`.
    inner: Option<Box<dyn ShardReader>>,
    position: u64,
    damage: Damage,
    /// Set by the first error that is passed on, and never cleared.
    failure: Option<LogError>,
}

impl RereadingShardReader {
    pub(crate) fn open(reading: Arc<Reading>, shard: ShardId, from: u64) -> Result<RereadingShardReader, LogError> {
        let inner = Some(reading.open(shard, from)?);
        Ok(RereadingShardReader { reading, shard, inner, position: from, damage: Damage::default(), failure: None })
    }

    fn try_drain(&mut self, records_max: usize, take: &mut dyn FnMut(LogRecord<'_>)) -> Result<usize, LogError> {
        let inner = match &mut self.inner {
            Some(inner) => inner,
            none => none.insert(self.reading.open(self.shard, self.position)?),
        };
        let drained = inner.drain(records_max, take);
        self.position = inner.position();
        match drained {
            Err(error @ LogError::Damaged { .. }) if self.damage.is_read_again(self.position) => {
                tracing::warn!(%error, reads = self.damage.reads, "reading a damaged batch of the log again");
                // Closed first, because a partition has one reader at a time.
                self.inner = None;
                Ok(0)
            }
            drained => drained,
        }
    }
}

impl ShardReader for RereadingShardReader {
    fn drain(&mut self, records_max: usize, take: &mut dyn FnMut(LogRecord<'_>)) -> Result<usize, LogError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.try_drain(records_max, take).inspect_err(|error| self.failure = Some(error.clone()))
    }

    fn position(&self) -> u64 {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_read_again_a_few_times_at_each_offset() {
        let mut damage = Damage::default();
        for position in [0, 7] {
            let reads = std::iter::repeat_with(|| damage.is_read_again(position)).take_while(|again| *again).count();
            assert_eq!(reads, READS_MAX as usize - 1, "at {position}");
        }
    }
}
