//! CT-18: a disk holds what its node has acknowledged. A node that is refused at its start because its leader remembers more than its
//! disk does has acknowledged what was not durable, or is refused for nothing; either is a violation where the disk has lost nothing.

use super::Violation;

/// `refusal`: what the node says of its start; `None` if it was let in. `has_lost`: the disk was damaged or replaced.
pub fn check(node: u64, refusal: Option<&str>, has_lost: bool) -> Option<Violation> {
    let refusal = refusal.filter(|_| !has_lost)?;
    let detail = format!("node {node}, whose disk has kept what it synced, is refused: {refusal}");
    Some(Violation { invariant: "CT-18", detail })
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
}
