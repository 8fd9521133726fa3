//! CT-10: for each shard, counted + duplicate + late + invalid + quarantined + misrouted = read. What a shard has read
//! up to its committed offset is what the log holds up to there: nothing is skipped, and nothing is read into the count
//! twice.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::cluster_client::{ClusterView, OutcomesView};

/// For a cluster that has read to the end of the log. `in_log`: the clicks of each partition; a malformed record counts
/// as one.
pub fn check(view: &ClusterView, in_log: &BTreeMap<u16, u64>) -> Vec<Violation> {
    let shards = view.shards();
    shards.iter().flat_map(|(shard, seen)| check_shard(*shard, &seen.outcomes, in_log)).collect()
}

fn check_shard(shard: u16, outcomes: &OutcomesView, in_log: &BTreeMap<u16, u64>) -> Vec<Violation> {
    let OutcomesView { read, counted, duplicate, late, invalid, quarantined, misrouted } = *outcomes;
    let mut details = Vec::new();
    if counted + duplicate + late + invalid + quarantined + misrouted != read {
        details.push(format!("shard {shard}: the outcomes do not add up to the clicks read: {outcomes:?}"));
    }
    let holds = in_log.get(&shard).copied().unwrap_or(0);
    if read != holds {
        details.push(format!("shard {shard}: {read} clicks read, {holds} in the log"));
    }
    details.into_iter().map(|detail| Violation { invariant: Invariant::ReadOnce, detail }).collect()
}

/// The same, outcome by outcome, for a caller that knows each of them.
pub fn check_outcomes(shard: u16, outcomes: &OutcomesView, expected: &OutcomesView) -> Option<Violation> {
    let detail = format!("shard {shard}: {outcomes:?}, expected {expected:?}");
    (outcomes != expected).then_some(Violation { invariant: Invariant::ReadOnce, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_record_and_a_click_without_an_outcome_are_seen() {
        let whole = OutcomesView { read: 10, counted: 7, duplicate: 1, late: 1, invalid: 1, ..OutcomesView::default() };
        let in_log = BTreeMap::from([(3, 10)]);
        assert!(check_shard(3, &whole, &in_log).is_empty());
        assert_eq!(check_shard(3, &OutcomesView { read: 9, counted: 6, ..whole }, &in_log).len(), 1);
        assert_eq!(check_shard(3, &OutcomesView { counted: 6, ..whole }, &in_log).len(), 1);
        assert_eq!(check_outcomes(3, &whole, &whole), None);
        assert!(check_outcomes(3, &OutcomesView { late: 0, duplicate: 2, ..whole }, &whole).is_some());
    }
}
