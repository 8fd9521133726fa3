//! CT-17: what was acknowledged to a client stays done, and a read proven fresh holds everything committed before it
//! was requested. This is the register of linearizability: one writer for each value, values that only rise.

use super::{Invariant, Violation};

/// A read, and the facts before it was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreshRead {
    pub node: u64,
    /// The highest log index that any replica had applied.
    pub committed_before: u64,
    /// The log index of the replica that answered.
    pub applied: u64,
}

pub fn check_fresh(read: &FreshRead) -> Option<Violation> {
    let FreshRead { node, committed_before, applied } = *read;
    let detail = format!("node {node}: a fresh read at index {applied}, {committed_before} was committed before");
    (applied < committed_before).then(|| violation(detail))
}

/// `acknowledged` before the read was requested, `found` by the read.
pub fn check_promise(what: &str, acknowledged: i64, found: Option<i64>) -> Option<Violation> {
    let detail = format!("{what}: {acknowledged} was acknowledged, a fresh read finds {found:?}");
    (found < Some(acknowledged)).then(|| violation(detail))
}

fn violation(detail: String) -> Violation {
    Violation { invariant: Invariant::AnswersHold, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_read_and_a_lost_write_are_seen() {
        let read = FreshRead { node: 1, committed_before: 7, applied: 7 };
        assert_eq!(check_fresh(&read), None);
        assert!(check_fresh(&FreshRead { applied: 6, ..read }).is_some());
        assert_eq!(check_promise("a budget", 5, Some(6)), None);
        assert!(check_promise("a budget", 5, Some(4)).is_some() && check_promise("a budget", 5, None).is_some());
    }
}
