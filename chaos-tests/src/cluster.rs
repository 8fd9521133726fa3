//! A cluster of real node processes on real services, in one directory.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clicktally_embedded::port;

use crate::cluster_client::ClusterClient;
use crate::eventually::{HANG_MAX, eventually};
use crate::node_process::NodeProcess;
use crate::services::Services;

/// What a test may choose; the rest is the product's defaults.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    pub nodes: u64,
    pub groups: u16,
    pub allowed_lateness_ms: u64,
    pub out_of_orderness_ms: u64,
    /// The product's default where it is not set; tests take less, to be done sooner.
    pub checkpoint_interval_ms: Option<u64>,
    /// How long arrived clicks may wait before the archive writes its files.
    pub archive_flush_ms: u64,
    /// Log entries between two snapshots of a group; the product's default where it is not set.
    pub snapshot_every_entries: Option<u64>,
    /// What one group's state may take in memory; the product's default where it is not set.
    pub state_bytes_max: Option<u64>,
    /// `None`: the product's default. A trial that must not see a lease run out takes one far longer than any delay
    /// of a busy machine; elections then wait as long as the lease allows.
    pub node_lease_ms: Option<u64>,
}

impl Default for ClusterOptions {
    fn default() -> ClusterOptions {
        ClusterOptions {
            nodes: 3,
            groups: 1,
            allowed_lateness_ms: 15 * 60_000,
            out_of_orderness_ms: 5_000,
            checkpoint_interval_ms: Some(250),
            archive_flush_ms: 1_000,
            snapshot_every_entries: None,
            state_bytes_max: None,
            node_lease_ms: None,
        }
    }
}

#[derive(Debug)]
pub struct Cluster {
    pub options: ClusterOptions,
    pub nodes: Vec<NodeProcess>,
    pub client: ClusterClient,
}

impl Cluster {
    /// Writes the configurations; starts nothing.
    pub fn prepare(dir: &Path, binary: &Path, services: &Services, options: ClusterOptions) -> anyhow::Result<Cluster> {
        let ports = Ports::choose(options.nodes)?;
        let mut nodes = Vec::new();
        for id in 1..=options.nodes {
            let config = dir.join(format!("node-{id}.toml"));
            let data = dir.join(format!("node-{id}"));
            std::fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
            std::fs::write(&config, config_text(id, &data, dir, &ports, services, &options))
                .with_context(|| format!("cannot write {}", config.display()))?;
            nodes.push(NodeProcess::new(id, ports.url(id), binary.to_owned(), config));
        }
        let client = ClusterClient::new(nodes.iter().map(|node| node.url.clone()).collect())?;
        Ok(Cluster { options, nodes, client })
    }

    /// Starts all nodes and waits until all are ready and every shard has an owner.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.start(&[]).await?;
        }
        self.wait_ready().await
    }

    pub async fn wait_ready(&self) -> anyhow::Result<()> {
        let outcome = eventually("all nodes are ready and all shards owned", HANG_MAX, async || {
            for node in self.nodes.iter().filter(|node| node.is_running()) {
                anyhow::ensure!(self.client.is_ready(&node.url).await, "node {} is not ready", node.id);
            }
            let view = self.client.cluster().await?;
            let unowned = view.shards().values().filter(|shard| shard.owner.is_none()).count();
            anyhow::ensure!(unowned == 0, "{unowned} shards have no owner");
            Ok(())
        })
        .await;
        outcome.with_context(|| self.log_tails())
    }

    pub fn node(&mut self, id: u64) -> anyhow::Result<&mut NodeProcess> {
        self.nodes.iter_mut().find(|node| node.id == id).with_context(|| format!("there is no node {id}"))
    }

    pub async fn stop(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.stop().await?;
        }
        Ok(())
    }

    /// Waits until some running node ends by itself; its id.
    pub async fn first_to_exit(&mut self, deadline: Duration) -> anyhow::Result<u64> {
        let running = self.nodes.iter_mut().filter(|node| node.was_started());
        let waits = running.map(|node| Box::pin(async move { node.exited(deadline).await.map(|_| node.id) }));
        let waits: Vec<_> = waits.collect();
        anyhow::ensure!(!waits.is_empty(), "no node runs");
        let (first, _, _) = futures::future::select_all(waits).await;
        first
    }

    /// Runs `clicktally billing VERB` for a day, on the first node's configuration. Returns what it prints.
    pub async fn bill(&self, verb: &str, day: &str, options: &[&str]) -> anyhow::Result<String> {
        let config = self.nodes.first().context("there is no node")?.config();
        let output = tokio::process::Command::new(binary_beside_this_program()?)
            .args(["billing", verb, "--day", day, "--config"])
            .arg(config)
            .args(options)
            .output()
            .await?;
        let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(
            output.status.success(),
            "billing {verb} --day {day} ended with {}:\n{printed}{said}",
            output.status
        );
        Ok(printed.into_owned())
    }

    /// User and system time of all running nodes so far.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        self.nodes.iter().filter(|node| node.is_running()).map(NodeProcess::cpu_time).sum()
    }

    /// The last lines of every node's log.
    pub fn log_tails(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let state = if node.is_running() { "running" } else { "not running" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "node {} ({state}):\n{}", node.id, node.log_tail());
        }
        text
    }
}

/// Free ports, none given twice.
struct Ports {
    http: Vec<u16>,
    peer: Vec<u16>,
}

impl Ports {
    fn choose(nodes: u64) -> anyhow::Result<Ports> {
        let choose = || (0..nodes).map(|_| port::choose_free()).collect::<std::io::Result<_>>();
        Ok(Ports { http: choose()?, peer: choose()? })
    }

    fn url(&self, id: u64) -> String {
        format!("http://127.0.0.1:{}", self.of(&self.http, id))
    }

    fn of(&self, ports: &[u16], id: u64) -> u16 {
        usize::try_from(id).ok().and_then(|id| ports.get(id - 1)).copied().unwrap_or(0)
    }
}

fn config_text(
    id: u64,
    data: &Path,
    dir: &Path,
    ports: &Ports,
    services: &Services,
    options: &ClusterOptions,
) -> String {
    let mut peers = String::new();
    for peer in 1..=options.nodes {
        // Writing to a string cannot fail.
        let _ = writeln!(peers, "{peer} = \"127.0.0.1:{}\"", ports.of(&ports.peer, peer));
    }
    // What is not set has no line: the product's default then.
    let line = |key: &str, value: Option<u64>| value.map(|value| format!("{key} = {value}\n")).unwrap_or_default();
    format!(
        "\
[node]
id = {id}
http_listen = \"127.0.0.1:{http}\"
peer_listen = \"127.0.0.1:{peer}\"
data_dir = {data:?}

[cluster]
groups = {groups}
{snapshots}{memory}{lease}{elections}
[cluster.peers]
{peers}
[log]
brokers = \"{brokers}\"

[postgres]
url = \"{url}\"

[event_time]
out_of_orderness_ms = {out_of_orderness_ms}
allowed_lateness_ms = {allowed_lateness_ms}

[stream]
{stream}
[archive]
location = {archive:?}
flush_ms = {flush_ms}
",
        http = ports.of(&ports.http, id),
        peer = ports.of(&ports.peer, id),
        data = data.display().to_string(),
        groups = options.groups,
        snapshots = line("snapshot_every_entries", options.snapshot_every_entries),
        memory = line("state_bytes_max", options.state_bytes_max),
        lease = line("node_lease_ms", options.node_lease_ms),
        elections = options.node_lease_ms.map(election_lines).unwrap_or_default(),
        brokers = services.kafka.bootstrap(),
        url = services.postgres.url(),
        out_of_orderness_ms = options.out_of_orderness_ms,
        allowed_lateness_ms = options.allowed_lateness_ms,
        stream = line("checkpoint_ms", options.checkpoint_interval_ms),
        // One folder for all: whichever node archives, the batch finds the files.
        archive = dir.join("archive").display().to_string(),
        flush_ms = options.archive_flush_ms,
    )
}

/// Elections that are called for as late as a lease of so many milliseconds allows.
fn election_lines(lease_ms: u64) -> String {
    format!("election_min_ms = {}\nelection_max_ms = {lease_ms}\n", lease_ms / 2)
}

/// The `clicktally` binary: beside the running program (the demo), or one folder up (a test).
pub fn binary_beside_this_program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let folders = program.ancestors().skip(1).take(2);
    let mut candidates = folders.map(|folder| folder.join("clicktally_under_test"));
    candidates
        .find(|candidate| candidate.is_file())
        .context("clicktally_under_test is not built; run `cargo build -p clicktally-chaos-tests --bins` first")
}
