//! CT-7: ledger entries sum to zero per transaction and currency.

use std::collections::BTreeMap;

use clicktally_proto::money::{Currency, Micros};

use super::{Invariant, Violation};

/// One entry of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted<'a> {
    /// The document that it belongs to.
    pub transaction: &'a str,
    /// What the advertiser owes, and not the revenue beside it.
    pub is_receivable: bool,
    pub currency: Currency,
    pub amount_micros: Micros,
}

pub fn check(entries: &[Posted<'_>]) -> Vec<Violation> {
    let mut sums: BTreeMap<(&str, Currency), i128> = BTreeMap::new();
    for entry in entries {
        *sums.entry((entry.transaction, entry.currency)).or_default() += i128::from(entry.amount_micros);
    }
    let unbalanced = sums.into_iter().filter(|(_, sum)| *sum != 0);
    let detail =
        unbalanced.map(|((transaction, currency), sum)| format!("{transaction} leaves {sum} micros of {currency}"));
    detail.map(|detail| Violation { invariant: Invariant::LedgerBalanced, detail }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_balances_in_each_currency() {
        let yen = Currency::try_from("JPY".to_owned()).unwrap();
        let entry = |currency, amount_micros| Posted { transaction: "a", is_receivable: true, currency, amount_micros };
        assert_eq!(check(&[entry(Currency::USD, 5), entry(Currency::USD, -5)]), []);
        assert_eq!(check(&[entry(Currency::USD, 5), entry(yen, -5)]).len(), 2);
    }
}
