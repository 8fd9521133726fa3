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
    /// The age of the oldest uncounted click, by the log's clock; 0 if there is none.
    pub uncounted_for_ms: u64,
    /// How far the node's wall clock is off the log's.
    pub clock_off_ms: u64,
}

/// Beyond any of these, a replica must not say yes.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    pub staleness_ms: u64,
    pub uncounted_ms: u64,
    pub clock_off_ms: u64,
}

pub fn check(answer: &AnswerSight, allowed: &Allowed) -> Vec<Violation> {
    let AnswerSight { node, staleness_ms, committed_then, applied, uncounted_for_ms, clock_off_ms } = *answer;
    let mut details = Vec::new();
    if staleness_ms.is_none_or(|staleness| staleness > allowed.staleness_ms) {
        details.push(format!("node {node}: a yes from a replica that is stale by {staleness_ms:?} ms"));
    }
    if applied < committed_then {
        details.push(format!("node {node}: a replica at {applied} was taken for current at {committed_then}"));
    }
    if uncounted_for_ms > allowed.uncounted_ms {
        details.push(format!("node {node}: a yes while clicks have been waiting for {uncounted_for_ms} ms"));
    }
    if clock_off_ms > allowed.clock_off_ms {
        details.push(format!("node {node}: a yes from a node whose clock is off by {clock_off_ms} ms"));
    }
    details.into_iter().map(|detail| Violation { invariant: Invariant::FailClosed, detail }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_from_a_replica_that_is_stale_or_behind_or_off_is_seen() {
        let fresh = AnswerSight {
            node: 1,
            staleness_ms: Some(2_000),
            committed_then: 7,
            applied: 7,
            uncounted_for_ms: 9,
            clock_off_ms: 5,
        };
        let allowed = Allowed { staleness_ms: 2_000, uncounted_ms: 9, clock_off_ms: 5 };
        assert_eq!(check(&fresh, &allowed), []);
        assert_eq!(check(&fresh, &Allowed { uncounted_ms: 8, ..allowed }).len(), 1);
        assert_eq!(check(&fresh, &Allowed { clock_off_ms: 4, ..allowed }).len(), 1);
        assert_eq!(check(&AnswerSight { staleness_ms: None, ..fresh }, &allowed).len(), 1);
        assert_eq!(check(&AnswerSight { staleness_ms: Some(2_001), ..fresh }, &allowed).len(), 1);
        assert_eq!(check(&AnswerSight { applied: 6, ..fresh }, &allowed).len(), 1);
    }
}
