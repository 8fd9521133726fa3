//! Unique users and costs as the API answers them, from the replicas and from PostgreSQL alike.

use clicktally_chaos_tests::checks::ct12_users_and_costs::is_within_bound;
use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_chaos_tests::oracle::{self, Recount};
use clicktally_chaos_tests::trial::Trial;
use serde_json::{Value, json};

/// The ad that `--hot-percent` is for.
const HOT_AD: u64 = 1;
const MINUTES_PER_DAY: u64 = 24 * 60;

#[tokio::test]
async fn an_ads_users_over_several_minutes_are_counted_once_each_and_its_costs_summed() {
    let trial = Trial::start().await.unwrap();
    for campaign_id in 1..=20 {
        let money = |micros: i64| json!({"amount_micros": micros, "currency": "EUR"});
        let terms = json!({
            "campaign_id": campaign_id, "advertiser_id": 1, "name": "trial",
            "cost_per_click": money(10_000), "budget": money(1_000_000_000_000),
        });
        let register = async || trial.cluster.client.post("/v1/campaigns", &terms).await;
        eventually("the campaign is registered", HANG_MAX, register).await.unwrap();
    }
    let summary = trial.load(&["--users=3000", "--late-percent=20"]).await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();

    let bootstrap = trial.services.kafka.bootstrap();
    let exact = tokio::task::spawn_blocking(move || {
        let (recount, late) = (Recount::of_log(&bootstrap).unwrap(), oracle::late_clicks(&bootstrap).unwrap());
        recount.ad_measures_without(&late)[&HOT_AD]
    })
    .await
    .unwrap();
    let rows = trial.database.ad_minutes().await.unwrap();
    let minutes = || rows.iter().map(|row| row.minute.unsigned_abs());
    let (from, to) = (minutes().min().unwrap(), minutes().max().unwrap() + 1);
    let sum_of_rows: i64 =
        rows.iter().filter(|row| row.ad_id.unsigned_abs() == HOT_AD).filter_map(|row| row.unique_users).sum();
    assert!(!is_within_bound(sum_of_rows.unsigned_abs(), exact.users), "no user came back in another minute");

    let check = |answer: &Value| {
        let users = answer["unique_users"].as_u64().unwrap();
        assert!(is_within_bound(users, exact.users), "{users} unique users, {} exactly", exact.users);
        let cost = &answer["cost"];
        assert_eq!(cost["sum"], json!({"amount_micros": exact.cost_sum_micros, "currency": "EUR"}));
        assert_eq!(cost["click_count"], exact.cost_count);
        let average = exact.cost_sum_micros / i64::try_from(exact.cost_count).unwrap();
        assert_eq!(cost["average_cost_per_click"]["amount_micros"], average);
    };
    check(&ask(&trial, from, to).await);

    // The same rows two days ago: only PostgreSQL knows them.
    trial.database.copy_rows_two_days_back().await.unwrap();
    let (from, to) = (from - 2 * MINUTES_PER_DAY, to - 2 * MINUTES_PER_DAY);
    check(&ask(&trial, from, to).await);

    // Rows of a version that kept no users: their number is not known, rather than too small.
    trial.database.forget_users(from).await.unwrap();
    let answer = ask(&trial, from, to).await;
    assert_eq!(answer["unique_users"], Value::Null);
    assert_eq!(answer["cost"]["click_count"], exact.cost_count);
    // Users are merged over a week at most, costs over any range.
    let answer = ask(&trial, to - 10 * MINUTES_PER_DAY, to).await;
    assert_eq!((&answer["unique_users"], &answer["cost"]["click_count"]), (&Value::Null, &json!(exact.cost_count)));
}

async fn ask(trial: &Trial, from: u64, to: u64) -> Value {
    let path = format!("/v1/ads/{HOT_AD}/aggregated_count?from={}&to={}", from * 60, to * 60);
    eventually("the ad's counts are answered", HANG_MAX, async || trial.cluster.client.get(&path).await).await.unwrap()
}
