//! CT-16: no node leads in two of its lives by one vote. A reign is a term and a node: openraft orders leaders by both,
//! so a term may see several leaders, each stronger than the one before. A node that comes back must win another vote,
//! or it would lead with a log that it has lost.

use std::collections::BTreeMap;

use super::{Invariant, Violation};

/// The reigns of one group: (term, node) → life.
#[derive(Debug, Default)]
pub struct Reigns {
    lives: BTreeMap<(u64, u64), u64>,
}

impl Reigns {
    /// A node claims to lead. `life` identifies one run of its process.
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
