//! Decides which batches of one answer belong to an aborted transaction.
//!
//! Source: <https://kafka.apache.org/documentation/#controlbatch> and the client of Apache Kafka
//! (`CompletedFetch.nextFetchedRecord`). With `read_committed`, a broker answers no further than the first open
//! transaction. It still sends the batches of aborted transactions, and a list of them: who wrote each, and at which
//! offset it began. The transaction ends at its producer's next ABORT marker.

use std::collections::BTreeSet;

use kafka_protocol::messages::fetch_response::AbortedTransaction;

use super::record_batch::{BatchHeader, Marker};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AbortedTransactions {
    /// (first offset, producer) of those that have not begun yet. The last one begins first.
    to_begin: Vec<(u64, i64)>,
    /// The producers whose transaction has begun and is not over.
    begun: BTreeSet<i64>,
}

impl AbortedTransactions {
    /// `listed`: as the broker sent it. A broker names none with `None`.
    pub(super) fn of_answer(listed: Option<Vec<AbortedTransaction>>) -> AbortedTransactions {
        let listed = listed.unwrap_or_default().into_iter();
        // Offsets of a broker are never negative. If one were, its transaction would have begun before everything.
        let begin = |one: AbortedTransaction| (u64::try_from(one.first_offset).unwrap_or(0), one.producer_id.0);
        let mut to_begin: Vec<(u64, i64)> = listed.map(begin).collect();
        to_begin.sort_unstable_by(|a, b| b.cmp(a));
        AbortedTransactions { to_begin, begun: BTreeSet::new() }
    }

    /// Whether the records of this batch were aborted. Call it for every batch with records, in the order of offsets.
    pub(super) fn contain(&mut self, batch: &BatchHeader) -> bool {
        while let Some((_, producer)) = self.to_begin.pop_if(|(first, _)| *first <= batch.last_offset) {
            self.begun.insert(producer);
        }
        batch.is_transactional() && self.begun.contains(&batch.producer_id)
    }

    /// Takes the marker that ends a transaction of the batch's producer.
    pub(super) fn end(&mut self, batch: &BatchHeader, marker: Marker) {
        if marker == Marker::Abort {
            // A transaction that ends here has begun. Its own batches may lie before the offset asked for.
            self.contain(batch);
            self.begun.remove(&batch.producer_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ProducerId;

    use super::*;

    fn aborted(listed: &[(i64, i64)]) -> AbortedTransactions {
        let one = |&(producer, first_offset): &(i64, i64)| {
            AbortedTransaction::default().with_producer_id(ProducerId(producer)).with_first_offset(first_offset)
        };
        AbortedTransactions::of_answer(Some(listed.iter().map(one).collect()))
    }

    fn batch(producer: i64, base_offset: u64, last_offset: u64) -> BatchHeader {
        BatchHeader::transactional_for_tests(producer, base_offset, last_offset)
    }

    #[test]
    fn a_transaction_hides_its_producers_batches_from_its_first_offset_to_its_marker() {
        let mut aborted = aborted(&[(7, 4), (8, 6), (7, 20)]);
        assert!(!aborted.contain(&batch(7, 0, 3)), "an earlier transaction, which was committed");
        assert!(aborted.contain(&batch(7, 4, 5)));
        assert!(aborted.contain(&batch(8, 6, 6)));
        assert!(!aborted.contain(&batch(9, 7, 7)), "another producer's, in between");
        aborted.end(&batch(7, 8, 8), Marker::Abort);
        assert!(!aborted.contain(&batch(7, 9, 9)));
        assert!(aborted.contain(&batch(8, 10, 10)));
        aborted.end(&batch(7, 11, 11), Marker::Commit);
        aborted.end(&batch(8, 12, 12), Marker::Abort);
        assert!(!aborted.contain(&batch(8, 13, 13)));
        assert!(aborted.contain(&batch(7, 20, 21)));
    }

    #[test]
    fn records_outside_transactions_are_never_hidden() {
        let mut aborted = aborted(&[(7, 0)]);
        let mut plain = batch(7, 1, 1);
        plain.attributes = 0;
        assert!(!aborted.contain(&plain));
        assert!(aborted.contain(&batch(7, 2, 2)));
    }

    #[test]
    fn a_marker_before_the_first_batch_asked_for_ends_its_transaction_too() {
        let mut aborted = aborted(&[(7, 2)]);
        aborted.end(&batch(7, 5, 5), Marker::Abort);
        assert!(!aborted.contain(&batch(7, 6, 6)));
        assert!(!AbortedTransactions::of_answer(None).contain(&batch(7, 6, 6)));
    }
}
