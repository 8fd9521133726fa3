//! `clicktally cluster`: asks a node over HTTP, and for the status every node: only the owner of a shard knows its lag.

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

/// How often `drain --wait` looks.
const DRAIN_LOOK: Duration = Duration::from_millis(500);

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
    /// Empties a node: it is given nothing more, and hands over what it has.
    Drain {
        node: u64,
        /// Comes back once the node is safe to stop; says meanwhile what it still has.
        #[arg(long)]
        wait: bool,
        /// Gives it its share again.
        #[arg(long, conflicts_with = "wait")]
        undo: bool,
    },
    /// Evens out the load now, also where it gains too little to happen by itself: one round of a few moves.
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
            say(&format!("node {node} is no member any more"));
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

/// Says what a node that is being emptied still has, once, or until it has nothing.
async fn follow_drain(client: &reqwest::Client, base: &str, node: u64, waits: bool) -> anyhow::Result<()> {
    // The node that is asked may learn of it some milliseconds after the leader has said yes.
    let mut was_draining = false;
    let mut said = String::new();
    loop {
        let cluster: Value = send(client.get(base)).await?.json().await?;
        let view = each(&cluster, "nodes").find(|view| view["node"].as_u64() == Some(node));
        let view = view.with_context(|| format!("node {node} is not a member any more"))?;
        let is = |name: &str| view[name].as_bool().unwrap_or(false);
        if was_draining && !is("draining") {
            bail!("node {node} is not drained any more: somebody has undone it");
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
            say("`clicktally cluster status` says when it is safe to stop; `cluster drain --wait` waits for it");
            return Ok(());
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

async fn send(request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
    let answer = request.send().await.context("no answer; is a node there?")?;
    if !answer.status().is_success() {
        bail!("{} answered {}: {}", answer.url().clone(), answer.status(), answer.text().await.unwrap_or_default());
    }
    Ok(answer)
}

/// What only the owner of a shard knows of it.
const OF_OWNERS: [&str; 2] = ["lag_records", "move_pause_ms"];

/// (node, shard) → its [`OF_OWNERS`].
type KnownToOwners = BTreeMap<(u64, u64), [Value; OF_OWNERS.len()]>;

/// As each node that answers says of its shards.
async fn known_to_owners(client: &reqwest::Client, cluster: &Value) -> KnownToOwners {
    let nodes: BTreeMap<u64, &str> = each(cluster, "groups")
        .flat_map(|group| each(group, "nodes"))
        .filter_map(|node| Some((node["node"].as_u64()?, node["http_address"].as_str()?)))
        .collect();
    let answers = nodes.into_iter().map(|(node, address)| async move {
        let request = client.get(format!("http://{address}/v1/cluster")).timeout(NODE_DEADLINE);
        let view = async { anyhow::Ok(send(request).await?.json::<Value>().await?) }.await;
        view.map(|view| known_to(node, &view)).unwrap_or_else(|error| {
            tracing::warn!(node, address, error = format!("{error:#}"), "the lag of this node's shards is not known");
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

/// What the table of a group's shards says above a column, and the field it shows; behind them each outcome.
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

/// What an operator wants to know of a node first.
fn state_of(node: &Value) -> &'static str {
    let is = |name: &str| node[name].as_bool().unwrap_or(false);
    match (is("leaving"), is("draining"), is("safe_to_stop")) {
        (true, ..) => "leaving",
        (false, true, true) => "drained, safe to stop",
        (false, true, false) => "draining",
        (false, false, _) => "serving",
    }
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
