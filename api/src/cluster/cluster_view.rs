//! `GET /v1/cluster`: the cluster as this node's replicas see it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use clicktally_proto::checkpoint::OutcomeCounts;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_raft_store::group::Group;
use clicktally_state::group_state::GroupState;
use clicktally_state::liveness::HeartbeatView;
use serde::Serialize;
use utoipa::ToSchema;

use crate::ports::{HaltedPart, OwnShard};
use crate::state::ApiState;
use crate::text_forms::time_text::format_time;

#[derive(Debug, Serialize, ToSchema)]
pub struct ClusterView {
    /// The node that answers.
    pub node: NodeId,
    /// Every node of the cluster, over all groups.
    pub nodes: Vec<MemberStatus>,
    pub groups: Vec<GroupStatus>,
    /// What stands still on the answering node until an operator acts.
    pub halted: Vec<HaltedPart>,
}

/// A node over all groups, as the answering node sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct MemberStatus {
    pub node: NodeId,
    /// How long ago it was last heard; null if not since the answering node started.
    pub silent_ms: Option<u64>,
    /// The newest level of commands that its build applies, as announced in every group. While one node has a lower
    /// level than the others, the cluster does not use commands above it.
    pub command_level: u16,
    /// It is being emptied and gets no new work.
    pub draining: bool,
    /// It is stopping in an orderly way.
    pub leaving: bool,
    /// It owns no shard and leads no group: stopping it interrupts nothing.
    pub safe_to_stop: bool,
    pub groups_led: usize,
    pub shards: usize,
    /// Shards that are moving to it or away from it.
    pub shards_moving: usize,
    /// Counting threads: its capacity, against which its load is weighed.
    pub threads: Option<u16>,
    /// Clicks that its shards read per second, smoothed over some seconds.
    pub clicks_per_s: u64,
    /// Estimated number of clicks that wait for it in the log.
    pub lag_clicks: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct GroupStatus {
    pub group: u16,
    pub leader: Option<NodeId>,
    /// This replica's: leader, follower, candidate, learner or shutdown.
    pub role: String,
    pub term: u64,
    pub applied_index: u64,
    /// Entries of this node's log: the last one written, the last one applied, the last one in the newest snapshot,
    /// and the last one purged because snapshots hold it. Null if there is none.
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
    /// Memory of the state by the product's own accounting: number of cells, bytes of packed ids of seen clicks, and
    /// bytes of both with their containers.
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
    /// The node that the owner is handing it to, during a handover.
    pub heir: Option<NodeId>,
    pub epoch: u64,
    pub committed_offset: u64,
    /// Records of the log that no checkpoint holds: the log's end, as it answers now, minus the committed offset. Null
    /// if the log does not answer in time.
    pub lag_records: Option<u64>,
    /// How long it committed nothing when it last moved; null on every node except its owner, and if it had no owner
    /// before.
    pub move_pause_ms: Option<u64>,
    /// Clicks read per second, as its owner or its previous owner reported; null before the first report.
    pub clicks_per_s: Option<u64>,
    pub watermark: String,
    pub complete_to: String,
    pub outcomes: Outcomes,
}

/// The outcome of every click read; `read` is the sum of the others.
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
    let (own, heard, ends) = (state.shards.shards(), heard(&state), log_ends(&state).await);
    let groups = state.groups.iter().map(|group| status_of(group, &own, &heard, &ends)).collect();
    let halted = state.halted.halted();
    Json(ClusterView { node: state.node, nodes: members_of(&state, &heard), groups, halted })
}

/// The ends of all shards' logs, as far as the log answers in time.
async fn log_ends(state: &ApiState) -> BTreeMap<ShardId, u64> {
    let shards = (0..state.partitioner.partitions()).filter_map(|shard| u16::try_from(shard).ok()).map(ShardId);
    let questions = shards.map(|shard| async move { Some((shard, state.log_end(shard).await.ok()?)) });
    futures::future::join_all(questions).await.into_iter().flatten().collect()
}

fn heard(state: &ApiState) -> HeartbeatView {
    // The same for every group.
    state.groups.first().map(|group| group.heartbeats()).unwrap_or_default()
}

fn members_of(state: &ApiState, heard: &HeartbeatView) -> Vec<MemberStatus> {
    let mut members: BTreeMap<NodeId, MemberStatus> = BTreeMap::new();
    for group in &state.groups {
        let leader = group.leader();
        group.read(|replica| {
            for &node in replica.nodes().keys() {
                let member = members.entry(node).or_insert_with(|| member(node, heard));
                member.command_level = member.command_level.min(replica.command_level(node));
                member.draining |= replica.draining().contains(&node);
                member.groups_led += usize::from(leader == Some(node));
                for (shard, entry) in replica.shards() {
                    let (is_owner, is_heir) = (entry.owner == Some(node), entry.heir == Some(node));
                    member.shards_moving += usize::from(is_heir || is_owner && entry.heir.is_some());
                    if is_owner {
                        let load = heard.loads.get(shard).copied().unwrap_or_default();
                        member.shards += 1;
                        member.clicks_per_s += load.clicks_per_s;
                        member.lag_clicks += load.lag_clicks;
                    }
                }
            }
        });
    }
    let judged = members.into_values().map(|member| MemberStatus {
        safe_to_stop: member.groups_led == 0 && member.shards == 0 && member.shards_moving == 0,
        ..member
    });
    judged.collect()
}

fn member(node: NodeId, heard: &HeartbeatView) -> MemberStatus {
    let heard = heard.nodes.get(&node);
    MemberStatus {
        node,
        silent_ms: heard.map(|heard| millis(heard.silent_for)),
        command_level: u16::MAX,
        draining: false,
        leaving: heard.is_some_and(|heard| heard.heartbeat.is_leaving),
        safe_to_stop: false,
        groups_led: 0,
        shards: 0,
        shards_moving: 0,
        threads: heard.map(|heard| heard.heartbeat.threads),
        clicks_per_s: 0,
        lag_clicks: 0,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn status_of(
    group: &Group,
    own: &BTreeMap<ShardId, OwnShard>,
    heard: &HeartbeatView,
    ends: &BTreeMap<ShardId, u64>,
) -> GroupStatus {
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
        staleness_ms: staleness.map(millis),
        watermark: format_time(state.watermark_ms()),
        complete_to: format_time(state.complete_to_ms()),
        newest_revision: state.newest_revision(),
        published_revision: state.published_revision(),
        windows: state.windows().len(),
        campaigns: state.campaigns().len(),
        cells: state.held().cells.cells,
        seen_bytes: state.held().seen.packed_bytes,
        state_bytes: state.held().bytes(),
        log_bytes: raft.log_bytes,
        nodes: nodes_of(state),
        shards: shards_of(state, own, heard, ends),
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

fn shards_of(
    state: &GroupState,
    own: &BTreeMap<ShardId, OwnShard>,
    heard: &HeartbeatView,
    ends: &BTreeMap<ShardId, u64>,
) -> Vec<ShardStatus> {
    let shards = state.shards().iter().map(|(shard, entry)| ShardStatus {
        shard: shard.0,
        owner: entry.owner,
        heir: entry.heir,
        epoch: entry.epoch.0,
        committed_offset: entry.committed_offset,
        lag_records: ends.get(shard).map(|end| end.saturating_sub(entry.committed_offset)),
        move_pause_ms: own.get(shard).and_then(|own| own.move_pause).map(millis),
        clicks_per_s: heard.loads.get(shard).map(|load| load.clicks_per_s),
        watermark: format_time(entry.watermark_ms),
        complete_to: format_time(entry.complete_to_ms),
        outcomes: entry.outcomes.into(),
    });
    shards.collect()
}
