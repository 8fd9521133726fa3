//! `GET /v1/cluster`: what this node's replicas say of the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use clicktally_proto::checkpoint::OutcomeCounts;
use clicktally_proto::ids::NodeId;
use clicktally_proto::shard_key::ShardId;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::state::GroupState;
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::ApiState;
use crate::time_text::format_time;

/// What only the owners of shards know; the node gives it its own.
pub trait ShardLags: Send + Sync {
    /// Records of the log not read yet, for each shard that this node owns.
    fn lags(&self) -> BTreeMap<ShardId, u64>;
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ClusterView {
    /// The node that answers.
    pub node: NodeId,
    pub groups: Vec<GroupStatus>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct GroupStatus {
    pub group: u16,
    pub leader: Option<NodeId>,
    /// This replica's: leader, follower, candidate, learner or shutdown.
    pub role: String,
    pub term: u64,
    pub applied_index: u64,
    /// Of this node's log: the last entry that is there, the last one applied, the last one in the newest snapshot, and the last one
    /// purged because snapshots hold it. Null where there is none.
    pub last_log: Option<u64>,
    pub applied: Option<u64>,
    pub snapshot: Option<u64>,
    pub purged: Option<u64>,
    pub staleness_ms: Option<u64>,
    pub watermark: String,
    pub complete_to: String,
    pub newest_revision: u64,
    pub published_revision: u64,
    pub windows: usize,
    pub campaigns: usize,
    /// What is held in the state's memory by this law of ours: cells, the packed ids of clicks seen, and both with what holds them.
    pub cells: u64,
    pub seen_bytes: u64,
    pub state_bytes: u64,
    /// This node's log of all groups, on disk.
    pub log_bytes: u64,
    pub nodes: Vec<NodeStatus>,
    pub shards: Vec<ShardStatus>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct NodeStatus {
    pub node: NodeId,
    pub http_address: String,
    pub peer_address: String,
    pub can_aggregate: bool,
    pub shards: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ShardStatus {
    pub shard: u16,
    pub owner: Option<NodeId>,
    pub epoch: u64,
    pub committed_offset: u64,
    /// Records of the log not read yet, at its last checkpoint; null on every node but its owner.
    pub lag_records: Option<u64>,
    pub watermark: String,
    pub complete_to: String,
    pub outcomes: Outcomes,
}

/// What became of every click read; `read` is the sum of the others.
#[derive(Debug, Serialize, ToSchema)]
pub struct Outcomes {
    pub read: u64,
    pub counted: u64,
    pub duplicate: u64,
    pub late: u64,
    pub invalid: u64,
    pub quarantined: u64,
    pub misrouted: u64,
}

impl From<OutcomeCounts> for Outcomes {
    fn from(counts: OutcomeCounts) -> Outcomes {
        let OutcomeCounts { read, counted, duplicate, late, invalid, quarantined, misrouted } = counts;
        Outcomes { read, counted, duplicate, late, invalid, quarantined, misrouted }
    }
}

#[utoipa::path(get, path = "/v1/cluster", tag = "operations", responses((status = 200, body = ClusterView)))]
pub async fn show_cluster(State(state): State<Arc<ApiState>>) -> Json<ClusterView> {
    let lags = state.lags.lags();
    Json(ClusterView { node: state.node, groups: state.groups.iter().map(|group| status_of(group, &lags)).collect() })
}

fn status_of(group: &Group, lags: &BTreeMap<ShardId, u64>) -> GroupStatus {
    let raft = group.status();
    let staleness = group.staleness();
    let (leader, applied_index) = (group.leader(), *group.applied().borrow());
    group.read(|state| GroupStatus {
        group: state.group().0,
        leader,
        role: raft.role,
        term: raft.term,
        applied_index,
        last_log: raft.last_log,
        applied: raft.applied,
        snapshot: raft.snapshot,
        purged: raft.purged,
        staleness_ms: staleness.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        watermark: format_time(state.watermark_ms()),
        complete_to: format_time(state.complete_to_ms()),
        newest_revision: state.newest_revision(),
        published_revision: state.published_revision(),
        windows: state.windows().len(),
        campaigns: state.campaigns().len(),
        cells: state.held().cells,
        seen_bytes: state.held().seen_bytes,
        state_bytes: state.held().bytes(),
        log_bytes: raft.log_bytes,
        nodes: nodes_of(state),
        shards: shards_of(state, lags),
    })
}

fn nodes_of(state: &GroupState) -> Vec<NodeStatus> {
    let owned_by = |node| state.shards().values().filter(|shard| shard.owner == Some(node)).count();
    let nodes = state.nodes().values().map(|record| NodeStatus {
        node: record.node,
        http_address: record.http_address.clone(),
        peer_address: record.peer_address.clone(),
        can_aggregate: record.can_aggregate,
        shards: owned_by(record.node),
    });
    nodes.collect()
}

fn shards_of(state: &GroupState, lags: &BTreeMap<ShardId, u64>) -> Vec<ShardStatus> {
    let shards = state.shards().iter().map(|(shard, entry)| ShardStatus {
        shard: shard.0,
        owner: entry.owner,
        epoch: entry.epoch.0,
        committed_offset: entry.committed_offset,
        lag_records: lags.get(shard).copied(),
        watermark: format_time(entry.watermark_ms),
        complete_to: format_time(entry.complete_to_ms),
        outcomes: entry.outcomes.into(),
    });
    shards.collect()
}
