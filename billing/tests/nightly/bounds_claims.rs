//! One campaign whose terms or costs are beyond all bounds does not stop the others. The door refuses such values
//! today; older builds took them.

use clicktally_billing::Day;
use clicktally_database::billing::statement;
use clicktally_database::catalog::{NewTerms, add_terms, all_terms};
use clicktally_database::reports::totals_of_ad;
use clicktally_proto::event_time::Minute;
use clicktally_proto::money::Currency;

use crate::billing_claims::{run_day, set_terms, valid_clicks, valid_clicks_of};
use crate::clicks::{NOON_MS, produce};
use crate::environment::Environment;

fn new_terms(campaign_id: u64, name: &str) -> NewTerms<'_> {
    NewTerms {
        campaign_id,
        revision: 1,
        advertiser_id: 10,
        name,
        currency: Currency::USD,
        cost_per_click_micros: 1,
        budget_micros: 1,
        tolerance_micros: 0,
        effective_from_ms: 0,
    }
}

pub(crate) async fn terms_that_postgresql_refuses_are_named_and_the_others_arrive(environment: &Environment) {
    let world = environment.world().await;
    let negative = NewTerms { budget_micros: -1, ..new_terms(6, "negative") };
    let mut all: Vec<NewTerms<'_>> = (1..=9).map(|campaign| new_terms(campaign, "good")).collect();
    (all[2], all[5]) = (new_terms(3, "spring\u{0}sale"), negative);
    let refused = add_terms(&world.database, &all).await.unwrap();
    assert_eq!(refused.iter().map(|terms| terms.campaign_id).collect::<Vec<_>>(), [3, 6]);
    assert!(refused.iter().all(|terms| terms.revision == 1 && !terms.detail.is_empty()));
    let mut arrived: Vec<i64> =
        all_terms(&world.database).await.unwrap().iter().map(|terms| terms.campaign_id).collect();
    arrived.sort_unstable();
    assert_eq!(arrived, [1, 2, 4, 5, 7, 8, 9]);
    assert_eq!(add_terms(&world.database, &all).await.unwrap().len(), 2, "a repeat is harmless");
    assert_eq!(add_terms(&world.database, &[]).await.unwrap(), []);
}

pub(crate) async fn a_price_beyond_all_bounds_does_not_stop_the_bills_of_others(environment: &Environment) {
    let world = environment.world().await;
    let day = Day::of(NOON_MS).unwrap();
    const HUGE: i64 = 5_000_000_000_000_000_000;
    set_terms(&world, 1, 1, 100, 1_000_000, 0).await;
    set_terms(&world, 2, 1, HUGE, HUGE, 0).await;
    set_terms(&world, 3, 1, HUGE, HUGE, 0).await;
    let mut records = valid_clicks(20, NOON_MS);
    for campaign in [2, 3] {
        records.extend(valid_clicks_of(campaign, 20, NOON_MS + campaign));
    }
    produce(&world, &records);
    world.archive_all().await;
    let summary = run_day(&world, day).await;
    assert_eq!((summary.billed_clicks, summary.unbilled_clicks), (20, 40));
    let shown = statement(&world.database, day).await.unwrap();
    assert_eq!(shown.documents.iter().map(|document| document.amount_micros).collect::<Vec<_>>(), [2_000]);
}

pub(crate) async fn costs_without_a_sum_do_not_hide_the_history_of_their_ad(environment: &Environment) {
    let world = environment.world().await;
    sqlx::query(
        "INSERT INTO reports.ad_minute (minute, ad_id, campaign_id, clicks, invalid_clicks, spend_micros, revision, state,
            cost_sum_micros, cost_count)
         SELECT to_timestamp(minute * 60), 7, 1, 1, 0, 0, 1, 'final', 9000000000000000000, 1 FROM generate_series(1, 2) minute",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let totals = totals_of_ad(&world.database, 7, Minute(1)..Minute(3)).await.unwrap();
    assert_eq!((totals.clicks, totals.costs.sum_micros, totals.costs.count), (2, i64::MAX, 2));
}
