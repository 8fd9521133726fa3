//! CT-1: for each (ad, minute), the stream's final count is the number of distinct valid on-time clicks, never more and
//! never fewer.

use super::{Invariant, Violation};
use crate::oracle::Counts;

/// Compares two counts, each (ad, minute) on its own.
pub fn check(expected: &Counts, counted: &Counts) -> Vec<Violation> {
    let keys: std::collections::BTreeSet<_> = expected.keys().chain(counted.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let want = expected.get(key).copied().unwrap_or(0);
            let have = counted.get(key).copied().unwrap_or(0);
            let (ad, minute) = key;
            let detail = format!("ad {ad}, minute {minute}: {have} counted, {want} expected");
            (want != have).then_some(Violation { invariant: Invariant::Conservation, detail })
        })
        .collect()
}

/// The sum of the absolute differences: the unexplained clicks.
pub fn unexplained(expected: &Counts, counted: &Counts) -> u64 {
    let missing = expected.iter().map(|(key, want)| want.abs_diff(counted.get(key).copied().unwrap_or(0)));
    let surplus = counted.iter().filter(|(key, _)| !expected.contains_key(key)).map(|(_, have)| *have);
    missing.chain(surplus).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_and_a_doubled_click_do_not_cancel_out() {
        let expected = Counts::from([((1, 1), 10), ((1, 2), 10)]);
        let counted = Counts::from([((1, 1), 9), ((1, 2), 11)]);
        assert_eq!(check(&expected, &counted).len(), 2);
        assert_eq!(unexplained(&expected, &counted), 2);
        assert_eq!(unexplained(&expected, &Counts::from([((9, 9), 3)])), 23);
        assert!(check(&expected, &expected.clone()).is_empty());
    }
}
