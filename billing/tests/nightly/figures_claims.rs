//! What `/metrics` shows of reconciliations is what PostgreSQL holds, and its age is shown as well.

use std::time::Duration;

use clicktally_billing::Day;
use clicktally_billing::reconcile::{DAYS_SHOWN, ReconciliationFigures};
use clicktally_database::{Database, PoolLimits};
use clicktally_proto::next_move::NextMove;
use prometheus::{Encoder, Registry, TextEncoder};

use crate::billing_claims::{reconcile_day, run_day, set_terms, valid_clicks};
use crate::clicks::{NOON_MS, produce};
use crate::environment::{Environment, World};

fn page(registry: &Registry) -> Vec<String> {
    let mut page = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut page).unwrap();
    let lines = String::from_utf8(page).unwrap();
    lines.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// A reconciliation of the day after the newest that found nothing.
async fn reconcile_next_day(world: &World) {
    sqlx::query(
        "INSERT INTO billing.reconciled_day (day, revision, batch_clicks, stream_clicks, billed_clicks, unexplained, pages)
         SELECT max(day) + 1, 1, 100, 100, 100, 0, false FROM billing.reconciled_day",
    )
    .execute(&world.pool)
    .await
    .unwrap();
}

pub(crate) async fn the_last_reconciliation_of_each_day_is_shown_and_an_absent_server_makes_it_old(
    environment: &Environment,
) {
    let world = environment.world().await;
    let day = Day::of(NOON_MS).unwrap();
    let registry = Registry::new();
    let mut figures = ReconciliationFigures::register(&registry).unwrap();
    let unread = "clicktally_reconciliation_read_timestamp_seconds 0";
    assert_eq!(page(&registry), [unread], "nothing is shown before the first reading");
    figures.refresh(&world.database, 1_000).await.unwrap();
    assert_eq!(page(&registry), ["clicktally_reconciliation_read_timestamp_seconds 1"], "nothing is reconciled");

    // The command that reconciles has a registry of its own, which ends with it. The stream has counted none of these
    // clicks, and counts no more of that day.
    set_terms(&world, 1, 1, 100, 1_000_000, 0).await;
    produce(&world, &valid_clicks(20, NOON_MS));
    world.archive_all().await;
    run_day(&world, day).await;
    let counted_later = "INSERT INTO reports.ad_minute VALUES ('2099-01-01', 1, 1, 0, 0, 0, 1, 'final')";
    sqlx::query(counted_later).execute(&world.pool).await.unwrap();
    assert!(reconcile_day(&world, day).await.pages());
    figures.refresh(&world.database, 2_000).await.unwrap();
    let shown = page(&registry);
    let ratio = |cause: &str| format!("clicktally_reconciliation_divergence_ratio{{cause=\"{cause}\",day=\"{day}\"}}");
    for line in [
        format!("{} 1", ratio("unexplained")),
        format!("{} 0", ratio("late")),
        format!("clicktally_reconciliation_pages{{day=\"{day}\"}} 1"),
        "clicktally_reconciliation_read_timestamp_seconds 2".to_owned(),
    ] {
        assert!(shown.contains(&line), "{line} is not in {shown:?}");
    }

    // Without PostgreSQL the values stay, and so does the time of the reading that they come from.
    let limits = PoolLimits { connections_max: 1, acquire_timeout: Duration::from_secs(5) };
    let absent = Database::connect_lazy("postgres://absent@127.0.0.1:1/none", limits).unwrap();
    let error = figures.refresh(&absent, 3_000).await.unwrap_err();
    assert_eq!(error.next_move(), NextMove::Retry);
    assert_eq!(page(&registry), shown);

    // A new reconciliation of the day replaces the old one.
    let corrected = "INSERT INTO reports.ad_minute SELECT minute, ad_id, campaign_id, clicks, invalid_clicks, clicks * 100, 1, 'final'
        FROM billing.batch_ad_minute";
    sqlx::query(corrected).execute(&world.pool).await.unwrap();
    assert!(!reconcile_day(&world, day).await.pages());
    figures.refresh(&world.database, 4_000).await.unwrap();
    let shown = page(&registry);
    assert!(shown.contains(&format!("{} 0", ratio("unexplained"))), "{shown:?}");
    assert!(shown.contains(&format!("clicktally_reconciliation_pages{{day=\"{day}\"}} 0")), "{shown:?}");

    // A day that is no longer among the newest leaves, so that the number of series has a bound.
    for _ in 0..DAYS_SHOWN {
        reconcile_next_day(&world).await;
    }
    figures.refresh(&world.database, 5_000).await.unwrap();
    let shown = page(&registry);
    assert!(!shown.iter().any(|line| line.contains(&format!("{day}"))), "{shown:?}");
    let pages = shown.iter().filter(|line| line.starts_with("clicktally_reconciliation_pages"));
    assert_eq!(pages.count(), usize::try_from(DAYS_SHOWN).unwrap());
}
