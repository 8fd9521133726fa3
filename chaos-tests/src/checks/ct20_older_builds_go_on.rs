//! CT-20: no member stops at a command that its build does not know, unless it was set back from a newer build.

use super::{Invariant, Violation};

/// `node` has stopped at a newer command. `is_foreseen`: it was set back to an older build, or is not a member at the
/// moment.
pub fn check(node: u64, is_foreseen: bool) -> Option<Violation> {
    let detail = format!("node {node}, a member of an older build, was given a command of a newer one");
    (!is_foreseen).then_some(Violation { invariant: Invariant::OlderBuildsGoOn, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whoever_is_set_back_or_away_may_be_stopped() {
        assert!(check(1, false).is_some());
        assert_eq!(check(1, true), None);
    }
}
