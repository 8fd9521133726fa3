//! CT-23: every accepted click is billed once, at the price in force at its time and within the budget of that time, or
//! is given away for a named cause.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_proto::money::Micros;

use super::{Invariant, Violation};

/// What is billed for a campaign-day under one revision of its terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Billed {
    pub clicks: i64,
    pub amount_micros: Micros,
}

/// By campaign and revision. `owed` is a recount of the clicks; `billed` sums all documents of the day.
pub fn check(day: &str, owed: &BTreeMap<(u64, u64), Billed>, billed: &BTreeMap<(u64, u64), Billed>) -> Vec<Violation> {
    let keys: BTreeSet<(u64, u64)> = owed.keys().chain(billed.keys()).copied().collect();
    let of = |side: &BTreeMap<(u64, u64), Billed>, key: &(u64, u64)| side.get(key).copied().unwrap_or_default();
    let differing = keys.iter().filter(|key| of(owed, key) != of(billed, key));
    let detail = |key: &(u64, u64)| {
        let (owed, billed) = (of(owed, key), of(billed, key));
        format!("{day}, campaign {}, revision {}: {billed:?} is billed, and {owed:?} is owed", key.0, key.1)
    };
    differing.map(|key| Violation { invariant: Invariant::BilledAsOfTheClick, detail: detail(key) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_at_another_price_or_billed_twice_is_seen() {
        let side = |revision, clicks, amount_micros| {
            BTreeMap::from([((1, revision), Billed { clicks, amount_micros }), ((2, 9), Billed::default())])
        };
        assert_eq!(check("d", &side(1, 3, 30), &side(1, 3, 30)), []);
        assert_eq!(check("d", &side(1, 3, 30), &side(1, 3, 33)).len(), 1);
        assert_eq!(check("d", &side(1, 3, 30), &side(2, 3, 30)).len(), 2);
    }
}
