//! CT-11: every click that was acknowledged is in the raw log.

use std::collections::HashSet;

use super::Violation;

/// Named in the message at most.
const NAMED_MAX: usize = 40;

/// `acknowledged` and `in_log`: the producers' own ids.
pub fn check(acknowledged: &HashSet<String>, in_log: &HashSet<String>) -> Vec<Violation> {
    let mut missing: Vec<&String> = acknowledged.difference(in_log).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    missing.sort_unstable();
    let named = &missing[..missing.len().min(NAMED_MAX)];
    let detail = format!("{} acknowledged clicks are not in the log: {named:?}", missing.len());
    vec![Violation { invariant: "CT-11", detail }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_that_never_arrived_is_named() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<HashSet<_>>();
        assert!(check(&ids(&["a"]), &ids(&["a", "b"])).is_empty());
        let found = check(&ids(&["a", "c"]), &ids(&["a"]));
        assert!(found.len() == 1 && found[0].detail.contains("\"c\""), "{found:?}");
    }
}
