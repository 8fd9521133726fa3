//! `clicktally cluster`: asks one node over HTTP. The status asks every node, because only a node itself knows what
//! stands still on it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use clicktally_proto::checkpoint::OutcomeCounts;
use comfy_table::Table;
use serde_json::{Value, json};

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
    /// Lets a running node join: it votes in every group, and gets its share of the shards. Its configuration has
    /// `joins = true` under `[cluster]`.
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
            let views = views_of_nodes(&client, &cluster).await;
            fill_in(&mut cluster, &views);
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

/// A field that only the owner of a shard knows.
const OF_OWNER: &str = "move_pause_ms";

/// Node → its view of the cluster, or why there is none.
type Views = BTreeMap<u64, Result<Value, String>>;

async fn views_of_nodes(client: &reqwest::Client, cluster: &Value) -> Views {
    let nodes: BTreeMap<u64, &str> = each(cluster, "groups")
        .flat_map(|group| each(group, "nodes"))
        .filter_map(|node| Some((node["node"].as_u64()?, node["http_address"].as_str()?)))
        .collect();
    let answers = nodes.into_iter().map(|(node, address)| async move {
        let request = client.get(format!("http://{address}/v1/cluster")).timeout(NODE_DEADLINE);
        let view = async { anyhow::Ok(send(request).await?.json::<Value>().await?) }.await;
        (node, view.map_err(|error| format!("{error:#}")))
    });
    futures::future::join_all(answers).await.into_iter().collect()
}

/// Adds what only the nodes themselves know: `move_pause_ms` of their shards, and under `halted` what stands still on
/// them. A node that does not answer is listed there, too.
fn fill_in(cluster: &mut Value, views: &Views) {
    for group in cluster["groups"].as_array_mut().into_iter().flatten() {
        for shard in group["shards"].as_array_mut().into_iter().flatten() {
            let view = shard["owner"].as_u64().and_then(|owner| views.get(&owner)?.as_ref().ok());
            let shards = view.into_iter().flat_map(|view| each(view, "groups")).flat_map(|group| each(group, "shards"));
            let own = shards.into_iter().find(|own| own["shard"] == shard["shard"]);
            shard[OF_OWNER] = own.map_or(Value::Null, |own| own[OF_OWNER].clone());
        }
    }
    let halted = views.iter().flat_map(|(node, view)| match view {
        Ok(view) => each(view, "halted").map(|part| with_node(*node, part)).collect(),
        Err(error) => vec![json!({ "node": node, "part": "node", "reason": format!("it does not answer: {error}") })],
    });
    cluster["halted"] = halted.collect();
}

fn with_node(node: u64, part: &Value) -> Value {
    let mut part = part.clone();
    part["node"] = node.into();
    part
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
    show_halted(cluster);
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

fn show_halted(cluster: &Value) {
    for part in each(cluster, "halted") {
        let name = match &part["number"] {
            Value::Null => known(&part["part"]),
            number => format!("{} {number}", known(&part["part"])),
        };
        say(&format!("HALTED on node {}: {name}: {}", part["node"], known(&part["reason"])));
        if let (Some(since), Some(consequence)) = (part["since"].as_str(), part["consequence"].as_str()) {
            say(&format!("         since {since}: {consequence}"));
        }
    }
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
    use super::*;

    #[test]
    fn what_only_a_node_knows_comes_from_that_node() {
        let shards = json!([{ "shard": 0, "owner": 1 }, { "shard": 1, "owner": 2 }, { "shard": 2, "owner": null }]);
        let mut cluster = json!({ "groups": [{ "shards": shards }] });
        // Node 1 owned shard 1 until a moment ago.
        let view = json!({
            "groups": [{ "shards": [
                { "shard": 0, "move_pause_ms": 7 }, { "shard": 1, "move_pause_ms": 9 }, { "shard": 2, "move_pause_ms": 3 },
            ] }],
            "halted": [{ "part": "shard", "number": 0, "reason": "offset 5 is lost" }],
        });
        fill_in(&mut cluster, &Views::from([(1, Ok(view)), (2, Err("connection refused".to_owned()))]));
        let pauses: Vec<Option<u64>> =
            each(&cluster["groups"][0], "shards").map(|shard| shard[OF_OWNER].as_u64()).collect();
        assert_eq!(pauses, [Some(7), None, None]);
        let halted: Vec<(u64, &str)> = each(&cluster, "halted")
            .map(|part| (part["node"].as_u64().unwrap(), part["reason"].as_str().unwrap()))
            .collect();
        assert_eq!(halted, [(1, "offset 5 is lost"), (2, "it does not answer: connection refused")]);
    }

    #[test]
    fn only_a_drained_node_is_called_safe_to_stop() {
        let node = |draining: bool, safe: bool| json!({ "draining": draining, "safe_to_stop": safe, "leaving": false });
        assert_eq!(state_of(&node(true, true)), "drained, safe to stop");
        assert_eq!(state_of(&node(true, false)), "draining");
        assert_eq!(state_of(&node(false, true)), "serving");
    }
}
