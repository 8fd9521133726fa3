//! A day becomes final once it is over and reconciled, by a run that saw all of it.

use clicktally_billing::invoice::finalize;
use clicktally_billing::{BillingError, Day};
use clicktally_proto::clock::{Clock, SystemClock};

use crate::billing_claims::{
    count, finalize_by_override, finalize_day, reconcile_day, run_day, set_terms, valid_clicks,
};
use crate::clicks::{HOUR_MS, NOON_MS, produce};
use crate::environment::{Environment, World};

const CLICKS: i64 = 20;

/// The stream counted what the batch counted of a minute, at the same price.
async fn stream_counts(world: &World, minute_ms: u64) {
    sqlx::query(
        "INSERT INTO reports.ad_minute
         SELECT minute, ad_id, campaign_id, clicks, invalid_clicks, clicks * 100, 1, 'final' FROM billing.batch_ad_minute
         WHERE minute = to_timestamp($1::bigint / 1000) ON CONFLICT DO NOTHING",
    )
    .bind(i64::try_from(minute_ms).unwrap())
    .execute(&world.pool)
    .await
    .unwrap();
}

fn refusal(outcome: Result<impl std::fmt::Debug, BillingError>) -> String {
    match outcome {
        Err(error @ BillingError::NotReady { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_day_is_not_finalised_before_it_is_over_and_reconciled(environment: &Environment) {
    let world = environment.world().await;
    let day = Day::of(NOON_MS).unwrap();
    set_terms(&world, 1, 1, 100, 1_000_000, 0).await;
    produce(&world, &valid_clicks(CLICKS, NOON_MS));
    world.archive_all().await;
    run_day(&world, day).await;
    assert!(refusal(finalize_day(&world, day).await).contains("not reconciled"));

    // Reconciled, and the stream agrees; but a lateness this long is not over yet.
    stream_counts(&world, NOON_MS).await;
    assert!(!reconcile_day(&world, day).await.pages());
    let still_open_ms = SystemClock.now_ms() - day.end_ms() + HOUR_MS;
    let outcome = finalize(&world.database, day, still_open_ms, None, &SystemClock).await;
    assert!(refusal(outcome).contains("allowed lateness are over in"));
    assert_eq!(count(&world, "SELECT count(*) FROM billing.finalisation").await, 0);

    // A run over the same clicks keeps its reconciliation; a run over more clicks needs a new one.
    run_day(&world, day).await;
    produce(&world, &valid_clicks(CLICKS, NOON_MS + HOUR_MS));
    world.archive_all().await;
    run_day(&world, day).await;
    assert!(refusal(finalize_day(&world, day).await).contains("not reconciled"));
    stream_counts(&world, NOON_MS + HOUR_MS).await;
    reconcile_day(&world, day).await;
    run_day(&world, day).await;
    let finalized = finalize_day(&world, day).await.unwrap();
    assert_eq!((finalized.documents, finalized.overridden.len()), (1, 0));
    let amount = "SELECT sum(amount_micros)::bigint FROM billing.ledger_entry WHERE account = 'advertiser_receivable'";
    assert_eq!(count(&world, amount).await, 2 * CLICKS * 100);
    assert_eq!(count(&world, "SELECT count(*) FROM billing.finalisation WHERE overridden_by IS NULL").await, 1);

    // A final day needs nothing, and an override of it records nothing.
    assert_eq!(finalize_by_override(&world, day).await.documents, 0);
    assert_eq!(count(&world, "SELECT count(*) FROM billing.finalisation").await, 1);
}
