//! CT-16: nobody leads twice by one vote. A reign is a term and a node (openraft orders leaders by both, so that a term may see several
//! of them, each stronger than the one before); a node that comes back has to win another one, or it would lead with a log it has lost.

use std::collections::BTreeMap;

use super::{Invariant, Violation};

/// Of one group.
#[derive(Debug, Default)]
pub struct Reigns {
    lives: BTreeMap<(u64, u64), u64>,
}

impl Reigns {
    /// A node says of itself that it leads; `life` tells one run of its process from another.
    pub fn observe(&mut self, term: u64, node: u64, life: u64) -> Option<Violation> {
        let first = *self.lives.entry((term, node)).or_insert(life);
        let detail = format!("node {node} leads term {term} in its life {life}, as it did in its life {first}");
        (first != life).then_some(Violation { invariant: Invariant::OneLifeAReign, detail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reign_that_goes_on_after_a_restart_is_seen() {
        let mut reigns = Reigns::default();
        assert_eq!(reigns.observe(1, 1, 1), None);
        assert_eq!(reigns.observe(1, 1, 1), None);
        assert_eq!(reigns.observe(1, 2, 1), None, "a stronger leader of the same term");
        assert_eq!(reigns.observe(2, 1, 2), None);
        assert!(reigns.observe(1, 2, 2).is_some());
    }
}
