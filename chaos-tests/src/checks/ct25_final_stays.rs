//! CT-25: a final document never changes. A later run adds the difference as a memo, and adds nothing over equal
//! inputs.

use std::collections::BTreeMap;

use super::{Invariant, Violation};

fn violation(detail: String) -> Violation {
    Violation { invariant: Invariant::FinalStays, detail }
}

/// Everything that was final once: the text of each document, by id.
#[derive(Debug, Default)]
pub struct FinalDocuments {
    texts: BTreeMap<String, String>,
}

impl FinalDocuments {
    /// All documents that are final now.
    pub fn observe(&mut self, now: BTreeMap<String, String>) -> Vec<Violation> {
        let changed = self.texts.iter().filter(|(id, text)| now.get(*id) != Some(text));
        let violations = changed.map(|(id, _)| violation(format!("{id} was final, and has changed"))).collect();
        self.texts = now;
        violations
    }
}

/// A run of a final day. `is_same`: its clicks and their terms, its files and the budgets left for it are those that
/// the day was finalised with.
pub fn check_rerun(day: &str, is_same: bool, is_unchanged: bool) -> Option<Violation> {
    match (is_same, is_unchanged) {
        (true, false) => Some(violation(format!("{day} was run again over equal inputs, and has another revision"))),
        (false, true) => Some(violation(format!("{day} has other inputs than when it became final, and no new run"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_document_that_changes_and_a_rerun_that_is_recorded_are_seen() {
        let mut documents = FinalDocuments::default();
        let text = |text: &str| BTreeMap::from([("a".to_owned(), text.to_owned())]);
        assert_eq!(documents.observe(text("five")), []);
        assert_eq!(documents.observe(text("five")), []);
        assert_eq!(documents.observe(text("six")).len(), 1);
        assert_eq!(documents.observe(BTreeMap::new()).len(), 1);
        assert!(check_rerun("d", true, false).is_some() && check_rerun("d", false, true).is_some());
        assert!(check_rerun("d", true, true).is_none() && check_rerun("d", false, false).is_none());
    }
}
