//! `clicktally cluster`: asks a node over HTTP.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::Value;

use super::{Output, say};

#[derive(Debug, Args)]
pub(super) struct ClusterCommand {
    /// Any node.
    #[arg(long, global = true, env = "CLICKTALLY_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    #[command(subcommand)]
    action: ClusterAction,
}

#[derive(Debug, Subcommand)]
enum ClusterAction {
    /// Leaders, placement, epochs, offsets and watermarks.
    Status,
}

pub(super) async fn run(command: ClusterCommand, output: Output) -> anyhow::Result<()> {
    let ClusterAction::Status = command.action;
    let url = format!("{}/v1/cluster", command.url.trim_end_matches('/'));
    let answer = reqwest::get(&url).await.with_context(|| format!("asking {url}; is a node there?"))?;
    if !answer.status().is_success() {
        bail!("{url} answered {}: {}", answer.status(), answer.text().await.unwrap_or_default());
    }
    let cluster: Value = answer.json().await?;
    if output == Output::Json {
        say(&serde_json::to_string_pretty(&cluster)?);
        return Ok(());
    }
    for group in cluster["groups"].as_array().into_iter().flatten() {
        say(&format!("group {}: leader {}, watermark {}", group["group"], group["leader"], group["watermark"]));
        let mut table = Table::new();
        table.set_header(["shard", "owner", "epoch", "committed offset", "watermark", "read", "counted"]);
        for shard in group["shards"].as_array().into_iter().flatten() {
            table.add_row([
                shard["shard"].to_string(),
                shard["owner"].to_string(),
                shard["epoch"].to_string(),
                shard["committed_offset"].to_string(),
                shard["watermark"].to_string(),
                shard["outcomes"]["read"].to_string(),
                shard["outcomes"]["counted"].to_string(),
            ]);
        }
        say(&table.to_string());
    }
    Ok(())
}
