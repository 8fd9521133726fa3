//! The stage of the demo: real Kafka, real PostgreSQL, three node processes, and campaigns with sufficient budgets.

use anyhow::Context;
use serde_json::json;

use super::options::DemoOptions;
use super::screen::Screen;
use crate::cluster::{Cluster, ClusterOptions, binary_beside_this_program};
use crate::database::Database;
use crate::services::Services;

pub(super) const CAMPAIGNS: u64 = 20;
const PRICE_MICROS: i64 = 250_000;
const BUDGET_MICROS: i64 = 100_000_000 * 1_000_000;

pub(super) struct Stage {
    pub(super) services: Services,
    pub(super) cluster: Cluster,
    pub(super) database: Database,
}

impl Stage {
    pub(super) async fn set_up(options: &DemoOptions, screen: &Screen) -> anyhow::Result<Stage> {
        let dir = std::path::absolute(&options.data_dir)?;
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        screen.say("Starting Apache Kafka and PostgreSQL …");
        let services = Services::serving(&dir).await?;
        screen.say("Starting three nodes …");
        let binary = binary_beside_this_program()?;
        let cluster_options =
            ClusterOptions { allowed_lateness_ms: options.allowed_lateness_s * 1_000, ..ClusterOptions::default() };
        let mut cluster = Cluster::prepare(&dir, &binary, &services, cluster_options)?;
        cluster.start().await?;
        let database = Database::new(&services.postgres.url())?;
        let stage = Stage { services, cluster, database };
        stage.register_campaigns().await?;
        screen.say(&format!("Ready. Dashboard: {}", stage.dashboard()));
        Ok(stage)
    }

    pub(super) fn dashboard(&self) -> String {
        self.cluster.client.urls.first().map(|url| format!("{url}/")).unwrap_or_default()
    }

    async fn register_campaigns(&self) -> anyhow::Result<()> {
        for campaign in 1..=CAMPAIGNS {
            let terms = json!({
                "campaign_id": campaign,
                "advertiser_id": 1 + campaign % 5,
                "name": format!("Campaign {campaign}"),
                "cost_per_click": {"amount_micros": PRICE_MICROS, "currency": "USD"},
                "budget": {"amount_micros": BUDGET_MICROS, "currency": "USD"},
            });
            self.cluster.client.post("/v1/campaigns", &terms).await?;
        }
        Ok(())
    }

    /// Stays up until Ctrl-C.
    pub(super) async fn keep(&self, screen: &Screen) -> anyhow::Result<()> {
        screen.say(&format!(
            "Up until Ctrl-C.\nDashboard      {}\nCLICKTALLY_URL={}\nCLICKTALLY_KAFKA={}\nDATABASE_URL={}",
            self.dashboard(),
            self.cluster.client.urls.first().map(String::as_str).unwrap_or_default(),
            self.services.kafka.bootstrap(),
            self.services.postgres.url(),
        ));
        tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")
    }

    pub(super) async fn tear_down(mut self) -> anyhow::Result<()> {
        self.cluster.stop().await?;
        self.services.postgres.stop().await?;
        self.services.kafka.stop().await?;
        Ok(())
    }
}
