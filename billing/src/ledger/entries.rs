//! Double entry: every final document is one transaction whose entries sum to zero in its currency.

use std::collections::BTreeMap;

use clicktally_proto::money::{Currency, Micros};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// What the advertiser owes us.
    AdvertiserReceivable,
    ClickRevenue,
}

impl Account {
    pub fn as_str(self) -> &'static str {
        match self {
            Account::AdvertiserReceivable => "advertiser_receivable",
            Account::ClickRevenue => "click_revenue",
        }
    }
}

/// Debits are positive, credits negative; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub account: Account,
    pub advertiser_id: i64,
    pub currency: Currency,
    pub amount_micros: Micros,
}

/// The entries of a document over this amount. One whose amount is zero (all clicks free or capped) moves no money and
/// has none. `None` for the one amount that has no negative.
pub fn entries_of(advertiser_id: i64, currency: Currency, amount_micros: Micros) -> Option<Vec<Entry>> {
    if amount_micros == 0 {
        return Some(Vec::new());
    }
    let entry = |account, amount_micros| Entry { account, advertiser_id, currency, amount_micros };
    Some(vec![
        entry(Account::AdvertiserReceivable, amount_micros),
        entry(Account::ClickRevenue, amount_micros.checked_neg()?),
    ])
}

/// Invariant CT-7, also enforced by PostgreSQL at commit.
pub fn is_balanced(entries: &[Entry]) -> bool {
    let mut sums: BTreeMap<Currency, i128> = BTreeMap::new();
    for entry in entries {
        *sums.entry(entry.currency).or_default() += i128::from(entry.amount_micros);
    }
    sums.values().all(|sum| *sum == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_document_balances(amount_micros in -i64::MAX..i64::MAX) {
            let entries = entries_of(1, Currency::USD, amount_micros).unwrap();
            prop_assert!(is_balanced(&entries));
            prop_assert_eq!(entries.is_empty(), amount_micros == 0);
        }
    }
}
