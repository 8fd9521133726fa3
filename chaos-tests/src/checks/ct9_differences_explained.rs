//! CT-9: batch and stream agree, or every differing click and amount has a named cause.

use super::{Invariant, Violation};

/// What a reconciliation found, and what is known of the two sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub day: String,
    /// Clicks and amounts without a cause.
    pub unexplained: u64,
    pub pages: bool,
    /// Neither side has made a mistake, and they have seen the same log and the same terms.
    pub is_faultless: bool,
    /// A side has made a mistake that is larger than what is tolerated.
    pub must_page: bool,
}

pub fn check(found: &Found) -> Vec<Violation> {
    let Found { day, unexplained, .. } = found;
    let mut details = Vec::new();
    if found.is_faultless && (*unexplained > 0 || found.pages) {
        details.push(format!("{day}: no side has made a mistake, and {unexplained} differences have no cause"));
    }
    if found.must_page && !found.pages {
        details.push(format!("{day}: a side has made a mistake, and the reconciliation does not page"));
    }
    details.into_iter().map(|detail| Violation { invariant: Invariant::DifferencesExplained, detail }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_false_alarm_and_a_mistake_that_is_passed_over_are_seen() {
        let quiet = Found { day: "d".to_owned(), unexplained: 0, pages: false, is_faultless: true, must_page: false };
        assert_eq!(check(&quiet), []);
        assert_eq!(check(&Found { unexplained: 1, ..quiet.clone() }).len(), 1);
        let wrong = Found { is_faultless: false, must_page: true, ..quiet };
        assert_eq!(check(&wrong).len(), 1);
        assert_eq!(check(&Found { pages: true, unexplained: 3, ..wrong }), []);
    }
}
