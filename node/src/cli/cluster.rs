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
    /// Lets a running node join: it votes in every group, and gets its share of the shards.
    Add {
        /// The node's id, never used before by another machine.
        #[arg(long)]
        node: u64,
        /// HOST:PORT of its peer interface.
        #[arg(long)]
        peer: String,
    },
    /// Takes a node out of every group; its shards go to others.
    Remove {
        #[arg(long)]
        node: u64,
    },
}

pub(super) async fn run(command: ClusterCommand, output: Output) -> anyhow::Result<()> {
    let base = format!("{}/v1/cluster", command.url.trim_end_matches('/'));
    let client = reqwest::Client::new();
    match command.action {
        ClusterAction::Status => {
            let cluster: Value = send(client.get(&base)).await?.json().await?;
            show(&cluster, output)?;
        }
        ClusterAction::Add { node, peer } => {
            let member = serde_json::json!({ "node": node, "peer_address": peer });
            send(client.post(format!("{base}/members")).json(&member)).await?;
            say(&format!("node {node} is a member"));
        }
        ClusterAction::Remove { node } => {
            send(client.delete(format!("{base}/members/{node}"))).await?;
            say(&format!("node {node} is no member any more"));
        }
    }
    Ok(())
}

async fn send(request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
    let answer = request.send().await.context("no answer; is a node there?")?;
    if !answer.status().is_success() {
        bail!("{} answered {}: {}", answer.url().clone(), answer.status(), answer.text().await.unwrap_or_default());
    }
    Ok(answer)
}

fn show(cluster: &Value, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        say(&serde_json::to_string_pretty(cluster)?);
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
