//! `clicktally up` runs log, PostgreSQL and nodes on this machine, without configuration. A restart continues where it
//! stopped.
//!
//! The nodes are processes of this same binary, and read ordinary configuration files that `up` writes. Production
//! therefore runs the same code. Ports are chosen once and remembered, because members know each other by address.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use clicktally_embedded::{Child, ChildSpec, Kafka, KafkaOptions, Postgres, PostgresOptions, port};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::config::Config;

const NODE_READY_DEADLINE: Duration = Duration::from_secs(60);
/// Longer than a node may take to hand over its shards and end its tasks.
const NODE_STOP_DEADLINE: Duration = Duration::from_secs(30);
/// The line that a node writes once it serves; see [`crate::cli`].
pub const READY_LINE: &str = "clicktally node is ready";

#[derive(Debug, Clone, Args)]
pub struct UpOptions {
    /// The folder for all data: log, database, nodes, archive.
    #[arg(long, default_value = "clicktally-data")]
    pub data_dir: PathBuf,
    /// The number of nodes; fixed once the data folder exists.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    pub nodes: u64,
    /// Public HTTP port of the first node, if free; the others follow. 0: any free ports.
    #[arg(long, default_value_t = 8080)]
    pub http_port: u16,
    /// Settings for every node, as in a node's configuration file. `up` itself sets [node], [cluster.peers], [log] and
    /// [postgres].
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Print CLICKTALLY_URL, CLICKTALLY_KAFKA and DATABASE_URL once ready, for scripts.
    #[arg(long)]
    pub print_env: bool,
}

/// The ports, chosen at the first start and kept from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Layout {
    kafka_port: u16,
    postgres_port: u16,
    nodes: Vec<NodePorts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct NodePorts {
    http: u16,
    peer: u16,
}

/// A whole system. Dropping it kills all its processes; [`LocalSystem::stop`] ends them in order.
pub struct LocalSystem {
    pub kafka: Kafka,
    pub postgres: Postgres,
    nodes: Vec<LocalNode>,
}

struct LocalNode {
    id: u64,
    spec: ChildSpec,
    http: String,
    child: Option<Child>,
}

impl LocalSystem {
    pub async fn start(options: &UpOptions) -> anyhow::Result<LocalSystem> {
        let folder = &options.data_dir;
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let folder = folder.canonicalize().with_context(|| format!("opening {}", folder.display()))?;
        let layout = Layout::of(&folder, options)?;
        let (kafka, postgres) = tokio::try_join!(
            async {
                let mut kafka = KafkaOptions::serving(folder.join("kafka"));
                kafka.port = Some(layout.kafka_port);
                Kafka::start(kafka).await
            },
            async {
                let mut postgres = PostgresOptions::serving(folder.join("postgres"));
                postgres.port = Some(layout.postgres_port);
                Postgres::start(postgres).await
            }
        )?;
        let mut system = LocalSystem { kafka, postgres, nodes: Vec::new() };
        for number in 0..layout.nodes.len() {
            let node = system.prepare_node(&folder, &layout, number, options)?;
            system.nodes.push(node);
        }
        for node in &mut system.nodes {
            node.spawn().await?;
        }
        for node in &mut system.nodes {
            node.wait_ready().await?;
        }
        Ok(system)
    }

    fn prepare_node(
        &self,
        folder: &Path,
        layout: &Layout,
        number: usize,
        options: &UpOptions,
    ) -> anyhow::Result<LocalNode> {
        let id = number as u64 + 1;
        let ports = layout.nodes[number];
        let mut config = Config::load(options.settings.as_deref())?;
        config.node.id = id;
        config.node.http_listen = format!("127.0.0.1:{}", ports.http);
        config.node.http_advertise = String::new();
        config.node.peer_listen = format!("127.0.0.1:{}", ports.peer);
        config.node.data_dir = folder.join(format!("node-{id}"));
        let peers = layout.nodes.iter().enumerate();
        config.cluster.peers =
            peers.map(|(n, ports)| ((n + 1).to_string(), format!("127.0.0.1:{}", ports.peer))).collect();
        config.log.brokers = self.kafka.bootstrap();
        config.postgres.url = self.postgres.url();
        if config.archive.location.is_empty() {
            // All nodes share one archive, like an object store.
            config.archive.location = folder.join("archive").display().to_string();
        }
        let path = folder.join(format!("node-{id}.toml"));
        std::fs::write(&path, toml::to_string(&config)?).with_context(|| format!("writing {}", path.display()))?;
        let program = std::env::current_exe().context("finding this program's own file")?;
        let spec = ChildSpec {
            service: "clicktally node",
            program: program.display().to_string(),
            arguments: vec!["node".into(), "--config".into(), path.display().to_string()],
            environment: Vec::new(),
            log: folder.join(format!("node-{id}.log")),
            ready_line: Some(READY_LINE),
            orphan_signal: Signal::SIGTERM,
            run_as: None,
        };
        Ok(LocalNode { id, spec, http: format!("http://127.0.0.1:{}", ports.http), child: None })
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.http.clone()).collect()
    }

    /// Restarts nodes that end by themselves, until the future is dropped. Fails if a node cannot be restarted.
    pub async fn supervise(&mut self) -> anyhow::Result<()> {
        loop {
            let exits = self.nodes.iter_mut().enumerate().filter_map(|(number, node)| {
                let child = node.child.as_mut()?;
                Some(Box::pin(async move { (number, child.exited().await) }))
            });
            let ((number, status), _, _) = futures::future::select_all(exits).await;
            let node = &mut self.nodes[number];
            tracing::warn!(node = node.id, ?status, "a node ended; starting it again");
            node.spawn().await?;
            node.wait_ready().await?;
        }
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.take()) {
            child.stop(Signal::SIGTERM, NODE_STOP_DEADLINE).await?;
        }
        self.postgres.stop().await?;
        self.kafka.stop().await?;
        Ok(())
    }
}

impl LocalNode {
    async fn spawn(&mut self) -> anyhow::Result<()> {
        self.child = Some(Child::spawn(self.spec.clone()).await?);
        Ok(())
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child {
            child.wait_ready(NODE_READY_DEADLINE).await?;
        }
        Ok(())
    }
}

impl Layout {
    fn of(folder: &Path, options: &UpOptions) -> anyhow::Result<Layout> {
        let path = folder.join("layout.toml");
        if !path.exists() {
            let layout = Layout::choose(options)?;
            std::fs::write(&path, toml::to_string(&layout)?).with_context(|| format!("writing {}", path.display()))?;
            return Ok(layout);
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let layout: Layout = toml::from_str(&text)
            .with_context(|| format!("{} is damaged; restore it, or start with a new --data-dir", path.display()))?;
        let held = layout.nodes.len();
        if held as u64 != options.nodes {
            bail!("{} holds {held} nodes: give --nodes {held}, or another --data-dir", folder.display());
        }
        layout.check_free(&path)?;
        Ok(layout)
    }

    fn choose(options: &UpOptions) -> anyhow::Result<Layout> {
        // A free port is not chosen twice. Only a wished one may be among the others.
        let mut taken = BTreeSet::new();
        let mut free = |wished: u16| -> anyhow::Result<u16> {
            let is_granted = wished != 0 && port::is_free(wished) && taken.insert(wished);
            if is_granted {
                return Ok(wished);
            }
            loop {
                let port = port::choose_free().context("finding a free port")?;
                if taken.insert(port) {
                    return Ok(port);
                }
            }
        };
        let mut nodes = Vec::new();
        for number in 0..options.nodes {
            let wished = match options.http_port {
                0 => 0,
                first => first.saturating_add(u16::try_from(number)?),
            };
            nodes.push(NodePorts { http: free(wished)?, peer: free(0)? });
        }
        Ok(Layout { kafka_port: free(0)?, postgres_port: free(0)?, nodes })
    }

    fn check_free(&self, path: &Path) -> anyhow::Result<()> {
        let services = [self.kafka_port, self.postgres_port].into_iter();
        for port in services.chain(self.nodes.iter().flat_map(|node| [node.http, node.peer])) {
            if !port::is_free(port) {
                bail!(
                    "port {port}, named in {}, is in use: stop this system if it is running, or the program that uses the port",
                    path.display()
                );
            }
        }
        Ok(())
    }
}

/// The verb: starts the system, waits for Ctrl-C, and ends the system in order.
pub async fn run(options: UpOptions, tell: impl Fn(&str)) -> anyhow::Result<()> {
    let mut system = LocalSystem::start(&options).await?;
    let urls = system.urls();
    if options.print_env {
        tell(&format!("CLICKTALLY_URL={}", urls[0]));
        tell(&format!("CLICKTALLY_KAFKA={}", system.kafka.bootstrap()));
        tell(&format!("DATABASE_URL={}", system.postgres.url()));
    } else {
        tell(&format!("clicktally is up: {} nodes, dashboard at {}/", urls.len(), urls[0]));
        tell(&format!("  nodes       {}", urls.join("  ")));
        tell(&format!("  log         {}", system.kafka.bootstrap()));
        tell(&format!("  PostgreSQL  {}", system.postgres.url()));
        tell(&format!("  data        {}", options.data_dir.display()));
        tell("Ctrl-C stops it; the same command starts it again where it stopped.");
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let outcome = tokio::select! {
        ended = system.supervise() => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    system.stop().await?;
    outcome
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn options(nodes: u64) -> UpOptions {
        UpOptions { data_dir: PathBuf::new(), nodes, http_port: 0, settings: None, print_env: false }
    }

    #[test]
    fn a_wished_port_that_is_taken_is_replaced_and_all_ports_differ() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port::choose_free().unwrap())).unwrap();
        let wished = taken.local_addr().unwrap().port();
        let layout = Layout::choose(&UpOptions { http_port: wished, ..options(3) }).unwrap();
        assert_ne!(layout.nodes[0].http, wished);
        let of_nodes = layout.nodes.iter().flat_map(|node| [node.http, node.peer]);
        let ports: BTreeSet<u16> = of_nodes.chain([layout.kafka_port, layout.postgres_port]).collect();
        assert_eq!(ports.len(), 8);
    }

    #[test]
    fn ports_are_chosen_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let first = Layout::of(folder.path(), &options(3)).unwrap();
        assert_eq!(Layout::of(folder.path(), &options(3)).unwrap(), first);
        let error = Layout::of(folder.path(), &options(5)).unwrap_err().to_string();
        assert!(error.contains("--nodes 3"), "{error}");
    }

    #[test]
    fn a_port_taken_by_somebody_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path(), &options(1)).unwrap();
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, layout.kafka_port)).unwrap();
        let error = Layout::of(folder.path(), &options(1)).unwrap_err().to_string();
        assert!(error.contains(&layout.kafka_port.to_string()), "{error}");
    }
}
