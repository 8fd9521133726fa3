//! CT-12: each row's unique users are within the sketch's bound of the exact number, and its costs are exact.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Violation};
use crate::database::AdMinute;
use crate::oracle::{Measures, RowKey};

/// Five standard errors (1.04 / √4096 each) never occur in practice. Two more users are allowed either way, because a
/// collision among few users exceeds that.
const ERROR_PER_MILLE_MAX: u64 = 5 * 16 + 2;
const ERROR_USERS_MIN: u64 = 2;

pub fn check(exact: &BTreeMap<RowKey, Measures>, rows: &[AdMinute]) -> Vec<Violation> {
    let stored: BTreeMap<RowKey, &AdMinute> = rows.iter().map(|row| (key_of(row), row)).collect();
    let keys: BTreeSet<&RowKey> = exact.keys().chain(stored.keys()).collect();
    let none = (Measures::default(), AdMinute { unique_users: Some(0), ..AdMinute::default() });
    let details = keys.into_iter().flat_map(|key| {
        let exact = exact.get(key).unwrap_or(&none.0);
        let row = stored.get(key).copied().unwrap_or(&none.1);
        let (minute, ad, campaign) = key;
        check_row(exact, row)
            .into_iter()
            .map(move |detail| format!("ad {ad} of campaign {campaign}, minute {minute}: {detail}"))
    });
    details.map(|detail| Violation { invariant: Invariant::UsersAndCosts, detail }).collect()
}

pub fn is_within_bound(estimate: u64, exact: u64) -> bool {
    estimate.abs_diff(exact) <= ERROR_USERS_MIN + exact * ERROR_PER_MILLE_MAX / 1_000
}

fn key_of(row: &AdMinute) -> RowKey {
    (row.minute.unsigned_abs(), row.ad_id.unsigned_abs(), row.campaign_id.unsigned_abs())
}

fn check_row(exact: &Measures, row: &AdMinute) -> Vec<String> {
    let mut details = Vec::new();
    match row.unique_users {
        Some(users) if is_within_bound(users.unsigned_abs(), exact.users) => {}
        users => details.push(format!("{users:?} unique users, {} exactly", exact.users)),
    }
    let costs = (row.cost_sum_micros, row.cost_count.unsigned_abs());
    let expected = (exact.cost_sum_micros, exact.cost_count);
    if costs != expected {
        details.push(format!("cost sum and count {costs:?}, {expected:?} expected"));
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(users: Option<i64>, cost_sum_micros: i64, cost_count: i64) -> AdMinute {
        let (minute, ad_id, campaign_id) = (7, 8, 9);
        AdMinute { minute, ad_id, campaign_id, unique_users: users, cost_sum_micros, cost_count, ..AdMinute::default() }
    }

    #[test]
    fn an_estimate_out_of_bounds_a_missing_one_and_a_lost_cost_are_seen() {
        let exact = BTreeMap::from([((7, 8, 9), Measures { users: 1_000, cost_sum_micros: 500, cost_count: 3 })]);
        assert!(check(&exact, &[row(Some(1_080), 500, 3)]).is_empty());
        for wrong in [row(Some(1_090), 500, 3), row(Some(900), 500, 3), row(None, 500, 3), row(Some(1_000), 499, 3)] {
            assert_eq!(check(&exact, &[wrong]).len(), 1);
        }
        assert_eq!(check(&exact, &[]).len(), 2, "a row that is not there");
        assert_eq!(check(&BTreeMap::new(), &[row(Some(3), 1, 1)]).len(), 2, "a row without clicks");
    }
}
