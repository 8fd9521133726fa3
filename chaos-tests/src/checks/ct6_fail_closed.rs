//! CT-6: a replica that was not recently proven current says no, and a replica does not claim to be more current than
//! it is.

use super::{Invariant, Violation};

/// A positive answer about a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerSight {
    pub node: u64,
    /// The time since the replica was last proven to hold everything committed, by the node's monotonic clock; `None`:
    /// never.
    pub staleness_ms: Option<u64>,
    /// The group's committed index when that proof was requested.
    pub committed_then: u64,
    /// The replica's applied index.
    pub applied: u64,
    /// The age of the oldest uncounted click, in true time; 0 if there is none.
    pub uncounted_for_ms: u64,
}

/// `staleness_ms_max`: a staler replica must not say yes. `uncounted_ms_max`: the same for uncounted clicks, with an
/// allowance for wrong clocks.
pub fn check(answer: &AnswerSight, staleness_ms_max: u64, uncounted_ms_max: u64) -> Vec<Violation> {
    let AnswerSight { node, staleness_ms, committed_then, applied, uncounted_for_ms } = *answer;
    let mut details = Vec::new();
    if staleness_ms.is_none_or(|staleness| staleness > staleness_ms_max) {
        details.push(format!("node {node}: a yes from a replica that is stale by {staleness_ms:?} ms"));
    }
    if applied < committed_then {
        details.push(format!("node {node}: a replica at {applied} was taken for current at {committed_then}"));
    }
    if uncounted_for_ms > uncounted_ms_max {
        details.push(format!("node {node}: a yes while clicks have been waiting for {uncounted_for_ms} ms"));
    }
    details.into_iter().map(|detail| Violation { invariant: Invariant::FailClosed, detail }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_from_a_stale_replica_or_one_that_lacks_an_entry_is_seen() {
        let fresh =
            AnswerSight { node: 1, staleness_ms: Some(2_000), committed_then: 7, applied: 7, uncounted_for_ms: 9 };
        assert_eq!(check(&fresh, 2_000, 9), []);
        assert_eq!(check(&fresh, 2_000, 8).len(), 1);
        assert_eq!(check(&AnswerSight { staleness_ms: None, ..fresh }, 2_000, 9).len(), 1);
        assert_eq!(check(&AnswerSight { staleness_ms: Some(2_001), ..fresh }, 2_000, 9).len(), 1);
        assert_eq!(check(&AnswerSight { applied: 6, ..fresh }, 2_000, 9).len(), 1);
    }
}
