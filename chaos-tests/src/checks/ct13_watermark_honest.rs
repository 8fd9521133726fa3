//! CT-13: a watermark never goes back. It advances only as far as clicks have passed it or a partition was proven
//! empty, never by a timer. Exactly the late clicks are declared late.

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::{Invariant, Violation};

/// The claim of a committed checkpoint, and the facts of the log. Times in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatermarkClaim {
    pub shard: u16,
    pub to: u64,
    pub before_ms: u64,
    pub watermark_ms: u64,
    pub out_of_orderness_ms: u64,
    /// Newest honest event time below `to`.
    pub newest_event_ms: u64,
    pub complete_before_ms: u64,
    pub complete_to_ms: u64,
    /// When the first uncovered record arrived, if there is one.
    pub unread_arrival_ms: Option<u64>,
}

pub fn check(claim: &WatermarkClaim) -> Vec<Violation> {
    let WatermarkClaim { shard, to, .. } = *claim;
    let covers = |time_ms: u64| claim.unread_arrival_ms.is_none_or(|arrival_ms| time_ms <= arrival_ms);
    let mut details = Vec::new();
    let is_passed = claim.watermark_ms <= claim.newest_event_ms.saturating_sub(claim.out_of_orderness_ms);
    let is_proven = covers(claim.watermark_ms.saturating_add(claim.out_of_orderness_ms));
    if claim.watermark_ms > claim.before_ms && !is_passed && !is_proven {
        details.push(format!(
            "shard {shard}: its watermark went to {} at offset {to}, but no click has passed it, and the next record arrived {:?}",
            claim.watermark_ms, claim.unread_arrival_ms
        ));
    }
    if claim.complete_to_ms > claim.complete_before_ms && !covers(claim.complete_to_ms) {
        details.push(format!(
            "shard {shard}: complete to {} at offset {to}, but the next record arrived {:?}",
            claim.complete_to_ms, claim.unread_arrival_ms
        ));
    }
    details.into_iter().map(violation).collect()
}

/// The applied watermark of a shard or a group.
pub fn check_monotone(what: &str, before_ms: u64, after_ms: u64) -> Option<Violation> {
    (after_ms < before_ms).then(|| violation(format!("{what}: its watermark went back from {before_ms} to {after_ms}")))
}

/// Compares the clicks declared late with those that had to be.
pub fn check_late<T: Ord + Debug>(expected: &BTreeSet<T>, declared: &BTreeSet<T>) -> Vec<Violation> {
    let missing = expected.difference(declared).map(|click| format!("late, but not in the late topic: {click:?}"));
    let surplus = declared.difference(expected).map(|click| format!("in the late topic, but not late: {click:?}"));
    missing.chain(surplus).map(violation).collect()
}

fn violation(detail: String) -> Violation {
    Violation { invariant: Invariant::WatermarkHonest, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: WatermarkClaim = WatermarkClaim {
        shard: 3,
        to: 10,
        before_ms: 1_000,
        watermark_ms: 5_000,
        out_of_orderness_ms: 500,
        newest_event_ms: 5_500,
        complete_before_ms: 900,
        complete_to_ms: 950,
        unread_arrival_ms: Some(950),
    };

    #[test]
    fn a_watermark_needs_a_click_or_a_proof() {
        assert_eq!(check(&CLAIM), []);
        assert_eq!(check(&WatermarkClaim { newest_event_ms: 5_499, ..CLAIM }).len(), 1);
        let proven = WatermarkClaim { newest_event_ms: 0, unread_arrival_ms: Some(5_500), ..CLAIM };
        assert_eq!(check(&proven), []);
        assert_eq!(check(&WatermarkClaim { unread_arrival_ms: Some(5_499), ..proven }).len(), 1);
        assert_eq!(check(&WatermarkClaim { complete_to_ms: 951, ..CLAIM }).len(), 1);
    }

    #[test]
    fn what_is_late_is_declared_and_nothing_else() {
        assert_eq!(check_late(&BTreeSet::from([1, 2]), &BTreeSet::from([1, 2])), []);
        assert_eq!(check_late(&BTreeSet::from([1, 2]), &BTreeSet::from([2, 3])).len(), 2);
        assert!(check_monotone("group", 5, 4).is_some() && check_monotone("group", 5, 5).is_none());
    }
}
