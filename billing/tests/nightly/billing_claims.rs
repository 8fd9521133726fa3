//! What is billed is what a naive recount says; what differs from the stream is named; what is finalised stays.

use std::collections::BTreeMap;

use chrono::DateTime;
use clicktally_billing::archive::ArchiveStore;
use clicktally_billing::batch::{BatchOptions, BatchSummary, run};
use clicktally_billing::invoice::{FinalizedDay, Override, finalize};
use clicktally_billing::reconcile::{ReconciliationSummary, reconcile};
use clicktally_billing::{BillingError, Day};
use clicktally_database::Database;
use clicktally_database::billing::{archived_days, files_for_day, statement};
use clicktally_proto::clock::SystemClock;
use clicktally_proto::money::Currency;
use clicktally_proto::next_move::NextMove;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::clicks::{HOUR_MS, Logged, NOON_MS, UNKNOWN_CAMPAIGN, generate, produce, random_click, record};
use crate::environment::{Environment, World, partitioner};
use crate::recount::{Recount, Window, recount, window};

const PRICE_MICROS: i64 = 100_000;
/// What campaign 6 can pay: less than its clicks.
const SMALL_BUDGET_CLICKS: i64 = 50;
/// From here on campaign 2 pays half as much again.
const RAISE_MS: u64 = NOON_MS + 6 * HOUR_MS;

pub(crate) async fn set_terms(world: &World, campaign_id: i64, revision: i64, price: i64, budget: i64, from_ms: u64) {
    sqlx::query(
        "INSERT INTO catalog.campaign_terms (campaign_id, revision, advertiser_id, name, currency, cost_per_click_micros,
            budget_micros, tolerance_micros, effective_from)
         VALUES ($1, $2, $3, 'campaign ' || $1, 'USD', $4, $5, 0, $6)",
    )
    .bind(campaign_id)
    .bind(revision)
    .bind(if campaign_id <= 3 { 10_i64 } else { 20 })
    .bind(price)
    .bind(budget)
    .bind(DateTime::from_timestamp_millis(i64::try_from(from_ms).unwrap()).unwrap())
    .execute(&world.pool)
    .await
    .unwrap();
}

async fn set_catalogue(world: &World) {
    let plenty = i64::MAX / 2;
    for campaign in 1..=6 {
        // Campaign 3's first terms begin after all its clicks: they take the first terms all the same.
        let from_ms = if campaign == 3 { NOON_MS + 100 * HOUR_MS } else { 0 };
        let budget = if campaign == 6 { SMALL_BUDGET_CLICKS * PRICE_MICROS + 1 } else { plenty };
        set_terms(world, campaign, 1, PRICE_MICROS, budget, from_ms).await;
    }
    set_terms(world, 2, 2, PRICE_MICROS * 3 / 2, plenty, RAISE_MS).await;
}

pub(crate) async fn run_day(world: &World, day: Day) -> BatchSummary {
    run(&world.database, &world.store, day, &BatchOptions::default(), &SystemClock).await.unwrap()
}

/// How long a day's windows take clicks in these claims; all their days are long over.
const LATENESS_MS: u64 = 900_000;

pub(crate) async fn finalize_day(world: &World, day: Day) -> Result<FinalizedDay, BillingError> {
    finalize(&world.database, day, LATENESS_MS, None, &SystemClock).await
}

pub(crate) async fn finalize_by_override(world: &World, day: Day) -> FinalizedDay {
    let overriding = Override { by: "ann".to_owned(), reason: "the planted differences are known".to_owned() };
    finalize(&world.database, day, LATENESS_MS, Some(&overriding), &SystemClock).await.unwrap()
}

pub(crate) async fn count(world: &World, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&world.pool).await.unwrap()
}

pub(crate) async fn reconcile_day(world: &World, day: Day) -> ReconciliationSummary {
    reconcile(&world.database, &world.store, day, &BatchOptions::default(), partitioner()).await.unwrap()
}

/// Every row of the results, as text.
async fn dump(world: &World) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT 'run ' || (to_jsonb(t) - 'computed_at')::text FROM billing.batch_run t
         UNION ALL SELECT 'window ' || t::text FROM billing.batch_ad_minute t
         UNION ALL SELECT 'campaign ' || t::text FROM billing.batch_campaign_day t
         UNION ALL SELECT 'document ' || t::text FROM billing.invoice t
         UNION ALL SELECT 'line ' || t::text FROM billing.invoice_line t
         UNION ALL SELECT 'entry ' || t::text FROM billing.ledger_entry t
         UNION ALL SELECT 'finalisation ' || t::text FROM billing.finalisation t
         ORDER BY 1",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap()
}

async fn windows_of_batch(world: &World) -> BTreeMap<Window, (i64, i64, i64)> {
    let rows: Vec<(i64, i64, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT (extract(epoch FROM minute) / 60)::bigint, ad_id, campaign_id, clicks, invalid_clicks, duplicates
         FROM billing.batch_ad_minute",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let unsigned = |value: i64| u64::try_from(value).unwrap();
    rows.into_iter()
        .map(|(minute, ad, campaign, clicks, invalid, copies)| {
            ((unsigned(minute), unsigned(ad), unsigned(campaign)), (clicks, invalid, copies))
        })
        .collect()
}

/// Clicks the recount says campaign and revision have, by day.
fn usage(recount: &Recount, day: Day) -> BTreeMap<(i64, i64), i64> {
    let mut usage = BTreeMap::new();
    for (click, _, _) in &recount.winners {
        if Day::of(click.event_time_ms) == Some(day) {
            let revision = match click.campaign_id {
                2 if click.event_time_ms >= RAISE_MS => 2,
                UNKNOWN_CAMPAIGN => 0,
                _ => 1,
            };
            *usage.entry((i64::try_from(click.campaign_id).unwrap(), revision)).or_insert(0) += 1;
        }
    }
    usage
}

async fn assert_billed(world: &World, recount: &Recount, days: [Day; 2]) {
    let mut capped_left = SMALL_BUDGET_CLICKS;
    for day in days {
        let mut lines: BTreeMap<(i64, i64), i64> = BTreeMap::new();
        for line in statement(&world.database, day).await.unwrap().lines {
            *lines.entry((line.campaign_id, line.terms_revision)).or_insert(0) += line.clicks;
        }
        for ((campaign, revision), clicks) in usage(recount, day) {
            let expected = match campaign {
                6 => clicks.min(capped_left),
                77 => 0,
                _ => clicks,
            };
            if campaign == 6 {
                capped_left -= expected;
            }
            let billed = lines.get(&(campaign, revision)).copied().unwrap_or(0);
            assert_eq!(billed, expected, "campaign {campaign} revision {revision} on {day}");
        }
    }
    let unbalanced: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM billing.ledger_entry GROUP BY transaction_id, currency
            HAVING sum(amount_micros) <> 0) t",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(unbalanced, 0);
    let over_budget: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT campaign_id, sum(amount_micros) AS billed FROM billing.invoice_line GROUP BY 1) t
         JOIN catalog.campaign USING (campaign_id) WHERE billed > budget_micros",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(over_budget, 0);
}

/// One story, told in order: each step starts from what the one before left.
pub(crate) async fn a_day_is_billed_as_a_naive_recount_says_and_never_changes_but_by_memo(environment: &Environment) {
    let world = environment.world().await;
    set_catalogue(&world).await;
    let mut records = generate(4, 8_000);
    produce(&world, &records);
    world.archive_all().await;
    let recounted = recount(&records);
    let days = [Day::of(NOON_MS).unwrap(), Day::of(NOON_MS + 12 * HOUR_MS).unwrap()];
    assert_eq!(archived_days(&world.database).await.unwrap()[..2], days);

    // The batch equals the recount, window by window.
    let summaries = [run_day(&world, days[0]).await, run_day(&world, days[1]).await];
    let expected: BTreeMap<_, _> =
        recounted.windows.iter().map(|(key, tally)| (*key, (tally.clicks, tally.invalid, tally.copies))).collect();
    assert_eq!(windows_of_batch(&world).await, expected);
    let valid: u64 = summaries.iter().map(|summary| summary.unique_valid_clicks).sum();
    assert_eq!(valid, u64::try_from(recounted.winners.len()).unwrap());
    assert!(summaries.iter().all(|s| s.duplicates > 0 && s.conflicts > 0 && s.quarantined > 0 && s.misrouted > 0));
    assert_billed(&world, &recounted, days).await;

    // Drafts owe nothing yet.
    assert_eq!(count(&world, "SELECT count(*) FROM billing.ledger_entry").await, 0);

    // A rerun gives identical rows, in either order of days.
    let before = dump(&world).await;
    for day in [days[1], days[0]] {
        run_day(&world, day).await;
    }
    assert_eq!(dump(&world).await, before);

    reconciliation_names_every_difference(&world, &recounted, days).await;
    a_finalised_day_is_immutable(&world, days[0]).await;

    // A day finalised and run again over the same log needs no memo and is no new revision, whatever other days bill.
    let before = dump(&world).await;
    run_day(&world, days[1]).await;
    let again = run_day(&world, days[0]).await;
    assert_eq!((again.is_unchanged, again.revision, again.documents), (true, 1, 0));
    assert_eq!(dump(&world).await, before);

    // Late clicks become a debit memo; the other day's drafts are untouched.
    records.extend(valid_clicks(40, NOON_MS));
    produce(&world, &records[records.len() - 40..]);
    world.archive_all().await;
    let memo = run_day(&world, days[0]).await;
    assert_eq!((memo.revision, memo.documents), (2, 1));
    let shown = statement(&world.database, days[0]).await.unwrap();
    let debit: Vec<_> = shown.documents.iter().filter(|document| document.revision == 2).collect();
    assert_eq!((debit[0].kind.as_str(), debit[0].amount_micros), ("debit_memo", 40 * PRICE_MICROS));
    assert_billed(&world, &recount(&records), days).await;

    // A budget that is lowered after the clicks takes nothing back.
    finalize_by_override(&world, days[0]).await;
    set_terms(&world, 4, 2, PRICE_MICROS, PRICE_MICROS, NOON_MS + 100 * HOUR_MS).await;
    let again = run_day(&world, days[0]).await;
    assert_eq!((again.is_unchanged, again.revision), (true, 2));
    // Terms that arrive late, and were in force at the clicks, take back what they do not cover, in a credit memo.
    set_terms(&world, 4, 3, PRICE_MICROS, PRICE_MICROS, 0).await;
    assert_eq!(run_day(&world, days[1]).await.revision, 1);
    let credit = run_day(&world, days[0]).await;
    assert_eq!((credit.revision, credit.documents), (3, 1));
    let shown = statement(&world.database, days[0]).await.unwrap();
    let credit: Vec<_> = shown.documents.iter().filter(|document| document.kind == "credit_memo").collect();
    assert!(credit.len() == 1 && credit[0].amount_micros < 0);
}

/// One record a click, all of campaign 1 and valid. Clicks of different times are different clicks.
pub(crate) fn valid_clicks(count: i64, event_time_ms: u64) -> Vec<Logged> {
    valid_clicks_of(1, count, event_time_ms)
}

pub(crate) fn valid_clicks_of(campaign_id: u64, count: i64, event_time_ms: u64) -> Vec<Logged> {
    let mut rng = ChaCha8Rng::seed_from_u64(event_time_ms);
    (0..count)
        .map(|_| {
            let mut click = random_click(&mut rng);
            (click.campaign_id, click.event_time_ms, click.evidence) = (campaign_id, event_time_ms, 0);
            click.user_agent.clear();
            record(partitioner().shard(campaign_id, click.id()), vec![click])
        })
        .collect()
}

/// Plays the stream: it counted what the recount says, but for some clicks it found late, each in its side output.
async fn reconciliation_names_every_difference(world: &World, recounted: &Recount, days: [Day; 2]) {
    let mut stream = recounted.windows.clone();
    let late: Vec<_> = recounted.winners.iter().step_by(100).collect();
    for (click, shard, offset) in &late {
        stream.get_mut(&window(click)).unwrap().clicks -= 1;
        insert_late(world, click.click_id, shard.0, *offset, click.event_time_ms).await;
    }
    // A late copy of a click that was counted in time: it explains nothing.
    let (counted, shard, offset) = &recounted.winners[1];
    insert_late(world, counted.click_id, shard.0, offset + 1, counted.event_time_ms).await;
    for ((minute, ad, campaign), tally) in &stream {
        sqlx::query(
            "INSERT INTO reports.ad_minute VALUES (to_timestamp($1::bigint * 60), $2, $3, $4, $5, $6, 9, 'final')",
        )
        .bind(i64::try_from(*minute).unwrap())
        .bind(i64::try_from(*ad).unwrap())
        .bind(i64::try_from(*campaign).unwrap())
        .bind(tally.clicks)
        .bind(tally.invalid)
        .bind(tally.clicks * price_of_stream(*campaign, *minute * 60_000))
        .execute(&world.pool)
        .await
        .unwrap();
    }
    let summaries = [reconcile_day(world, days[0]).await, reconcile_day(world, days[1]).await];
    let named: u64 = summaries.iter().map(|summary| summary.late).sum();
    assert_eq!(named, u64::try_from(late.len()).unwrap());
    for summary in &summaries {
        assert_eq!(summary.batch_clicks - summary.stream_clicks, summary.late);
        assert_eq!((summary.unexplained, summary.stream_pending, summary.duplicate, summary.invalid), (0, 0, 0, 0));
        assert_eq!(summary.batch_clicks - summary.billed_clicks, summary.budget_cap + summary.unknown_campaign);
        assert!(summary.unknown_campaign > 0 && !summary.pages());
        let amounts = summary.amounts.iter().find(|amounts| amounts.currency == Some(Currency::USD)).unwrap().amounts;
        assert_eq!(amounts.batch_micros - amounts.stream_micros, amounts.counted_micros + amounts.terms_changed_micros);
        assert!(amounts.counted_micros > 0 && amounts.billed_micros <= amounts.batch_micros);
        assert_eq!((summary.unexplained_amounts, amounts.unexplained_micros), (0, 0));
    }
    assert!(summaries.iter().any(|summary| summary.budget_cap > 0));

    // A planted divergence: a final window that lost a click, one that counted twice, and one that is still open.
    let victims: Vec<(DateTime<chrono::Utc>, i64, i64)> = sqlx::query_as(
        "SELECT minute, ad_id, campaign_id FROM reports.ad_minute WHERE clicks > 0 AND minute < $1 ORDER BY 1, 2, 3 LIMIT 2",
    )
    .bind(days[1].start())
    .fetch_all(&world.pool)
    .await
    .unwrap();
    for (victim, change) in victims.iter().zip([-1_i64, 4]) {
        sqlx::query(
            "UPDATE reports.ad_minute SET clicks = clicks + $4, spend_micros = spend_micros / clicks * (clicks + $4)
             WHERE (minute, ad_id, campaign_id) = ($1, $2, $3)",
        )
        .bind(victim.0)
        .bind(victim.1)
        .bind(victim.2)
        .bind(change)
        .execute(&world.pool)
        .await
        .unwrap();
    }
    sqlx::query(
        "UPDATE reports.ad_minute SET clicks = clicks - 1, spend_micros = spend_micros / clicks * (clicks - 1), state = 'fired'
         WHERE (minute, ad_id, campaign_id) IN
            (SELECT minute, ad_id, campaign_id FROM reports.ad_minute
             WHERE clicks > 0 AND minute = (SELECT max(minute) FROM reports.ad_minute) LIMIT 1)",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let first = reconcile_day(world, days[0]).await;
    assert_eq!((first.unexplained, first.late), (5, summaries[0].late));
    assert_eq!(first.unexplained_amounts, 0, "clicks that differ explain what they cost");
    assert!(first.pages());
    let second = reconcile_day(world, days[1]).await;
    assert_eq!((second.unexplained, second.stream_pending), (0, 1));
    let rows: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM billing.reconciliation WHERE scope = 'ad_minute' AND cause = 'unexplained'",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(rows, 2);
}

/// What the stream charges for a click that it counts at the time of the click.
fn price_of_stream(campaign: u64, at_ms: u64) -> i64 {
    match campaign {
        UNKNOWN_CAMPAIGN => 0,
        2 if at_ms >= RAISE_MS => PRICE_MICROS * 3 / 2,
        _ => PRICE_MICROS,
    }
}

async fn insert_late(world: &World, click_id: u64, shard: u16, offset: u64, event_time_ms: u64) {
    let time = DateTime::from_timestamp_millis(i64::try_from(event_time_ms).unwrap()).unwrap();
    sqlx::query("INSERT INTO reports.late_click VALUES ($1, 0, 0, $2, $3, $4, $2, true) ON CONFLICT DO NOTHING")
        .bind(click_id.cast_signed())
        .bind(time)
        .bind(i32::from(shard))
        .bind(i64::try_from(offset).unwrap())
        .execute(&world.pool)
        .await
        .unwrap();
}

async fn a_finalised_day_is_immutable(world: &World, day: Day) {
    let unknown = finalize_day(world, "1999-01-01".parse().unwrap()).await;
    assert!(matches!(unknown, Err(BillingError::NotRun(_))));
    // The reconciliation found planted differences, so the day becomes final by an override only, and that is recorded.
    let refused = finalize_day(world, day).await.unwrap_err();
    assert_eq!(refused.next_move(), NextMove::Reject);
    assert!(refused.to_string().contains("no cause for 5 of"), "{refused}");
    assert_eq!(count(world, "SELECT count(*) FROM billing.batch_run WHERE state = 'final'").await, 0);
    let finalized = finalize_by_override(world, day).await;
    assert_eq!((finalized.documents, finalized.overridden), (2, vec!["unexplained".to_owned()]));
    assert_eq!(finalize_day(world, day).await.unwrap().documents, 0);
    let recorded: (Vec<String>, String, String) =
        sqlx::query_as("SELECT overridden, overridden_by, reason FROM billing.finalisation")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    let expected = (vec!["unexplained".to_owned()], "ann".to_owned(), "the planted differences are known".to_owned());
    assert_eq!(recorded, expected);
    // Final documents are posted, and only they.
    assert_eq!(count(world, "SELECT count(DISTINCT transaction_id) FROM billing.ledger_entry").await, 2);
    assert_eq!(
        count(
            world,
            "SELECT count(*) FROM billing.ledger_entry JOIN billing.invoice ON invoice_id = transaction_id
            WHERE state = 'draft'"
        )
        .await,
        0
    );
    let before = dump(world).await;
    for forged in [
        "UPDATE billing.invoice SET amount_micros = 0 WHERE state = 'final'",
        "UPDATE billing.invoice SET state = 'draft', finalized_at = NULL WHERE state = 'final'",
        "DELETE FROM billing.invoice WHERE state = 'final'",
        "UPDATE billing.invoice_line SET clicks = 0, amount_micros = 0",
        "DELETE FROM billing.invoice_line",
        "INSERT INTO billing.invoice_line SELECT invoice_id, 99, 99, '', 1, 1, 1, 1, 0, repeat('0', 64) FROM billing.invoice
            WHERE state = 'final'",
        "DELETE FROM billing.ledger_entry",
        "UPDATE billing.batch_run SET files = '{}'",
        "TRUNCATE billing.invoice CASCADE",
        "DELETE FROM billing.finalisation",
        "UPDATE billing.finalisation SET reason = 'none'",
        // A draft that is posted.
        "INSERT INTO billing.ledger_entry SELECT invoice_id, entry, 'click_revenue', advertiser_id, currency, entry
            FROM billing.invoice, (VALUES (1), (-1)) AS entries (entry) WHERE state = 'draft'",
        // A final document whose transaction does not sum to zero.
        "WITH document AS (INSERT INTO billing.invoice SELECT 'forged', day, revision, 99, currency, kind, 'final', 1, now()
            FROM billing.invoice WHERE state = 'final' LIMIT 1 RETURNING *)
            INSERT INTO billing.ledger_entry SELECT 'forged', 1, 'click_revenue', 99, currency, 1 FROM document",
    ] {
        assert!(sqlx::query(forged).execute(&world.pool).await.is_err(), "{forged}");
    }
    assert_eq!(dump(world).await, before);
}

pub(crate) async fn a_file_that_changed_stops_the_batch(environment: &Environment) {
    let world = environment.world().await;
    set_catalogue(&world).await;
    produce(&world, &generate(6, 300));
    world.archive_all().await;
    let day = Day::of(NOON_MS).unwrap();
    let summary = run_day(&world, day).await;
    let before = dump(&world).await;
    let files = files_for_day(&world.database, day, 0).await.unwrap();
    assert!(summary.files >= files.len());
    let path = world.folder.path().join(&files[0].file);
    let mut content = std::fs::read(&path).unwrap();
    content[100] ^= 1;
    std::fs::write(&path, content).unwrap();
    let store = ArchiveStore::open(world.folder.path().to_str().unwrap()).unwrap();
    let outcome = run(&world.database, &store, day, &BatchOptions::default(), &SystemClock).await.unwrap_err();
    assert!(matches!(outcome, BillingError::FileChanged { .. }));
    assert_eq!(outcome.next_move(), NextMove::Halt);
    assert_eq!(dump(&world).await, before);
}

pub(crate) async fn a_table_changed_by_hand_is_an_error_that_names_it(environment: &Environment) {
    let world = environment.world().await;
    set_catalogue(&world).await;
    produce(&world, &generate(3, 100));
    world.archive_all().await;
    let day = Day::of(NOON_MS).unwrap();
    run_day(&world, day).await;
    let by_hand = async |sql: &'static str| sqlx::raw_sql(sql).execute(&world.pool).await.unwrap();
    let damaged = |error: BillingError, table: &str| {
        assert_eq!(error.next_move(), NextMove::Halt);
        assert!(error.to_string().contains(table) && error.to_string().contains("by hand"), "{error}");
    };

    by_hand(
        "INSERT INTO billing.batch_run SELECT (r).* FROM (SELECT jsonb_populate_record(t, '{\"revision\": 2}') AS r \
         FROM billing.batch_run t) AS second",
    )
    .await;
    let before = dump(&world).await;
    damaged(finalize_day(&world, day).await.unwrap_err(), "billing.batch_run");
    assert_eq!(dump(&world).await, before, "nothing became final");

    by_hand(
        "DELETE FROM billing.batch_run WHERE revision = 2; \
         INSERT INTO billing.batch_run SELECT (r).* FROM (SELECT jsonb_populate_record(t, '{\"day\": \"2001-01-01\", \"revision\": 2}') AS r \
         FROM billing.batch_run t) AS other; \
         INSERT INTO billing.invoice VALUES ('by-hand', '2001-01-01', 2, 10, 'USD', 'credit_memo', 'draft', -500, NULL); \
         INSERT INTO billing.invoice_line SELECT 'by-hand', row_number() OVER (), campaign_id, '', 1, -5, 100, -500, 0, repeat('0', 64) \
         FROM (SELECT DISTINCT campaign_id FROM billing.batch_campaign_day) AS campaigns",
    )
    .await;
    let outcome = run(&world.database, &world.store, day, &BatchOptions::default(), &SystemClock).await;
    damaged(outcome.unwrap_err(), "billing.invoice_line");

    by_hand(
        "DELETE FROM billing.invoice WHERE invoice_id = 'by-hand'; \
         ALTER TABLE catalog.campaign_terms DISABLE TRIGGER USER; \
         ALTER TABLE catalog.campaign_terms DROP CONSTRAINT campaign_terms_cost_per_click_micros_check; \
         UPDATE catalog.campaign_terms SET cost_per_click_micros = -1",
    )
    .await;
    let outcome = run(&world.database, &world.store, day, &BatchOptions::default(), &SystemClock).await;
    damaged(outcome.unwrap_err(), "cost per click");
}

pub(crate) async fn the_schema_comes_up_twice_and_an_absent_server_is_named(environment: &Environment) {
    let world = environment.world().await;
    let (one, two) = tokio::join!(
        Database::connect_and_migrate(&world.database_url),
        Database::connect_and_migrate(&world.database_url)
    );
    one.unwrap();
    two.unwrap();
    let absent = Database::connect_and_migrate("postgres://absent@127.0.0.1:1/none").await.unwrap_err();
    assert_eq!(absent.next_move(), NextMove::Retry);
    assert!(absent.to_string().contains("127.0.0.1:1") && absent.to_string().contains("start it"));
    let wrong = Database::connect_and_migrate("mysql://x").await.unwrap_err();
    assert_eq!(wrong.next_move(), NextMove::Reject);
}
