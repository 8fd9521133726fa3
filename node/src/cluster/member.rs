//! Makes a process a member of the cluster, over the four seams: replicas, shards, placement, presence, budgets. They
//! start in the order of their dependencies, and stop in the reverse order.
//!
//! Everything here runs the same way in production and in a simulation. In production [`crate::cluster::cluster_node`]
//! provides the seams, and adds HTTP and PostgreSQL.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use clicktally_budget::BudgetRules;
use clicktally_proto::click_log::ClickLog;
use clicktally_proto::clock::Clock;
use clicktally_proto::command::{GroupSettings, NodeRecord};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::Partitioner;
use clicktally_raft_store::OpenError;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::peers::transport::PeerTransport;
use clicktally_raft_store::storage::Storage;
use clicktally_raft_store::store::RaftStore;
use clicktally_raft_store::store_config::StoreConfig;
use clicktally_state::liveness::Heartbeat;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::actor_threads::{ActorThreads, Stopped};
use crate::budget::BudgetDesk;
use crate::cluster::departure;
use crate::cluster::leadership_keeper::LeadershipKeeper;
use crate::cluster::membership::{self, JoinError};
use crate::cluster::placement_actor::PlacementActor;
use crate::cluster::presence::Presence;
use crate::halts::{Halts, Part};
use crate::log_clock::LogClock;
use crate::shard::{ShardHost, ShardHostConfig, ShardMeters};
use crate::sink::window_publisher;

/// How long background tasks may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The configuration of a member. Its counting threads come with [`Seams`].
#[derive(Debug, Clone)]
pub struct MemberConfig {
    pub store: StoreConfig,
    pub settings: GroupSettings,
    /// The record that every group registers.
    pub record: NodeRecord,
    /// A number that differs between two lives of a node.
    pub incarnation: u64,
    /// A node that is silent for longer is considered dead.
    pub lease: Duration,
    pub shard_host: ShardHostConfig,
    pub budget_rules: BudgetRules,
}

/// The interfaces between a member and the outside world.
pub struct Seams {
    pub clock: Arc<dyn Clock>,
    pub log: Arc<dyn ClickLog>,
    pub storage: Arc<dyn Storage>,
    pub transport: Arc<dyn PeerTransport>,
    /// Threads for shards only.
    pub shard_threads: ActorThreads,
    /// Threads for all other actors.
    pub actor_threads: ActorThreads,
}

/// A running member. End it with [`Member::stop`]; dropping it is a crash.
pub struct Member {
    config: MemberConfig,
    store: RaftStore,
    groups: Arc<[Group]>,
    clock: Arc<dyn Clock>,
    log_clock: Arc<LogClock>,
    halts: Arc<Halts>,
    log: Arc<dyn ClickLog>,
    actor_threads: Arc<ActorThreads>,
    /// `Some` until the shards are hosted on them.
    shard_threads: Option<ActorThreads>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    shards: Option<ShardHost>,
    /// `Some` once this node has joined; it needs this to leave in order.
    presence: Option<Presence>,
}

impl Member {
    /// Opens the replicas. Serve [`RaftStore::peer_service`] of [`Member::store`] right after, then [`Member::join`].
    pub async fn open(config: MemberConfig, seams: Seams) -> Result<Member, OpenError> {
        let Seams { clock, log, storage, transport, shard_threads, actor_threads } = seams;
        let store = RaftStore::open(config.store.clone(), storage, transport, Arc::clone(&clock)).await?;
        let groups = store.groups().cloned().collect();
        Ok(Member {
            config,
            store,
            groups,
            halts: Arc::new(Halts::new(Arc::clone(&clock))),
            log_clock: Arc::new(LogClock::new(Arc::clone(&clock))),
            clock,
            log,
            actor_threads: Arc::new(actor_threads),
            shard_threads: Some(shard_threads),
            tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
            shards: None,
            presence: None,
        })
    }

    pub fn store(&self) -> &RaftStore {
        &self.store
    }

    /// The index is the group's id.
    pub fn groups(&self) -> &Arc<[Group]> {
        &self.groups
    }

    /// `None` if this node counts no shards, or has not joined yet.
    pub fn meters(&self) -> Option<Arc<ShardMeters>> {
        self.shards.as_ref().map(ShardHost::meters)
    }

    /// The parts of this node that stand still until an operator acts.
    pub fn halts(&self) -> Arc<Halts> {
        Arc::clone(&self.halts)
    }

    /// Turns true when this member stops.
    pub fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Runs a task beside the member's own tasks. It should end soon after [`Member::stopped`] turns true; otherwise it
    /// is aborted. If it panics, `part` is halted.
    pub fn spawn(&mut self, part: Part, task: impl Future<Output = ()> + Send + 'static) {
        let halts = Arc::clone(&self.halts);
        self.tasks.spawn(async move { halts.supervise(part, task).await });
    }

    /// Makes this node known, starts its work, and returns its Snowflake worker id. Waits for a leader as long as it
    /// takes.
    pub async fn join(&mut self) -> Result<u16, JoinError> {
        let MemberConfig { settings, record, incarnation, lease, .. } = self.config.clone();
        let node = record.node;
        let myself = Heartbeat {
            node,
            incarnation,
            accepts_shards: record.can_aggregate,
            is_leaving: false,
            threads: u16::try_from(self.actor_threads.count()).unwrap_or(u16::MAX),
            loads: Vec::new(),
        };
        let can_aggregate = record.can_aggregate;
        let level = self.config.store.command_level;
        let kept = Arc::clone(&self.log_clock).keep(Arc::clone(&self.log), self.halts(), self.stopped());
        self.spawn(Part::LogClock, kept);
        let worker = membership::join(&self.groups, settings, record, incarnation, level, self.stopped()).await?;
        if can_aggregate && let Some(threads) = self.shard_threads.take() {
            let (shared, log, clock) = (self.shared_groups(), Arc::clone(&self.log), Arc::clone(&self.clock));
            let (config, halts) = (self.config.shard_host.clone(), Arc::clone(&self.halts));
            let log_clock = Arc::clone(&self.log_clock);
            self.shards = Some(ShardHost::start(config, shared, log, clock, log_clock, threads, halts));
        }
        let clock = Arc::clone(&self.clock);
        let presence = Presence::new(self.store.announcer().clone(), myself, self.meters(), Arc::clone(&clock));
        self.spawn(Part::Presence, presence.clone().keep_alive(lease, self.stopped()));
        let keeper = LeadershipKeeper::new(node, Arc::clone(&self.groups), presence.clone(), clock, lease);
        self.spawn(Part::Leadership, keeper.run(self.stopped()));
        self.presence = Some(presence);
        self.place_and_publish(lease).await.map_err(|Stopped| JoinError::Stopped)?;
        Ok(worker)
    }

    async fn place_and_publish(&mut self, lease: Duration) -> Result<(), Stopped> {
        let groups = Arc::clone(&self.groups);
        for (slot, group) in groups.iter().enumerate() {
            let (log, halts) = (Arc::clone(&self.log), Arc::clone(&self.halts));
            let publisher = window_publisher::run(group.clone(), log, halts, self.stop.subscribe());
            self.spawn(Part::WindowPublisher(group.id()), publisher);
            let placement = PlacementActor::new(group.clone(), Arc::clone(&self.groups), lease);
            self.actor_threads.run(slot, || placement.start()).await?;
        }
        Ok(())
    }

    /// Answers budget checks from this node's replicas.
    pub fn budget_desk(&self) -> BudgetDesk {
        let partitioner = Partitioner::new(self.config.store.groups);
        let (clock, log_clock) = (Arc::clone(&self.clock), Arc::clone(&self.log_clock));
        let threads = Arc::clone(&self.actor_threads);
        BudgetDesk::new(self.shared_groups(), partitioner, clock, log_clock, self.config.budget_rules, threads)
    }

    pub fn shared_groups(&self) -> Vec<Arc<Group>> {
        self.groups.iter().cloned().map(Arc::new).collect()
    }

    /// Hands its shards and leadership to other nodes, then ends everything in order. Acknowledged clicks are safe
    /// before and after.
    pub async fn stop(mut self) {
        if let Some(presence) = self.presence.take() {
            departure::depart(self.node(), &self.groups, &presence, self.config.lease, self.clock.as_ref()).await;
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

    fn node(&self) -> NodeId {
        self.config.record.node
    }
}
