//! Archive, batch and reconciliation on a real Kafka and a real PostgreSQL, both started once for all claims.
//!
//! Run one claim by naming a part of it: `cargo test -p clicktally-billing --test nightly finalised`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod amounts_claims;
mod archive_claims;
mod billing_claims;
mod bounds_claims;
mod clicks;
mod currency_claims;
mod environment;
mod figures_claims;
mod finality_claims;
mod lock_claims;
mod recount;
mod terms_claims;

use environment::{Environment, archive_as_child};

/// Runs a claim in a task of its own, so that its panic is its failure.
macro_rules! claims {
    ($environment:expr, $filter:expr, $failed:expr, [$($claim:path),* $(,)?]) => {$(
        let name = stringify!($claim);
        if $filter.as_deref().is_none_or(|filter| name.contains(filter)) {
            let environment = $environment.clone();
            let outcome = tokio::spawn(async move { $claim(&environment).await }).await;
            println!("claim {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
            $failed += u32::from(outcome.is_err());
        }
    )*};
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if archive_as_child(&runtime) {
        return;
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let failed = runtime.block_on(async {
        let (services, environment) = Environment::start().await;
        let mut failed = 0;
        claims!(
            environment,
            filter,
            failed,
            [
                archive_claims::a_kill_between_upload_and_manifest_leaves_no_gap_and_no_copy,
                archive_claims::a_second_archiver_stands_by_and_the_manifest_takes_nothing_out_of_order,
                archive_claims::transactions_of_other_producers_leave_no_gap_and_aborted_clicks_are_not_archived,
                archive_claims::waiting_for_the_archive_does_not_wait_for_its_age,
                amounts_claims::a_price_that_never_arrived_pages_until_it_does,
                figures_claims::the_last_reconciliation_of_each_day_is_shown_and_an_absent_server_makes_it_old,
                lock_claims::a_standby_keeps_no_snapshot_so_an_index_can_be_built,
                lock_claims::a_node_that_waits_for_migrations_keeps_no_snapshot,
                lock_claims::an_idle_archiver_whose_session_ends_loses_its_duty,
                billing_claims::a_day_is_billed_as_a_naive_recount_says_and_never_changes_but_by_memo,
                billing_claims::a_file_that_changed_stops_the_batch,
                billing_claims::a_table_changed_by_hand_is_an_error_that_names_it,
                currency_claims::a_currency_that_changes_refunds_nothing_and_mixes_nothing,
                finality_claims::a_day_is_not_finalised_before_it_is_over_and_reconciled,
                bounds_claims::terms_that_postgresql_refuses_are_named_and_the_others_arrive,
                bounds_claims::a_price_beyond_all_bounds_does_not_stop_the_bills_of_others,
                bounds_claims::costs_without_a_sum_do_not_hide_the_history_of_their_ad,
                terms_claims::terms_of_another_cluster_are_refused_and_our_own_may_come_twice,
                terms_claims::the_batch_waits_until_the_slowest_group_has_exported_its_terms,
                terms_claims::a_click_that_arrives_before_the_first_terms_is_not_billed_and_shown_so,
                terms_claims::a_click_further_ahead_than_the_stream_counts_is_not_billed,
                billing_claims::the_schema_comes_up_twice_and_an_absent_server_is_named,
            ]
        );
        services.stop().await;
        failed
    });
    assert_eq!(failed, 0, "claims failed");
}
