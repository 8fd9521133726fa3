//! CT-18: a disk holds what its node has acknowledged. A leader refuses a starting node if it remembers more than the
//! node's disk holds. If the disk has lost nothing, that is a violation: the node acknowledged something that was not
//! durable, or the refusal is wrong. A node whose disk was replaced by an older copy must be refused by a leader that
//! remembers more, because it might vote twice.

use super::{Invariant, Violation};

/// `refusal`: the node's reason for not starting; `None` if it was let in. `has_lost`: the disk was damaged or
/// replaced.
pub fn check(node: u64, refusal: Option<&str>, has_lost: bool) -> Option<Violation> {
    let refusal = refusal.filter(|_| !has_lost)?;
    let detail = format!("node {node}, whose disk has kept what it synced, is refused: {refusal}");
    Some(Violation { invariant: Invariant::WholeDisksLetIn, detail })
}

/// A node was let in with a log that ends at `last`. `remembered`: the last acknowledgement of that node in the memory
/// of a leader that it could ask.
pub fn check_let_in(node: u64, last: Option<u64>, remembered: Option<u64>) -> Option<Violation> {
    let detail = format!("node {node} is let in with a log that ends at {last:?}, and has acknowledged {remembered:?}");
    (last < remembered).then_some(Violation { invariant: Invariant::WholeDisksLetIn, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_disk_may_not_be_refused() {
        assert_eq!(check(1, None, false), None);
        assert_eq!(check(1, Some("its log ends at 7"), true), None);
        assert!(check(1, Some("its log ends at 7"), false).is_some());
    }

    #[test]
    fn whoever_has_forgotten_what_a_leader_remembers_may_not_be_let_in() {
        assert_eq!(check_let_in(1, Some(7), None), None);
        assert_eq!(check_let_in(1, Some(7), Some(7)), None);
        assert!(check_let_in(1, Some(6), Some(7)).is_some() && check_let_in(1, None, Some(7)).is_some());
    }
}
