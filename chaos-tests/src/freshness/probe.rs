//! Probe clicks: each has its own ad, so that its count shows exactly this click.

use std::time::Duration;

use anyhow::{Context, ensure};
use clicktally_proto::clock::{Clock, SystemClock};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::cluster_client::ClusterClient;
use crate::eventually::eventually;

/// Far from the ads and campaigns of any load.
const FIRST_AD: u64 = 700_000_000;
const CAMPAIGN: u64 = 700_000;
const PRICE_MICROS: i64 = 1_000;
const BUDGET_MICROS: i64 = 1_000_000_000_000;
const SEEN_WITHIN: Duration = Duration::from_secs(30);
const MINUTE_S: u64 = 60;

pub(super) struct Prober {
    client: ClusterClient,
    random: ChaCha8Rng,
    sent: u64,
}

/// The times of one click, from its acknowledgement until it is visible.
#[derive(Debug, Clone, Copy)]
pub(super) struct Freshness {
    pub(super) in_count: Duration,
    pub(super) in_spend: Duration,
}

impl Prober {
    pub(super) async fn start(client: ClusterClient, random: ChaCha8Rng) -> anyhow::Result<Prober> {
        let terms = json!({
            "campaign_id": CAMPAIGN,
            "advertiser_id": 1,
            "name": "Probes",
            "cost_per_click": {"amount_micros": PRICE_MICROS, "currency": "USD"},
            "budget": {"amount_micros": BUDGET_MICROS, "currency": "USD"},
        });
        client.post("/v1/campaigns", &terms).await?;
        let prober = Prober { client, random, sent: 0 };
        eventually("the budget lane knows the probes' campaign", SEEN_WITHIN, async || prober.spent_micros().await)
            .await?;
        Ok(prober)
    }

    /// Sends one click and looks for it every few milliseconds in both places. Begins at a random moment within
    /// `checkpoint_interval`, because probes that start as soon as the previous one is seen would all wait for a whole
    /// interval.
    pub(super) async fn probe(&mut self, checkpoint_interval: Duration) -> anyhow::Result<Freshness> {
        let pause = self.random.random_range(Duration::ZERO..=checkpoint_interval);
        tokio::time::sleep(pause).await;
        self.sent += 1;
        let (ad_id, clock) = (FIRST_AD + self.sent, SystemClock);
        let now_s = clock.now_ms() / 1_000;
        let click = json!([{ "ad_id": ad_id, "campaign_id": CAMPAIGN, "timestamp": now_s }]);
        let answer = self.client.post("/v1/clicks", &click).await?;
        ensure!(answer["accepted"] == 1, "the probe was not accepted: {answer}");
        let acknowledged = clock.monotonic();
        let minute_s = now_s / MINUTE_S * MINUTE_S;
        let count = format!("/v1/ads/{ad_id}/aggregated_count?from={minute_s}&to={}", minute_s + MINUTE_S);
        let expected_micros = i64::try_from(self.sent)? * PRICE_MICROS;
        let counted = eventually("the click is counted", SEEN_WITHIN, async || {
            let answer = self.client.get(&count).await?;
            ensure!(answer["click_count"] == 1, "{answer}");
            Ok::<_, anyhow::Error>(clock.monotonic())
        });
        let spent = eventually("the click is in the spend", SEEN_WITHIN, async || {
            let spent_micros = self.spent_micros().await?;
            ensure!(spent_micros >= expected_micros, "{spent_micros} of {expected_micros}");
            Ok::<_, anyhow::Error>(clock.monotonic())
        });
        let (counted, spent) = tokio::try_join!(counted, spent)?;
        Ok(Freshness { in_count: counted.saturating_sub(acknowledged), in_spend: spent.saturating_sub(acknowledged) })
    }

    async fn spent_micros(&self) -> anyhow::Result<i64> {
        let answer = self.client.post("/v1/budget/check", &json!({ "campaign_id": CAMPAIGN })).await?;
        let remaining = answer["results"][0]["remaining"]["amount_micros"].as_i64();
        Ok(BUDGET_MICROS - remaining.with_context(|| format!("no remaining budget in {answer}"))?)
    }
}
