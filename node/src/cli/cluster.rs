//! `clicktally cluster`: asks one node over HTTP. The status asks every node, because only a shard's owner knows its
//! lag.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use clicktally_proto::checkpoint::OutcomeCounts;
use comfy_table::Table;
use serde_json::Value;

use super::{Output, say};

/// How long the status waits for a node that does not answer.
const NODE_DEADLINE: Duration = Duration::from_secs(2);

/// How often `drain --wait` asks.
const DRAIN_LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct ClusterCommand {
    /// URL of any node.
    #[arg(long, global = true, env = "CLICKTALLY_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    #[command(subcommand)]
    action: ClusterAction,
}

#[derive(Debug, Subcommand)]
enum ClusterAction {
    /// Leaders, placement, epochs, offsets, lag, watermarks, and the outcomes of the clicks read.
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
    /// Removes a node from every group; its shards go to other nodes.
    Remove {
        #[arg(long)]
        node: u64,
    },
    /// Empties a node: it gets no new shards or groups, and hands over those it has.
    Drain {
        node: u64,
        /// Waits until the node is safe to stop, and reports meanwhile what it still has.
        #[arg(long)]
        wait: bool,
        /// Undoes the drain: the node gets its share again.
        #[arg(long, conflicts_with = "wait")]
        undo: bool,
    },
    /// Evens out the load now, in one round of a few moves, even if the gain is too small for an automatic move.
    Rebalance,
}

pub(super) async fn run(command: ClusterCommand, output: Output) -> anyhow::Result<()> {
    let base = format!("{}/v1/cluster", command.url.trim_end_matches('/'));
    let client = reqwest::Client::new();
    match command.action {
        ClusterAction::Status => {
            let mut cluster: Value = send(client.get(&base)).await?.json().await?;
            let known = known_to_owners(&client, &cluster).await;
            fill_in(&mut cluster, &known);
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
            say(&format!("node {node} is no longer a member"));
        }
        ClusterAction::Drain { node, wait, undo } => {
            let url = format!("{base}/nodes/{node}/drain");
            if undo {
                send(client.delete(url)).await?;
                say(&format!("node {node} gets its share again"));
            } else {
                send(client.post(url)).await?;
                follow_drain(&client, &base, node, wait).await?;
            }
        }
        ClusterAction::Rebalance => {
            send(client.post(format!("{base}/rebalance"))).await?;
            say("every group looks for moves that even out the load");
        }
    }
    Ok(())
}

/// Reports what a draining node still has: once, or until it has nothing.
async fn follow_drain(client: &reqwest::Client, base: &str, node: u64, waits: bool) -> anyhow::Result<()> {
    // The node that is asked may learn of the drain some milliseconds after the leader has accepted it.
    let mut was_draining = false;
    let mut said = String::new();
    loop {
        let cluster: Value = send(client.get(base)).await?.json().await?;
        let view = each(&cluster, "nodes").find(|view| view["node"].as_u64() == Some(node));
        let view = view.with_context(|| format!("node {node} is no longer a member"))?;
        let is = |name: &str| view[name].as_bool().unwrap_or(false);
        if was_draining && !is("draining") {
            bail!("node {node} is no longer draining: another command has undone the drain");
        }
        was_draining = is("draining");
        let is_empty = was_draining && is("safe_to_stop");
        let still = if is_empty {
            format!("node {node} is empty and safe to stop")
        } else {
            let [shards, leads] = ["shards", "groups_led"].map(|name| known(&view[name]));
            format!("node {node} is being emptied: it still owns {shards} shards and leads {leads} groups")
        };
        if still != said {
            say(&still);
            said = still;
        }
        if is_empty {
            return Ok(());
        }
        if !waits {
            say("`clicktally cluster status` shows when it is safe to stop; `cluster drain --wait` waits for it");
            return Ok(());
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

async fn send(request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
    let answer = request.send().await.context("no answer; check the URL, and that a node is running there")?;
    if !answer.status().is_success() {
        bail!("{} answered {}: {}", answer.url().clone(), answer.status(), answer.text().await.unwrap_or_default());
    }
    Ok(answer)
}

/// The fields that only the owner of a shard knows.
const OF_OWNERS: [&str; 2] = ["lag_records", "move_pause_ms"];

/// (node, shard) → its [`OF_OWNERS`].
type KnownToOwners = BTreeMap<(u64, u64), [Value; OF_OWNERS.len()]>;

/// Asks each node for its own shards; a node that does not answer is left out.
async fn known_to_owners(client: &reqwest::Client, cluster: &Value) -> KnownToOwners {
    let nodes: BTreeMap<u64, &str> = each(cluster, "groups")
        .flat_map(|group| each(group, "nodes"))
        .filter_map(|node| Some((node["node"].as_u64()?, node["http_address"].as_str()?)))
        .collect();
    let answers = nodes.into_iter().map(|(node, address)| async move {
        let request = client.get(format!("http://{address}/v1/cluster")).timeout(NODE_DEADLINE);
        let view = async { anyhow::Ok(send(request).await?.json::<Value>().await?) }.await;
        view.map(|view| known_to(node, &view)).unwrap_or_else(|error| {
            tracing::warn!(node, address, error = format!("{error:#}"), "the lag of this node's shards is unknown");
            KnownToOwners::new()
        })
    });
    futures::future::join_all(answers).await.into_iter().flatten().collect()
}

fn known_to(node: u64, view: &Value) -> KnownToOwners {
    let shards = each(view, "groups").flat_map(|group| each(group, "shards"));
    shards
        .filter_map(|shard| Some(((node, shard["shard"].as_u64()?), OF_OWNERS.map(|name| shard[name].clone()))))
        .collect()
}

fn fill_in(cluster: &mut Value, known: &KnownToOwners) {
    for group in cluster["groups"].as_array_mut().into_iter().flatten() {
        for shard in group["shards"].as_array_mut().into_iter().flatten() {
            let key = shard["owner"].as_u64().zip(shard["shard"].as_u64());
            let values = key.and_then(|key| known.get(&key));
            for (slot, name) in OF_OWNERS.into_iter().enumerate() {
                shard[name] = values.map_or(Value::Null, |values| values[slot].clone());
            }
        }
    }
}

fn each<'a>(value: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[list].as_array().into_iter().flatten()
}

/// The columns of a group's shard table: header and field. The outcomes follow them.
const SHARD_COLUMNS: [(&str, &str); 9] = [
    ("shard", "shard"),
    ("owner", "owner"),
    ("heir", "heir"),
    ("epoch", "epoch"),
    ("offset", "committed_offset"),
    ("lag", "lag_records"),
    ("clicks/s", "clicks_per_s"),
    ("last pause ms", "move_pause_ms"),
    ("watermark", "watermark"),
];

fn show(cluster: &Value, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        say(&serde_json::to_string_pretty(cluster)?);
        return Ok(());
    }
    let mut nodes = Table::new();
    nodes.set_header(["node", "state", "level", "leads", "shards", "moving", "threads", "clicks/s", "lag", "heard"]);
    for node in each(cluster, "nodes") {
        let counts =
            ["command_level", "groups_led", "shards", "shards_moving", "threads", "clicks_per_s", "lag_clicks"];
        let heard = node["silent_ms"].as_u64().map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms ago"));
        let cells = [known(&node["node"]), state_of(node).to_owned()].into_iter();
        nodes.add_row(cells.chain(counts.map(|name| known(&node[name]))).chain([heard]));
    }
    say(&nodes.to_string());
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
        let outcomes = OutcomeCounts::default().named().map(|(outcome, _)| outcome);
        let mut table = Table::new();
        table.set_header(SHARD_COLUMNS.iter().map(|(header, _)| *header).chain(outcomes));
        for shard in each(group, "shards") {
            let placed = SHARD_COLUMNS.iter().map(|(_, name)| &shard[*name]);
            table.add_row(placed.chain(outcomes.iter().map(|name| &shard["outcomes"][*name])).map(known));
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

/// Returns the most important state of a node for an operator.
fn state_of(node: &Value) -> &'static str {
    let is = |name: &str| node[name].as_bool().unwrap_or(false);
    match (is("leaving"), is("draining"), is("safe_to_stop")) {
        (true, ..) => "leaving",
        (false, true, true) => "drained, safe to stop",
        (false, true, false) => "draining",
        (false, false, _) => "serving",
    }
}

/// Text without quotes; a dash for a missing value.
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
    fn the_lag_of_a_shard_comes_from_its_present_owner() {
        let shards = json!([
            { "shard": 0, "owner": 1, "lag_records": null },
            { "shard": 1, "owner": 2, "lag_records": null },
            { "shard": 2, "owner": null, "lag_records": null },
        ]);
        let mut cluster = json!({ "groups": [{ "shards": shards }] });
        // Node 1 owned shard 1 until a moment ago; node 2 has not made a checkpoint of it yet.
        let said = json!({ "groups": [{ "shards": [
            { "shard": 0, "lag_records": 7 }, { "shard": 1, "lag_records": 9 }, { "shard": 2, "lag_records": null },
        ] }] });
        fill_in(&mut cluster, &known_to(1, &said));
        let lags: Vec<Option<u64>> =
            each(&cluster["groups"][0], "shards").map(|shard| shard["lag_records"].as_u64()).collect();
        assert_eq!(lags, [Some(7), None, None]);
    }

    #[test]
    fn only_a_drained_node_is_called_safe_to_stop() {
        let node = |draining: bool, safe: bool| json!({ "draining": draining, "safe_to_stop": safe, "leaving": false });
        assert_eq!(state_of(&node(true, true)), "drained, safe to stop");
        assert_eq!(state_of(&node(true, false)), "draining");
        assert_eq!(state_of(&node(false, true)), "serving");
    }
}
