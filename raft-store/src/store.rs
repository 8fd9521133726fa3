//! The store runs all Raft groups of one node. It opens them over one log, bootstraps them when the cluster is new,
//! keeps their disk usage small, and shuts them down.
//!
//! *Reads / writes*: the node's [`Storage`]: its identity, the log of all groups, the snapshots of each group.
//! *Promises*: only the node that owns a storage uses it. *On restart*: each group continues from its newest valid
//! snapshot and the log after it. No committed entry is lost, and no entry is applied twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clicktally_proto::clock::Clock;
use clicktally_proto::codec;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;
use futures::future::join_all;
use openraft::BasicNode;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::blocking;
use crate::fail_stop::{FailStopOnPanic, fail_stop};
use crate::group::Group;
use crate::group::group_core::GroupCore;
use crate::group::state_machine::Raft;
use crate::group::state_machine::StateMachine;
use crate::group_log::GroupLog;
use crate::healing::log::heal_log;
use crate::healing::snapshot::fetch_snapshot;
use crate::open_error::OpenError;
use crate::peers::heartbeats::HeartbeatTable;
use crate::peers::messages::KnownOf;
use crate::peers::network::{PeerNetwork, ask};
use crate::peers::transport::{PeerCall, PeerTarget, PeerTransport};
use crate::raft_metrics::METRICS;
use crate::serving::announcer::Announcer;
use crate::serving::peer_server::router;
use crate::serving::peer_service::PeerService;
use crate::snapshots::group_snapshots::GroupSnapshots;
use crate::storage::{LogStorage, Storage};
use crate::store_config::{SnapshotRules, StoreConfig};

/// How often each replica proves that it is fresh. A budget answer relies on a proof that is at most about twice as
/// old.
pub const FRESHNESS_INTERVAL: Duration = Duration::from_millis(250);
/// How long a starting node waits for each founder to answer what it knows of the node.
const KNOWN_OF_DEADLINE: Duration = Duration::from_secs(2);
/// How long calls in flight may take to finish when the store shuts down.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Maintenance rounds between two searches for log files to delete.
const PURGE_FILES_EVERY: u32 = 10;

/// All Raft groups of a node. Call [`RaftStore::shutdown`] before you drop it.
pub struct RaftStore {
    announcer: Announcer,
    groups: BTreeMap<GroupId, Group>,
    rafts: Vec<Raft>,
    log: Arc<dyn LogStorage>,
    peer_service: Arc<PeerService>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    listeners: Mutex<Vec<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

impl RaftStore {
    /// Opens every group on the current tokio runtime, which must outlive the store. Serve [`RaftStore::router`]
    /// right after this returns.
    pub async fn open(
        config: StoreConfig,
        storage: Arc<dyn Storage>,
        transport: Arc<dyn PeerTransport>,
        clock: Arc<dyn Clock>,
    ) -> Result<RaftStore, OpenError> {
        config.check()?;
        let raft_config = Arc::new(config.raft_config()?);
        claim(storage.as_ref(), &config)?;
        let log = storage.open_log()?;
        let heartbeats = Arc::new(HeartbeatTable::new(config.heartbeat_gap_max));
        let mut store = RaftStore {
            announcer: Announcer::new(Arc::default(), Arc::clone(&heartbeats), Handle::current()),
            groups: BTreeMap::new(),
            rafts: Vec::new(),
            log: log.clone(),
            peer_service: Arc::new(PeerService::new(&config.cluster, config.node, &[])),
            tasks: Mutex::new(Vec::new()),
            listeners: Mutex::new(Vec::new()),
            stop: watch::Sender::new(false),
        };
        let mut cores = Vec::new();
        for group in (0..config.groups).map(GroupId) {
            match open_group(&config, group, storage.as_ref(), &log, &raft_config, &transport, &clock, &heartbeats)
                .await
            {
                Ok(core) => {
                    store.rafts.push(core.raft.clone());
                    cores.push(core);
                }
                Err(error) => {
                    // The groups that are already open must release the folder before the caller tries again.
                    store.shutdown().await;
                    return Err(error);
                }
            }
        }
        store.peer_service = Arc::new(PeerService::new(&config.cluster, config.node, &cores));
        let runtime = Handle::current();
        store.announcer = Announcer::new(cores.clone().into(), heartbeats, runtime.clone());
        let mut tasks = Vec::new();
        for core in &cores {
            store.groups.insert(core.id, Group::new(core.clone(), runtime.clone()));
            tasks.push(runtime.spawn(prove_freshness(core.clone(), store.stop.subscribe())));
        }
        tasks.push(runtime.spawn(maintain(cores, log, config.snapshots, store.stop.subscribe())));
        *store.tasks.lock() = tasks;
        Ok(store)
    }

    pub fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(&group)
    }

    pub fn announcer(&self) -> &Announcer {
        &self.announcer
    }

    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// The service that peers call. Serve it only on the peer address.
    pub fn peer_service(&self) -> Arc<PeerService> {
        self.peer_service.clone()
    }

    /// [`RaftStore::peer_service`] over HTTP.
    pub fn router(&self) -> Router {
        router(self.peer_service())
    }

    /// Serves [`RaftStore::router`] until the store shuts down.
    pub fn serve(&self, listener: TcpListener) {
        let router = self.router();
        let mut stop = self.stop.subscribe();
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let served = tokio::spawn(async move {
            // The shutdown is graceful, so that it also closes the peers' connections. An open connection would keep
            // answering for a stopped node.
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "the peer interface has stopped");
            }
        });
        self.listeners.lock().push(served);
    }

    /// Stops every group and releases the folder. Idempotent.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        // Take the tasks out first: a lock guard in the loop's head would be held across its awaits.
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.abort();
            // This task was aborted on purpose, so its error is expected.
            let _ = task.await;
        }
        for raft in &self.rafts {
            if let Err(error) = raft.shutdown().await {
                tracing::warn!(%error, "a group did not shut down cleanly");
            }
        }
        let listeners = std::mem::take(&mut *self.listeners.lock());
        for mut listener in listeners {
            if timeout(CLOSE_DEADLINE, &mut listener).await.is_err() {
                listener.abort();
            }
        }
        let log = self.log.clone();
        // This waits for the last fsync.
        let _ = blocking::run(move || log.close()).await;
    }
}

#[allow(clippy::too_many_arguments)] // All groups of a node share these arguments; there is one caller.
async fn open_group(
    config: &StoreConfig,
    group: GroupId,
    storage: &dyn Storage,
    log: &Arc<dyn LogStorage>,
    raft_config: &Arc<openraft::Config>,
    transport: &Arc<dyn PeerTransport>,
    clock: &Arc<dyn Clock>,
    heartbeats: &Arc<HeartbeatTable>,
) -> Result<Arc<GroupCore>, OpenError> {
    let snapshots = GroupSnapshots::new(group, storage.open_snapshots(group)?, config.command_level);
    let mut log = GroupLog::open(log.clone(), storage.open_promises(group)?, group)?;
    log.restore_vote().await?;
    if let Some(acknowledged) = log.lost()? {
        return Err(OpenError::LogLost { group: group.0, acknowledged, last: log.last_index().unwrap_or(0) });
    }
    let peers: Vec<PeerTarget> = others(config, group).collect();
    let known = ask_founders(config, group, transport).await;
    let found = match log.damage().cloned() {
        None => match must_found(config, group, &log, &known) {
            Err(error @ OpenError::LogLost { acknowledged, .. }) => {
                // A supervisor starts a refused node again and again. The leader that remembers may be gone by then.
                log.keep_lost(acknowledged).await?;
                return Err(error);
            }
            decided => decided?,
        },
        Some(damage) => {
            let acknowledged = known.iter().filter_map(|known| known.acknowledged).max();
            heal_log(group.0, &mut log, damage, acknowledged, &snapshots, &peers, transport.as_ref()).await?;
            false
        }
    };
    let unusable = |source| OpenError::Snapshot { group: group.0, source };
    let level = config.command_level;
    let open = || StateMachine::open(group, snapshots.clone(), clock.clone(), level).map_err(unusable);
    let mut state_machine = open()?;
    let applied = state_machine.last_applied().map(|last| last.index);
    if let Some(purged) = log.purged_index().filter(|purged| applied < Some(*purged)) {
        let received = fetch_snapshot(&peers, transport.as_ref(), &snapshots, purged).await;
        let received = received.ok_or(OpenError::SnapshotLost { group: group.0, purged, snapshot: applied })?;
        tracing::warn!(group = group.0, purged, "this replica had no valid snapshot; it uses one from a peer");
        if let Some(last) = received.meta.last_log_id {
            log.agree_with(last).await?;
        }
        snapshots.adopt(received).map_err(unusable)?;
        state_machine = open()?;
    }
    let replica = state_machine.replica();
    let network = PeerNetwork { group, transport: transport.clone() };
    let failed = |reason: String| OpenError::Raft { group: group.0, reason };
    let raft = Raft::new(config.node, raft_config.clone(), network, log.clone(), state_machine)
        .await
        .map_err(|e| failed(e.to_string()))?;
    if found {
        let founders: BTreeMap<NodeId, BasicNode> =
            config.founders.iter().map(|(node, address)| (*node, BasicNode::new(address))).collect();
        raft.initialize(founders).await.map_err(|e| failed(e.to_string()))?;
    }
    let (transport, clock) = (transport.clone(), clock.clone());
    let core = GroupCore::new(group, config, raft, replica, log, snapshots, transport, clock, Arc::clone(heartbeats));
    Ok(Arc::new(core))
}

/// The other founders.
fn others(config: &StoreConfig, group: GroupId) -> impl Iterator<Item = PeerTarget> {
    let others = config.founders.iter().filter(|(node, _)| **node != config.node);
    others.map(move |(node, address)| PeerTarget { node: *node, address: address.clone(), group })
}

/// Asks the other founders what they know of this node. Founders that do not answer are left out.
async fn ask_founders(config: &StoreConfig, group: GroupId, transport: &Arc<dyn PeerTransport>) -> Vec<KnownOf> {
    let questions = others(config, group).map(|target| async move {
        let known: Result<KnownOf, _> =
            ask(transport.as_ref(), &target, PeerCall::KnownOf, &config.node, KNOWN_OF_DEADLINE).await;
        known.ok()
    });
    join_all(questions).await.into_iter().flatten().collect()
}

/// Decides whether this node bootstraps the group, and rejects a disk that lost acknowledged entries.
///
/// 1. A founder with an empty disk bootstraps the group, unless another founder reports that the group is
///    initialized. Any other node with an empty disk waits for the leader.
/// 2. Any node is refused if a peer knows of acknowledgements that the disk should hold but does not, although its own
///    record reports no damage. Then the folder is an old copy or was emptied, and so was its vote. A voter that
///    forgets its vote may vote twice.
fn must_found(config: &StoreConfig, group: GroupId, log: &GroupLog, known: &[KnownOf]) -> Result<bool, OpenError> {
    let mut found = log.is_pristine() && config.founders.contains_key(&config.node);
    for known in known {
        match (known.acknowledged, log.last_index()) {
            (Some(acknowledged), None) => return Err(OpenError::Wiped { group: group.0, acknowledged }),
            // An earlier leader may not know yet that some of its entries were never committed and were replaced. So
            // its answer counts only if its vote is not older than ours.
            (Some(acknowledged), Some(last))
                if acknowledged > last && Some(known.vote) >= log.vote() && !is_broken(Mutant::LogLostIgnored) =>
            {
                return Err(OpenError::LogLost { group: group.0, acknowledged, last });
            }
            _ => {}
        }
        found &= !known.initialized;
    }
    Ok(found)
}

/// Stores the owner of the storage, or checks it if one is stored.
fn claim(storage: &dyn Storage, config: &StoreConfig) -> Result<(), OpenError> {
    let damaged = |source| OpenError::Identity { path: storage.place(), source };
    let Some(frame) = storage.identity()? else {
        let frame = codec::encode(&(&config.cluster, config.node)).map_err(damaged)?;
        return Ok(storage.save_identity(&frame)?);
    };
    let (found_cluster, found_node): (String, NodeId) = codec::decode(&frame).map_err(damaged)?;
    if (&found_cluster, found_node) == (&config.cluster, config.node) {
        return Ok(());
    }
    Err(OpenError::ForeignFolder { path: storage.place(), found_node, found_cluster })
}

async fn prove_freshness(core: Arc<GroupCore>, mut stop: watch::Receiver<bool>) {
    let _guard = FailStopOnPanic("proving that a replica is fresh");
    let mut ticks = interval(FRESHNESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Err(error) = core.confirm_fresh().await {
            tracing::debug!(group = core.id.0, %error, "cannot prove that this replica is fresh");
        }
    }
}

/// What the maintenance task remembers of a group.
#[derive(Default)]
struct Upkeep {
    snapshot: Option<u64>,
    /// The value of `appended_bytes` when that snapshot was first seen, or when one was last requested.
    bytes_then: u64,
}

async fn maintain(
    cores: Vec<Arc<GroupCore>>,
    log: Arc<dyn LogStorage>,
    rules: SnapshotRules,
    mut stop: watch::Receiver<bool>,
) {
    let _guard = FailStopOnPanic("keeping snapshots and the log within their limits");
    let mut ticks = interval(rules.check_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut upkeep: BTreeMap<GroupId, Upkeep> = BTreeMap::new();
    let mut round = 0_u32;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        round = round.wrapping_add(1);
        METRICS.log_used(log.used_bytes());
        let mut blocking = Vec::new();
        if round.is_multiple_of(PURGE_FILES_EVERY) {
            blocking = purge_files(&log).await;
        }
        for core in &cores {
            let upkeep = upkeep.entry(core.id).or_default();
            if let Err(error) = tend(core, upkeep, &rules, blocking.contains(&core.id)).await {
                tracing::warn!(group = core.id.0, error, "maintenance of a group failed; the next round tries again");
            }
        }
    }
}

async fn purge_files(log: &Arc<dyn LogStorage>) -> Vec<GroupId> {
    let log = log.clone();
    match blocking::run(move || log.purge_files()).await {
        Ok(Ok(blocking)) => blocking,
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot delete old log files; a later round tries again");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// Maintains one group. Requests a snapshot if the log has grown by enough bytes or if its old entries keep log files
/// from being deleted. Then purges the log up to the older of the two kept snapshots.
async fn tend(
    core: &Arc<GroupCore>,
    upkeep: &mut Upkeep,
    rules: &SnapshotRules,
    blocks_files: bool,
) -> Result<(), String> {
    let metrics = core.metrics();
    if let Err(fatal) = &metrics.running_state {
        // This task ends before an orderly shutdown begins, so this error is not part of one. A half-dead node would
        // keep its connections and answer nothing.
        fail_stop("running a Raft group", fatal);
    }
    let snapshot = metrics.snapshot.map(|id| id.index);
    let appended = core.log.appended_bytes();
    if snapshot != upkeep.snapshot {
        *upkeep = Upkeep { snapshot, bytes_then: appended };
    }
    let applied = metrics.last_applied.map(|id| id.index);
    let grown = appended - upkeep.bytes_then >= rules.every_bytes;
    if (grown || blocks_files) && applied > snapshot {
        upkeep.bytes_then = appended;
        core.raft.trigger().snapshot().await.map_err(|e| e.to_string())?;
    }
    if is_broken(Mutant::PurgeBeyondSnapshot)
        && let Some(upto) = applied
    {
        core.raft.trigger().purge_log(upto).await.map_err(|e| e.to_string())?;
    }
    let snapshots = core.snapshots.clone();
    let purgeable = blocking::run(move || snapshots.purgeable_index())
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())?;
    if let Some(upto) = purgeable
        && metrics.purged.map(|id| id.index) < Some(upto)
    {
        core.raft.trigger().purge_log(upto).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}
