//! The assembly of one cluster member, in the order of its dependencies; stopped in the reverse order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use anyhow::Context;
use clicktally_api::capture::id_minter::IdMinter;
use clicktally_api::capture::slots::CaptureSlots;
use clicktally_api::capture::source::Sources;
use clicktally_api::{ApiState, Roles};
use clicktally_proto::click_log::{ClickLog, LogError};
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::command::NodeRecord;
use clicktally_proto::ids::NodeId;
use clicktally_proto::shard_key::Partitioner;
use clicktally_raft_store::disk_storage::DiskStorage;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::heartbeats::Heartbeat;
use clicktally_raft_store::peer_transport::HttpTransport;
use clicktally_raft_store::store::RaftStore;
use clicktally_raft_store::store_config::{RaftTiming, SnapshotRules, StoreConfig};
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::actor_threads::ActorThreads;
use crate::budget::{BudgetDesk, BudgetRules};
use crate::cluster::leadership_keeper::LeadershipKeeper;
use crate::cluster::placement_actor::PlacementActor;
use crate::cluster::presence::{Presence, heartbeat_interval};
use crate::cluster::{departure, membership};
use crate::config::{Config, Role};
use crate::database;
use crate::log::{KafkaLog, KafkaLogSettings};
use crate::shard::{ShardHost, ShardHostConfig};
use crate::sink::window_publisher;

/// How long background tasks may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How long the first election may take; the other founders may be starting, too.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);
const LOG_DEADLINE: Duration = Duration::from_secs(30);
const LOG_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Connections of one node for queries.
const QUERY_CONNECTIONS_MAX: u32 = 4;
/// How long a query may wait for a connection before it says that the database is away.
const QUERY_CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// What it takes to leave in order.
struct Membership {
    node: NodeId,
    groups: Arc<[Group]>,
    presence: Presence,
    lease: Duration,
}

/// A running member. [`ClusterNode::stop`] it; dropping it is a crash.
pub struct ClusterNode {
    store: RaftStore,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    shards: Option<ShardHost>,
    /// Once this node has joined.
    membership: Option<Membership>,
    threads: Arc<ActorThreads>,
}

impl ClusterNode {
    /// # Errors
    /// Anything that this node cannot begin without, each with its remedy: ports, the data folder, the log and its topics.
    pub async fn start(config: Config) -> anyhow::Result<ClusterNode> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let http = bind("node.http_listen", &config.node.http_listen).await?;
        let peers = bind("node.peer_listen", &config.node.peer_listen).await?;

        // The log first: without its topics there is nothing to count, and a wrong partition count must stop us here.
        let partitioner = Partitioner::new(config.cluster.groups);
        let log = open_log(&config, partitioner).await?;

        let transport = HttpTransport::new(&config.cluster.name)?;
        let storage = Arc::new(DiskStorage::new(config.node.data_dir.join("raft")));
        let store = RaftStore::open(store_config(&config)?, storage, Arc::new(transport), Arc::clone(&clock)).await?;
        store.serve(peers);
        let groups: Arc<[Group]> = store.groups().cloned().collect();

        let (stop, stopped) = watch::channel(false);
        let threads = ActorThreads::start("actors", config.node.actor_threads).context("starting actor threads")?;
        let mut node = ClusterNode {
            store,
            tasks: JoinSet::new(),
            stop,
            shards: None,
            membership: None,
            threads: Arc::new(threads),
        };
        if let Err(error) = node.run(config, http, groups, log, partitioner, clock, stopped).await {
            node.stop().await;
            return Err(error);
        }
        Ok(node)
    }

    #[allow(clippy::too_many_arguments)] // The parts of one assembly, used once.
    async fn run(
        &mut self,
        config: Config,
        http: TcpListener,
        groups: Arc<[Group]>,
        log: Arc<dyn ClickLog>,
        partitioner: Partitioner,
        clock: Arc<dyn Clock>,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let incarnation = membership::new_incarnation(clock.as_ref());
        let lease = Duration::from_millis(config.cluster.node_lease_ms);
        let myself = Heartbeat {
            node: config.node.id,
            incarnation,
            accepts_shards: config.has(Role::Aggregate),
            is_leaving: false,
            threads: u16::try_from(config.node.actor_threads).unwrap_or(u16::MAX),
            loads: Vec::new(),
        };
        let record = NodeRecord {
            node: config.node.id,
            http_address: config.http_advertised().to_owned(),
            peer_address: config.node.peer_listen.clone(),
            can_aggregate: config.has(Role::Aggregate),
        };
        let joined = membership::join(&groups, config.group_settings(), record, incarnation, stopped.clone());
        let worker = tokio::time::timeout(JOIN_DEADLINE, joined).await.map_err(|_| {
            anyhow::anyhow!(
                "no leader after {} s: start the other members, and check that every node has the same [cluster.peers]",
                JOIN_DEADLINE.as_secs()
            )
        })??;

        let shared: Vec<Arc<Group>> = groups.iter().cloned().map(Arc::new).collect();
        if config.has(Role::Aggregate) {
            let host = ShardHostConfig {
                checkpoint_interval: config.checkpoint_interval(),
                threads: config.node.actor_threads,
            };
            self.shards = Some(ShardHost::start(host, shared.clone(), Arc::clone(&log), Arc::clone(&clock))?);
        }
        let meters = self.shards.as_ref().map(ShardHost::meters);
        let presence = Presence::new(self.store.announcer().clone(), myself, meters.clone(), Arc::clone(&clock));
        self.tasks.spawn(presence.clone().keep_alive(lease, stopped.clone()));
        let (all, clock_too) = (Arc::clone(&groups), Arc::clone(&clock));
        let keeper = LeadershipKeeper::new(config.node.id, all, presence.clone(), clock_too, lease);
        self.tasks.spawn(keeper.run(stopped.clone()));
        self.membership = Some(Membership { node: config.node.id, groups: Arc::clone(&groups), presence, lease });
        for (slot, group) in groups.iter().enumerate() {
            self.tasks.spawn(window_publisher::run(group.clone(), Arc::clone(&log), stopped.clone()));
            let placement = PlacementActor::new(group.clone(), Arc::clone(&groups), lease);
            self.threads.run(slot, || placement.start()).await?;
        }
        self.tasks.spawn(database::run(config.clone(), groups, Arc::clone(&clock), stopped.clone()));
        let minter = IdMinter::default();
        minter.arm(worker);
        let postgres = PgPoolOptions::new()
            .max_connections(QUERY_CONNECTIONS_MAX)
            .acquire_timeout(QUERY_CONNECT_DEADLINE)
            .connect_lazy(&config.postgres.url)
            .context("[postgres] url")?;
        let rules = BudgetRules {
            counting_lag_max: Duration::from_millis(config.budget.counting_lag_max_ms),
            ..BudgetRules::default()
        };
        let threads = Arc::clone(&self.threads);
        let budget = BudgetDesk::new(shared.clone(), partitioner, Arc::clone(&clock), rules, threads);
        let sources = config.sources.iter().map(|source| (source.token.clone(), source.name.clone())).collect();
        let router = clicktally_api::router(ApiState {
            node: config.node.id,
            roles: Roles { capture: config.has(Role::Capture), serve: config.has(Role::Serve) },
            groups: shared,
            partitioner,
            clock,
            log,
            minter,
            budget: Arc::new(budget),
            shards: meters.unwrap_or_default(),
            postgres: Some(postgres),
            sources: Sources::new(sources),
            capture_slots: CaptureSlots::default(),
        });
        self.tasks.spawn(serve(http, router, stopped));
        Ok(())
    }

    /// Gives what it owns and leads to others, then ends everything in order; what was acknowledged is safe before and after.
    pub async fn stop(mut self) {
        if let Some(Membership { node, groups, presence, lease }) = self.membership.take() {
            departure::depart(node, &groups, &presence, lease).await;
        }
        self.stop.send_replace(true);
        if let Some(shards) = self.shards.take() {
            shards.stop().await;
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_DEADLINE, ended).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        self.tasks.shutdown().await;
        self.store.shutdown().await;
    }
}

async fn serve(listener: TcpListener, router: axum::Router, mut stop: watch::Receiver<bool>) {
    let stopped = async move {
        // An error means that the node is gone: stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "the HTTP interface has stopped");
    }
}

async fn bind(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{key}: cannot listen on {address}; choose a free address"))
}

/// # Errors
/// The log out of reach for the whole deadline, or topics that do not fit this cluster.
async fn open_log(config: &Config, partitioner: Partitioner) -> anyhow::Result<Arc<dyn ClickLog>> {
    let settings = KafkaLogSettings {
        brokers: config.log.brokers.clone(),
        partitioner,
        replication: Some(config.log.replication),
        fetch: config.log.fetch,
    };
    let log = KafkaLog::connect(settings)?;
    let ready = async {
        loop {
            match log.ensure_topics().await {
                Err(LogError::Unavailable(reason)) => {
                    tracing::warn!(reason, brokers = config.log.brokers, "the log does not answer yet");
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
            "Kafka does not answer at {}: start it, or mend [log] brokers in the configuration",
            config.log.brokers
        ),
    }
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
        // Two of its own beats missed.
        heartbeat_gap_max: heartbeat_interval(Duration::from_millis(config.cluster.node_lease_ms)) * 2,
    })
}
