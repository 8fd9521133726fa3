//! CT-11: every click that was acknowledged is in the raw log.

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::{Invariant, Violation};

/// The message names at most this many.
const NAMED_MAX: usize = 40;

/// `acknowledged` and `in_log`: the ids by which producers know clicks.
pub fn check<T: Ord + Debug>(acknowledged: &BTreeSet<T>, in_log: &BTreeSet<T>) -> Vec<Violation> {
    let missing: Vec<&T> = acknowledged.difference(in_log).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let named = &missing[..missing.len().min(NAMED_MAX)];
    let detail = format!("{} acknowledged clicks are not in the log: {named:?}", missing.len());
    vec![Violation { invariant: Invariant::AcknowledgedIsLogged, detail }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_that_never_arrived_is_named() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        assert!(check(&ids(&["a"]), &ids(&["a", "b"])).is_empty());
        let found = check(&ids(&["a", "c"]), &ids(&["a"]));
        assert!(found.len() == 1 && found[0].detail.contains("\"c\""), "{found:?}");
    }
}
