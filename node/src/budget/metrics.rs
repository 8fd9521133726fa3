//! Metrics of the budget lane.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use clicktally_proto::money::{Currency, Micros, Money};
use clicktally_raft_store::metrics_registry::{FIXED, registered};
use parking_lot::Mutex;
use prometheus::{GaugeVec, Histogram, HistogramOpts, Opts};

pub(super) static STALENESS: LazyLock<Histogram> = LazyLock::new(|| {
    let options = HistogramOpts::new(
        "clicktally_budget_staleness_seconds",
        "Age of the replica's proof of being current, at each answer",
    )
    .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0]);
    registered(Histogram::with_opts(options).expect(FIXED))
});

static AT_RISK: LazyLock<GaugeVec> = LazyLock::new(|| {
    let help = "What may be spent unseen, over all campaigns of a currency that were asked about lately, in its units";
    registered(GaugeVec::new(Opts::new("clicktally_budget_dollars_at_risk", help), &["currency"]).expect(FIXED))
});

/// Exact, and by currency: amounts in different currencies have no sum.
static AT_RISK_SUMS: Mutex<BTreeMap<Currency, Micros>> = Mutex::new(BTreeMap::new());

/// One campaign's amount changed from `before` to `after`. `None`: the campaign has no actor.
pub(super) fn move_at_risk(before: Option<Money>, after: Option<Money>) {
    if before == after {
        return;
    }
    let mut sums = AT_RISK_SUMS.lock();
    for (money, is_added) in [(before, false), (after, true)] {
        let Some(Money { amount_micros, currency }) = money else { continue };
        let sum = sums.entry(currency).or_default();
        *sum = if is_added { sum.saturating_add(amount_micros) } else { sum.saturating_sub(amount_micros) };
        // For display only: no decision reads this.
        AT_RISK.with_label_values(&[currency.as_str()]).set(*sum as f64 / 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_at_risk_are_summed_by_currency() {
        let money = |amount_micros, code: &str| {
            Some(Money { amount_micros, currency: Currency::try_from(code.to_owned()).unwrap() })
        };
        // No other test uses these currencies.
        let shown = |code: &str| AT_RISK.with_label_values(&[code]).get();
        move_at_risk(None, money(3_000_000, "XTS"));
        move_at_risk(None, money(500_000_000, "XXX"));
        move_at_risk(money(3_000_000, "XTS"), money(4_000_000, "XTS"));
        assert_eq!((shown("XTS"), shown("XXX")), (4.0, 500.0));
        move_at_risk(money(500_000_000, "XXX"), None);
        assert_eq!((shown("XTS"), shown("XXX")), (4.0, 0.0));
    }
}
