//! A day's bill as one hash, with the files it was computed from.

use clicktally_database::billing::Usage;
use sha2::{Digest, Sha256};

use crate::bill::{BilledUsage, TermsTimeline};

/// SHA-256 over the files, the clicks of each campaign and terms, and what is billed for them. `billed` is in order of
/// campaign and revision.
///
/// It covers what is billed and not the budgets that allow it: a budget changes with each bill of another day, mostly
/// without any effect on this one.
pub(super) fn bill_hash(manifest_sha256: &str, billed: &[BilledUsage], terms: &TermsTimeline) -> String {
    assert!(
        billed.is_sorted_by_key(|billed| (billed.usage.campaign_id, billed.usage.terms_revision)),
        "equal bills are hashed in the same order"
    );
    let mut hasher = Sha256::new();
    hasher.update(format!("{manifest_sha256}\n"));
    for BilledUsage { usage, billed_clicks, amount_micros, unbilled_cause } in billed {
        let Usage { campaign_id, terms_revision, clicks, invalid_clicks } = usage;
        let cause = unbilled_cause.map_or("", |cause| cause.as_str());
        hasher.update(format!(
            "{campaign_id} {terms_revision} {clicks} {invalid_clicks} {billed_clicks} {amount_micros} {cause}"
        ));
        if let Some(agreed) = terms.get(*campaign_id, *terms_revision) {
            hasher.update(format!(" {} {} {}", agreed.advertiser_id, agreed.currency, agreed.cost_per_click_micros));
        }
        hasher.update("\n");
    }
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clicktally_database::catalog::Terms;
    use clicktally_proto::money::Currency;

    use super::*;
    use crate::bill::{BilledByCampaign, BilledElsewhere, bill};

    fn hash(manifest: &str, clicks: u64, (price, budget): (i64, i64), elsewhere: &BilledByCampaign) -> String {
        let terms = TermsTimeline::new([Terms {
            campaign_id: 1,
            revision: 1,
            advertiser_id: 7,
            name: "spring".to_owned(),
            currency: Currency::USD,
            cost_per_click_micros: price,
            budget_micros: budget,
            effective_from_ms: 0,
        }]);
        let usage = Usage { campaign_id: 1, terms_revision: 1, clicks, invalid_clicks: 0 };
        bill_hash(manifest, &bill(&[usage], &terms, elsewhere).unwrap(), &terms)
    }

    fn billed_before(earlier_micros: i64) -> BilledElsewhere {
        BilledElsewhere { earlier_micros, later: Vec::new() }
    }

    #[test]
    fn everything_that_changes_a_bill_changes_its_hash_and_nothing_else_does() {
        let none = BTreeMap::new();
        let elsewhere = |micros| BTreeMap::from([((1, Currency::USD), billed_before(micros))]);
        let same = hash("m", 10, (1, 100), &none);
        assert_eq!(hash("m", 10, (1, 100), &elsewhere(90)), same, "other days leave enough of the budget");
        for other in [
            hash("n", 10, (1, 100), &none),
            hash("m", 11, (1, 100), &none),
            hash("m", 10, (2, 100), &none),
            hash("m", 10, (1, 9), &none),
            hash("m", 10, (1, 100), &elsewhere(91)),
        ] {
            assert_ne!(other, same);
        }
    }
}
