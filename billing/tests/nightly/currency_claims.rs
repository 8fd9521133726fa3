//! A click is billed in the currency of the terms it fell under, also where an older build let the currency change.

use clicktally_billing::Day;
use clicktally_database::billing::statement;

use crate::billing_claims::{finalize_by_override, run_day, valid_clicks};
use crate::clicks::{HOUR_MS, NOON_MS, produce};
use crate::environment::{Environment, World};

const CLICKS: i64 = 20;

async fn set_terms(world: &World, revision: i64, currency: &str, price_micros: i64, from_ms: u64) {
    sqlx::query(
        "INSERT INTO catalog.campaign_terms (campaign_id, revision, advertiser_id, name, currency, cost_per_click_micros,
            budget_micros, tolerance_micros, effective_from)
         VALUES (1, $1, 10, 'spring', $2, $3, $3 * 30, 0, to_timestamp($4::bigint / 1000.0))",
    )
    .bind(revision)
    .bind(currency)
    .bind(price_micros)
    .bind(i64::try_from(from_ms).unwrap())
    .execute(&world.pool)
    .await
    .unwrap();
}

/// (Revision, currency, kind, amount) of the day's documents.
async fn documents(world: &World, day: Day) -> Vec<(i32, String, String, i64)> {
    let shown = statement(&world.database, day).await.unwrap();
    shown.documents.into_iter().map(|d| (d.revision, d.currency, d.kind, d.amount_micros)).collect()
}

pub(crate) async fn a_currency_that_changes_refunds_nothing_and_mixes_nothing(environment: &Environment) {
    let world = environment.world().await;
    let day = Day::of(NOON_MS).unwrap();
    set_terms(&world, 1, "USD", 500_000, 0).await;
    produce(&world, &valid_clicks(CLICKS, NOON_MS));
    world.archive_all().await;
    run_day(&world, day).await;
    finalize_by_override(&world, day).await;
    let invoice = (1, "USD".to_owned(), "invoice".to_owned(), CLICKS * 500_000);
    assert_eq!(documents(&world, day).await, std::slice::from_ref(&invoice));

    // The currency changes after the day's clicks: what was invoiced stays.
    set_terms(&world, 2, "JPY", 60_000_000, NOON_MS + HOUR_MS).await;
    run_day(&world, day).await;
    assert_eq!(documents(&world, day).await, std::slice::from_ref(&invoice));

    // Clicks under the new terms are owed in the new currency, and its budget of 30 clicks is all theirs.
    produce(&world, &valid_clicks(CLICKS, NOON_MS + 2 * HOUR_MS));
    world.archive_all().await;
    let summary = run_day(&world, day).await;
    assert_eq!((summary.billed_clicks, summary.unbilled_clicks), (40, 0));
    let debit = (2, "JPY".to_owned(), "debit_memo".to_owned(), CLICKS * 60_000_000);
    assert_eq!(documents(&world, day).await, [invoice, debit]);
}
