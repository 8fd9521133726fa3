//! A node as a process: the cluster member over a real clock, disk, network and log. It adds what only a process has:
//! HTTP and PostgreSQL.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clicktally_api::access::capture_slots::CaptureSlots;
use clicktally_api::access::source::Sources;
use clicktally_api::ports::group_rules::GroupRules;
use clicktally_api::ports::id_minter::IdMinter;
use clicktally_api::{ApiState, Roles};
use clicktally_budget::BudgetRules;
use clicktally_database::{Database, PoolLimits};
use clicktally_kafka::{KafkaLog, KafkaLogSettings};
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::command::{COMMAND_LEVEL, NodeRecord};
use clicktally_proto::identity::shard_key::Partitioner;
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::disk_storage::DiskStorage;
use clicktally_raft_store::peers::transport::HttpTransport;
use clicktally_raft_store::store_config::{RaftTiming, SnapshotRules, StoreConfig};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::actor_threads::ActorThreads;
use crate::cluster::member::{Member, MemberConfig, Seams};
use crate::cluster::membership;
use crate::cluster::presence::heartbeat_interval;
use crate::config::{Config, Role};
use crate::duties::{database, log_topics};
use crate::halts::{Halts, Part};
use crate::shard::ShardHostConfig;

/// How long the first election may take. The other founders may still be starting.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);
const LOG_DEADLINE: Duration = Duration::from_secs(30);
const LOG_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Database connections for the queries of one node.
const QUERY_CONNECTIONS_MAX: u32 = 4;
/// How long a query may wait for a connection before it reports that the database is unavailable.
const QUERY_CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// A running node. End it with [`ClusterNode::stop`]; dropping it is a crash.
pub struct ClusterNode {
    member: Member,
}

impl ClusterNode {
    /// Starts the node and joins the cluster.
    ///
    /// # Errors
    /// Fails if something essential is missing, and names the remedy: ports, the data folder, the log and its topics.
    pub async fn start(config: Config) -> anyhow::Result<ClusterNode> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let http = bind("node.http_listen", &config.node.http_listen).await?;
        let peers = bind("node.peer_listen", &config.node.peer_listen).await?;

        // Open the log first: without its topics there is nothing to count, and wrong partitions or settings must stop
        // the node here.
        let log = open_log(&config, Partitioner::new(config.cluster.groups)).await?;

        let threads = |name| ActorThreads::start(name, config.node.actor_threads).context("starting actor threads");
        let seams = Seams {
            clock: Arc::clone(&clock),
            log: Arc::<KafkaLog>::clone(&log),
            storage: Arc::new(DiskStorage::new(config.node.data_dir.join("raft"))),
            transport: Arc::new(HttpTransport::new(&config.cluster.name)?),
            shard_threads: threads("shards")?,
            actor_threads: threads("actors")?,
        };
        let member = Member::open(member_config(&config, clock.as_ref())?, seams).await?;
        member.store().serve(peers);
        let mut node = ClusterNode { member };
        if let Err(error) = node.run(config, http, log, clock).await {
            node.stop().await;
            return Err(error);
        }
        Ok(node)
    }

    async fn run(
        &mut self,
        config: Config,
        http: TcpListener,
        log: Arc<KafkaLog>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<()> {
        let member = &mut self.member;
        let worker = tokio::time::timeout(JOIN_DEADLINE, member.join()).await.map_err(|_| {
            anyhow::anyhow!(
                "no leader after {} s: start the other members, and check that every node has the same [cluster.peers]",
                JOIN_DEADLINE.as_secs()
            )
        })??;
        let groups = Arc::clone(member.groups());
        let shared_log = Arc::<KafkaLog>::clone(&log);
        let duties =
            database::run(config.clone(), groups, shared_log, Arc::clone(&clock), member.halts(), member.stopped());
        member.spawn(Part::PostgreSql, duties);
        let topics = log_topics::watch_topics(Arc::clone(&log), member.halts(), member.stopped());
        member.spawn(Part::LogTopics, topics);
        let minter = IdMinter::default();
        minter.arm(worker);
        let limits = PoolLimits { connections_max: QUERY_CONNECTIONS_MAX, acquire_timeout: QUERY_CONNECT_DEADLINE };
        let database = Database::connect_lazy(&config.postgres.url, limits).context("[postgres] url")?;
        let sources = config.sources.iter().map(|source| (source.token.clone(), source.name.clone())).collect();
        let router = clicktally_api::router(ApiState {
            node: config.node.id,
            roles: Roles { capture: config.has(Role::Capture), serve: config.has(Role::Serve) },
            groups: member.shared_groups(),
            partitioner: Partitioner::new(config.cluster.groups),
            group_rules: GroupRules::default(),
            clock,
            log,
            minter,
            budget: Arc::new(member.budget_desk()),
            shards: member.meters().unwrap_or_default(),
            halted: member.halts(),
            postgres: Some(database),
            sources: Sources::new(sources),
            capture_slots: CaptureSlots::default(),
        });
        member.spawn(Part::HttpInterface, serve(http, router, member.halts(), member.stopped()));
        Ok(())
    }

    /// Hands its shards and leadership to other nodes, then ends everything in order. Acknowledged clicks are safe
    /// before and after.
    pub async fn stop(self) {
        self.member.stop().await;
    }
}

async fn serve(listener: TcpListener, router: axum::Router, halts: Arc<Halts>, mut stop: watch::Receiver<bool>) {
    let stopped = async move {
        // An error means that the node is gone, so stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(stopped).await {
        halts.halted(Part::HttpInterface, &error);
    }
}

async fn bind(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{key}: cannot listen on {address}; choose a free address"))
}

/// # Errors
/// Fails if the log is unreachable for the whole deadline, or if its topics do not fit this cluster.
async fn open_log(config: &Config, partitioner: Partitioner) -> anyhow::Result<Arc<KafkaLog>> {
    let settings = KafkaLogSettings {
        connection: config.log.connection(),
        partitioner,
        replication: Some(config.log.replication),
        fetch: config.log.fetch,
    };
    let log = KafkaLog::connect(settings)?;
    let ready = async {
        loop {
            match log.ensure_topics().await {
                Err(error) if error.next_move() == NextMove::Retry => {
                    tracing::warn!(%error, brokers = config.log.brokers, "the log does not answer yet");
                    tokio::time::sleep(LOG_RETRY_PAUSE).await;
                }
                decided => return decided,
            }
        }
    };
    match tokio::time::timeout(LOG_DEADLINE, ready).await {
        Ok(Ok(())) => Ok(Arc::new(log)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => anyhow::bail!(
            "Kafka does not answer at {}: start it, or correct [log] brokers in the configuration",
            config.log.brokers
        ),
    }
}

fn member_config(config: &Config, clock: &dyn Clock) -> anyhow::Result<MemberConfig> {
    Ok(MemberConfig {
        store: store_config(config)?,
        settings: config.group_settings(),
        record: NodeRecord {
            node: config.node.id,
            http_address: config.http_advertised().to_owned(),
            peer_address: config.node.peer_listen.clone(),
            can_aggregate: config.has(Role::Aggregate),
        },
        incarnation: membership::new_incarnation(clock),
        lease: Duration::from_millis(config.cluster.node_lease_ms),
        shard_host: ShardHostConfig { checkpoint_interval: config.checkpoint_interval() },
        budget_rules: BudgetRules {
            counting_lag_max: Duration::from_millis(config.budget.counting_lag_max_ms),
            ..BudgetRules::default()
        },
    })
}

fn store_config(config: &Config) -> anyhow::Result<StoreConfig> {
    Ok(StoreConfig {
        cluster: config.cluster.name.clone(),
        node: config.node.id,
        groups: config.cluster.groups,
        founders: config.founders()?,
        timing: RaftTiming {
            heartbeat_ms: config.cluster.heartbeat_ms,
            election_min_ms: config.cluster.election_min_ms,
            election_max_ms: config.cluster.election_max_ms,
        },
        snapshots: SnapshotRules {
            every_entries: config.cluster.snapshot_every_entries,
            every_bytes: config.cluster.snapshot_every_bytes,
            ..SnapshotRules::default()
        },
        // The node was frozen if it missed two of its own beats.
        heartbeat_gap_max: heartbeat_interval(Duration::from_millis(config.cluster.node_lease_ms)) * 2,
        command_level: COMMAND_LEVEL,
    })
}
