//! `clicktally cluster`: asks a node over HTTP, and for the status every node: only the owner of a shard knows its lag.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::Value;

use super::{Output, say};

/// How long the status waits for a node that does not answer.
const NODE_DEADLINE: Duration = Duration::from_secs(2);

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
    /// Leaders, placement, epochs, offsets, lag, watermarks, and what became of the clicks read.
    Status,
    /// The ads that take the largest shares of the newest minutes' clicks.
    HotKeys,
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
            let mut cluster: Value = send(client.get(&base)).await?.json().await?;
            let lags = lags_of_all(&client, &cluster).await;
            fill_in_lags(&mut cluster, &lags);
            show(&cluster, output)?;
        }
        ClusterAction::HotKeys => {
            let hot: Value = send(client.get(format!("{base}/hot_keys"))).await?.json().await?;
            show_hot_keys(&hot, output)?;
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

/// (node, shard) → lag, as each node that answers says of the shards it owns.
async fn lags_of_all(client: &reqwest::Client, cluster: &Value) -> BTreeMap<(u64, u64), u64> {
    let nodes: BTreeMap<u64, &str> = each(cluster, "groups")
        .flat_map(|group| each(group, "nodes"))
        .filter_map(|node| Some((node["node"].as_u64()?, node["http_address"].as_str()?)))
        .collect();
    let answers = nodes.into_iter().map(|(node, address)| async move {
        let request = client.get(format!("http://{address}/v1/cluster")).timeout(NODE_DEADLINE);
        let view = async { anyhow::Ok(send(request).await?.json::<Value>().await?) }.await;
        view.map(|view| lags_of(node, &view)).unwrap_or_else(|error| {
            tracing::warn!(node, address, error = format!("{error:#}"), "the lag of this node's shards is not known");
            Vec::new()
        })
    });
    futures::future::join_all(answers).await.into_iter().flatten().collect()
}

fn lags_of(node: u64, view: &Value) -> Vec<((u64, u64), u64)> {
    let shards = each(view, "groups").flat_map(|group| each(group, "shards"));
    shards.filter_map(|shard| Some(((node, shard["shard"].as_u64()?), shard["lag_records"].as_u64()?))).collect()
}

fn fill_in_lags(cluster: &mut Value, lags: &BTreeMap<(u64, u64), u64>) {
    for group in cluster["groups"].as_array_mut().into_iter().flatten() {
        for shard in group["shards"].as_array_mut().into_iter().flatten() {
            let key = shard["owner"].as_u64().zip(shard["shard"].as_u64());
            shard["lag_records"] = key.and_then(|key| lags.get(&key)).copied().into();
        }
    }
}

fn each<'a>(value: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[list].as_array().into_iter().flatten()
}

fn show(cluster: &Value, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        say(&serde_json::to_string_pretty(cluster)?);
        return Ok(());
    }
    for group in each(cluster, "groups") {
        say(&format!(
            "group {}: leader {}, term {}, watermark {}; node {} is {} and has applied up to {}",
            group["group"],
            known(&group["leader"]),
            group["term"],
            known(&group["watermark"]),
            cluster["node"],
            known(&group["role"]),
            group["applied_index"],
        ));
        say(&format!(
            "         {} cells held, {} bytes of state; the node's log has {} bytes",
            group["cells"], group["state_bytes"], group["log_bytes"],
        ));
        let mut table = Table::new();
        table.set_header([
            "shard",
            "owner",
            "epoch",
            "offset",
            "lag",
            "watermark",
            "read",
            "counted",
            "duplicate",
            "late",
            "invalid",
            "quarantined",
        ]);
        for shard in each(group, "shards") {
            let placed = ["shard", "owner", "epoch", "committed_offset", "lag_records", "watermark"];
            let outcomes = ["read", "counted", "duplicate", "late", "invalid", "quarantined"];
            let cells = placed.map(|name| &shard[name]).into_iter();
            table.add_row(cells.chain(outcomes.map(|name| &shard["outcomes"][name])).map(known));
        }
        say(&table.to_string());
    }
    Ok(())
}

fn show_hot_keys(hot: &Value, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        say(&serde_json::to_string_pretty(hot)?);
        return Ok(());
    }
    say(&format!("{} clicks in the newest minutes", hot["clicks"]));
    let mut table = Table::new();
    table.set_header(["rank", "campaign", "ad", "clicks", "share"]);
    for (rank, key) in (1..).zip(each(hot, "keys")) {
        let share = format!("{:.1} %", key["share"].as_f64().unwrap_or_default() * 100.0);
        let [campaign, ad, clicks] = ["campaign_id", "ad_id", "clicks"].map(|name| known(&key[name]));
        table.add_row([rank.to_string(), campaign, ad, clicks, share]);
    }
    say(&table.to_string());
    Ok(())
}

/// Text without quotes; a dash where nothing is known.
fn known(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_lag_of_a_shard_is_what_its_present_owner_says() {
        let shards = json!([
            { "shard": 0, "owner": 1, "lag_records": null },
            { "shard": 1, "owner": 2, "lag_records": null },
            { "shard": 2, "owner": null, "lag_records": null },
        ]);
        let mut cluster = json!({ "groups": [{ "shards": shards }] });
        // Node 1 owned shard 1 until a moment ago; node 2 has made no checkpoint of it yet.
        let said = json!({ "groups": [{ "shards": [
            { "shard": 0, "lag_records": 7 }, { "shard": 1, "lag_records": 9 }, { "shard": 2, "lag_records": null },
        ] }] });
        fill_in_lags(&mut cluster, &lags_of(1, &said).into_iter().collect());
        let lags: Vec<Option<u64>> =
            each(&cluster["groups"][0], "shards").map(|shard| shard["lag_records"].as_u64()).collect();
        assert_eq!(lags, [Some(7), None, None]);
    }
}
