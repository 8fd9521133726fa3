//! CT-24: a document is the sum of its lines, the ledger is the sum of the final documents, and no sum mixes two
//! currencies.

use std::collections::BTreeMap;

use clicktally_proto::money::{Currency, Micros};

use super::ct7_ledger_balanced::Posted;
use super::{Invariant, Violation};

/// A document, with the currency of each line's campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booked<'a> {
    pub invoice_id: &'a str,
    pub currency: Currency,
    pub amount_micros: Micros,
    pub is_final: bool,
    pub lines: Vec<(Option<Currency>, Micros)>,
}

pub fn check(documents: &[Booked<'_>], ledger: &[Posted<'_>]) -> Vec<Violation> {
    let mut owed: BTreeMap<(&str, Currency), i128> = BTreeMap::new();
    for entry in ledger.iter().filter(|entry| entry.is_receivable) {
        *owed.entry((entry.transaction, entry.currency)).or_default() += i128::from(entry.amount_micros);
    }
    let mut details = Vec::new();
    for Booked { invoice_id, currency, amount_micros, is_final, lines } in documents {
        if let Some((other, _)) = lines.iter().find(|(of_line, _)| *of_line != Some(*currency)) {
            details.push(format!("{invoice_id} in {currency} has a line in {other:?}"));
        }
        let sum: i128 = lines.iter().map(|(_, amount)| i128::from(*amount)).sum();
        if sum != i128::from(*amount_micros) {
            details.push(format!("{invoice_id} is over {amount_micros}, and its lines sum to {sum}"));
        }
        let posted = owed.remove(&(*invoice_id, *currency)).unwrap_or(0);
        let due = if *is_final { i128::from(*amount_micros) } else { 0 };
        if posted != due {
            let state = if *is_final { "final" } else { "a draft" };
            details.push(format!("{invoice_id} is {state} over {amount_micros}, and {posted} is in the ledger"));
        }
    }
    details
        .extend(owed.into_keys().map(|(transaction, _)| format!("the ledger has {transaction}, which is no document")));
    details.into_iter().map(|detail| Violation { invariant: Invariant::BooksAgree, detail }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_posted_draft_a_missing_line_and_a_foreign_currency_are_seen() {
        let posted = [Posted { transaction: "a", is_receivable: true, currency: Currency::USD, amount_micros: 5 }];
        let whole = Booked {
            invoice_id: "a",
            currency: Currency::USD,
            amount_micros: 5,
            is_final: true,
            lines: vec![(Some(Currency::USD), 5)],
        };
        let found = |document: Booked<'_>| check(&[document], &posted).len();
        assert_eq!(found(whole.clone()), 0);
        assert_eq!(found(Booked { is_final: false, ..whole.clone() }), 1);
        assert_eq!(found(Booked { lines: Vec::new(), ..whole.clone() }), 1);
        assert_eq!(found(Booked { lines: vec![(None, 5)], ..whole.clone() }), 1);
        assert_eq!(check(&[whole], &[]).len(), 1);
        assert_eq!(check(&[], &posted).len(), 1);
    }
}
