//! Stream and batch agree on what clicks cost, or the day pages and does not become final.

use clicktally_billing::{BillingError, Day};
use clicktally_database::billing::amounts_by_currency;

use crate::billing_claims::{finalize_day, reconcile_day, run_day, set_terms, valid_clicks};
use crate::clicks::{HOUR_MS, NOON_MS, produce};
use crate::environment::{Environment, World};

const CLICKS: i64 = 20;

async fn execute(world: &World, sql: &'static str) {
    sqlx::query(sql).execute(&world.pool).await.unwrap();
}

/// The price was 500, then 300, then 200. While PostgreSQL was away, the 300 did not arrive (issue 16). Both sides
/// count the same clicks, so a comparison of clicks finds nothing.
pub(crate) async fn a_price_that_never_arrived_pages_until_it_does(environment: &Environment) {
    let world = environment.world().await;
    let (day, clicked_ms) = (Day::of(NOON_MS).unwrap(), NOON_MS + HOUR_MS);
    set_terms(&world, 1, 10, 500, 1_000_000, NOON_MS - 1_000 * HOUR_MS).await;
    set_terms(&world, 1, 30, 200, 1_000_000, NOON_MS + 2 * HOUR_MS).await;
    produce(&world, &valid_clicks(CLICKS, clicked_ms));
    world.archive_all().await;
    run_day(&world, day).await;
    execute(
        &world,
        "INSERT INTO reports.ad_minute
         SELECT minute, ad_id, campaign_id, clicks, invalid_clicks, clicks * 300, 25, 'final' FROM billing.batch_ad_minute",
    )
    .await;

    let lost = reconcile_day(&world, day).await;
    assert_eq!((lost.unexplained, lost.unexplained_amounts, lost.pages()), (0, 1, true));
    let amounts = &lost.amounts[0].amounts;
    assert_eq!((amounts.stream_micros, amounts.batch_micros), (CLICKS * 300, CLICKS * 500));
    assert_eq!(amounts.unexplained_micros, CLICKS * 200);
    assert_eq!(amounts_by_currency(&world.database, day).await.unwrap(), lost.amounts, "as the interface shows them");
    let Err(error @ BillingError::NotReady { .. }) = finalize_day(&world, day).await else { panic!("it became final") };
    assert!(error.to_string().contains("the amounts of 1 campaigns"), "{error}");

    set_terms(&world, 1, 20, 300, 1_000_000, NOON_MS + HOUR_MS / 2).await;
    run_day(&world, day).await;
    let complete = reconcile_day(&world, day).await;
    assert_eq!((complete.unexplained_amounts, complete.pages()), (0, false));
    assert_eq!(complete.amounts[0].amounts.billed_micros, CLICKS * 300);

    // A mistake of the batch alone is found as well.
    execute(&world, "UPDATE billing.batch_campaign_day SET price_micros = price_micros + 1").await;
    let mispriced = reconcile_day(&world, day).await;
    assert_eq!((mispriced.unexplained_amounts, mispriced.amounts[0].amounts.unexplained_micros), (1, CLICKS));
    run_day(&world, day).await;
    assert!(!reconcile_day(&world, day).await.pages());
    finalize_day(&world, day).await.unwrap();
}
