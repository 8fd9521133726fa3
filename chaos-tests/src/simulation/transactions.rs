//! Transactions of other producers in the raw log, drawn from a seed. No reader hands over their markers. The records
//! of aborted ones look like any other click, and must not be counted.

use std::sync::Arc;

use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};

use super::edition::{Edition, Story};
use super::foreign_id::foreign_id;
use super::random::Stream;

/// Records of one aborted transaction.
const ABORTED_RECORDS_MAX: u64 = 3;

/// Draws from a stream of its own. Chances are in thousandths of the records produced.
#[derive(Debug)]
pub struct Transactions {
    random: Stream,
    /// A marker follows the record: it was the last one of a committed transaction.
    committed: u64,
    /// An aborted transaction follows it.
    aborted: u64,
    ids: u64,
}

impl Transactions {
    pub fn draw(story: Story) -> Transactions {
        let mut random = story.seed.stream("transactions");
        let is_wanted = story.edition >= Edition::TRANSACTIONS && random.permille(500);
        let (committed, aborted) = if is_wanted { (random.between(10, 400), random.between(0, 100)) } else { (0, 0) };
        Transactions { random, committed, aborted, ids: 0 }
    }

    /// What ends behind the record that was just written to the shard: `None` if no transaction does, else its aborted
    /// records, which a committed one does not have.
    pub fn end(&mut self, now_ms: UnixMillis, shard: ShardId) -> Option<Vec<Arc<[u8]>>> {
        if self.committed == 0 {
            return None;
        }
        if self.random.permille(self.aborted) {
            let records = self.random.between(1, ABORTED_RECORDS_MAX);
            return Some((0..records).map(|_| self.click(now_ms, shard)).collect());
        }
        self.random.permille(self.committed).then(Vec::new)
    }

    /// A click that would be counted if its transaction had been committed.
    fn click(&mut self, now_ms: UnixMillis, shard: ShardId) -> Arc<[u8]> {
        let partitioner = Partitioner::new(1);
        let campaign_id = 1;
        let click_id = loop {
            self.ids += 1;
            let id = foreign_id("aborted", &self.ids.to_string());
            // The salt is all that matters: with several groups it may be misrouted, and must not be counted either.
            if partitioner.shard(campaign_id, id).0 % 16 == shard.0 % 16 {
                break id.0;
            }
        };
        let click = Click { click_id, campaign_id, ad_id: 100, event_time_ms: now_ms, ..Click::default() };
        encode_record(&[click]).into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Seed;
    use super::*;

    #[test]
    fn some_stories_have_them_and_those_of_earlier_editions_do_not() {
        let ends = |edition| {
            let count = |seed| {
                let mut transactions = Transactions::draw(Story { seed: Seed(seed), edition });
                (0..200).filter_map(|n| transactions.end(1_000 + n, ShardId(3))).map(|aborted| aborted.len()).collect()
            };
            (1..40).map(count).collect::<Vec<Vec<usize>>>()
        };
        assert!(ends(Edition::AHEAD).iter().all(Vec::is_empty));
        let newest = ends(Edition::NEWEST);
        assert!(newest.iter().any(Vec::is_empty));
        assert!(newest.iter().flatten().any(|aborted| *aborted == 0));
        assert!(newest.iter().flatten().any(|aborted| *aborted > 0));
    }
}
