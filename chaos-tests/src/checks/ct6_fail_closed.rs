//! CT-6: a replica that was not proven current lately says no, and one that says how current it is does not flatter itself.

use super::Violation;

/// A positive answer about a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerSight {
    pub node: u64,
    /// Since the replica was last proven to hold everything committed, by the node's monotonic clock; `None`: never.
    pub staleness_ms: Option<u64>,
    /// Up to where the group had committed when that proof was asked for.
    pub committed_then: u64,
    /// Up to where the replica has applied.
    pub applied: u64,
}

/// `staleness_ms_max`: beyond it nobody may say yes.
pub fn check(answer: &AnswerSight, staleness_ms_max: u64) -> Vec<Violation> {
    let AnswerSight { node, staleness_ms, committed_then, applied } = *answer;
    let mut details = Vec::new();
    if staleness_ms.is_none_or(|staleness| staleness > staleness_ms_max) {
        details.push(format!("node {node}: a yes from a replica that is stale by {staleness_ms:?} ms"));
    }
    if applied < committed_then {
        details.push(format!("node {node}: a replica at {applied} was taken for current at {committed_then}"));
    }
    details.into_iter().map(|detail| Violation { invariant: "CT-6", detail }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_from_a_stale_replica_or_one_that_lacks_an_entry_is_seen() {
        let fresh = AnswerSight { node: 1, staleness_ms: Some(2_000), committed_then: 7, applied: 7 };
        assert_eq!(check(&fresh, 2_000), []);
        assert_eq!(check(&AnswerSight { staleness_ms: None, ..fresh }, 2_000).len(), 1);
        assert_eq!(check(&AnswerSight { staleness_ms: Some(2_001), ..fresh }, 2_000).len(), 1);
        assert_eq!(check(&AnswerSight { applied: 6, ..fresh }, 2_000).len(), 1);
    }
}
