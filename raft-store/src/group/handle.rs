//! One Raft group as the rest of a node uses it: propose a command, read the local replica, learn how fresh it is and
//! which node leads.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clicktally_proto::codec;
use clicktally_proto::command::{Command, Outcome, Rejection};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_state::limits::COMMAND_BYTES_MAX;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::group::errors::{MemberError, ProposeError};
use crate::group::group_core::{GroupCore, propose_error};
use crate::group::status::GroupStatus;
use crate::peers::messages::{LeaderAnswer, LeaderReply, LeaderRequest, MemberChange, MembersSeen};
use clicktally_state::group_state::GroupState;
use clicktally_state::leadership::GroupReign;
use clicktally_state::liveness::HeartbeatView;

/// The local replica of one group. Clones share it. It can be used from any thread and any runtime.
#[derive(Clone)]
pub struct Group {
    core: Arc<GroupCore>,
    /// The runtime that drives the peers' connections. A busy actor thread must not delay a heartbeat.
    runtime: Handle,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} on node {})", self.core.id.0, self.core.node)
    }
}

impl Group {
    pub(crate) fn new(core: Arc<GroupCore>, runtime: Handle) -> Group {
        Group { core, runtime }
    }

    pub fn id(&self) -> GroupId {
        self.core.id
    }

    /// The node id of this process.
    pub fn node(&self) -> NodeId {
        self.core.node
    }

    /// Commits a command through the group's leader, on whichever node that is, and returns the outcome of its apply.
    ///
    /// Rejects a command above [`COMMAND_BYTES_MAX`] without proposing it. Also rejects a command that this build, or
    /// the build of some member, does not apply. Gives up after five seconds.
    pub async fn propose(&self, command: &Command) -> Result<Outcome, ProposeError> {
        let level = command.level();
        if level > self.core.command_level {
            return Ok(Outcome::Rejected(Rejection::NeedsUpgrade { node: self.core.node }));
        }
        let frame = match codec::encode(command) {
            Ok(frame) if frame.len() <= COMMAND_BYTES_MAX => frame,
            Ok(frame) => {
                let limit = format!("the command has {} bytes; the limit is {COMMAND_BYTES_MAX}", frame.len());
                return Ok(Outcome::Rejected(Rejection::Limit(limit)));
            }
            Err(error) => return Ok(Outcome::Rejected(Rejection::Limit(error.to_string()))),
        };
        match self.ask_leader(LeaderRequest::Propose { command: Bytes::from(frame), level }).await? {
            Ok(LeaderAnswer::Outcome(outcome)) => Ok(outcome),
            Ok(other) => Err(ProposeError::Retry(format!("unexpected answer {other:?}"))),
            Err(reply) => Err(propose_error(reply)),
        }
    }

    /// Reads the local replica under a lock that is held only for the closure. Copy out what you need; do not compute
    /// in the closure.
    pub fn read<R>(&self, look: impl FnOnce(&GroupState) -> R) -> R {
        self.core.replica.read(look)
    }

    /// The index of the last applied log entry. It changes whenever the replica has applied more.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.core.replica.applied()
    }

    /// How long ago, in monotonic time, this replica was last proven to hold every committed entry. `None` means it
    /// was never proven.
    pub fn staleness(&self) -> Option<Duration> {
        self.core.staleness()
    }

    /// Waits until the local replica holds every entry that was committed before the call (a linearizable read
    /// barrier).
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        let core = self.core.clone();
        self.on_runtime(async move { core.confirm_fresh().await }).await?
    }

    pub fn leader(&self) -> Option<NodeId> {
        self.core.leader()
    }

    /// The leader and the term, both read at the same moment.
    pub fn leader_and_term(&self) -> (Option<NodeId>, u64) {
        self.core.leader_and_term()
    }

    pub fn is_leader(&self) -> bool {
        self.core.is_leader()
    }

    /// When this node last heard from each node, and the load that each announced. The same for every group.
    pub fn heartbeats(&self) -> HeartbeatView {
        self.core.heartbeats.view(self.core.clock.monotonic())
    }

    /// Asks the leader to rebalance the load in its next round, even if the gain is small.
    pub async fn ask_rebalance(&self) -> Result<(), ProposeError> {
        match self.ask_leader(LeaderRequest::Rebalance).await? {
            Ok(_) => Ok(()),
            Err(reply) => Err(propose_error(reply)),
        }
    }

    /// On the leader: whether it was asked to rebalance since the last call.
    pub fn take_rebalance(&self) -> bool {
        self.core.take_rebalance()
    }

    /// The leader of the group. If this node leads, also how far each member is behind.
    pub fn reign(&self) -> GroupReign {
        let metrics = self.core.metrics();
        let last = metrics.last_log_index.unwrap_or(0);
        let behind =
            metrics.replication.iter().flatten().filter_map(|(&node, acknowledged)| {
                acknowledged.map(|log_id| (node, last.saturating_sub(log_id.index)))
            });
        GroupReign {
            group: self.core.id,
            leader: metrics.current_leader,
            voters: metrics.membership_config.membership().voter_ids().collect(),
            behind: behind.collect(),
        }
    }

    /// Adds a node whose peer interface is at `address`. The node joins as a learner and becomes a voter once it has
    /// caught up. This takes as long as the transfer of a snapshot.
    pub async fn add_member(&self, node: NodeId, address: &str) -> Result<(), MemberError> {
        let seen = self.members_seen().await?;
        self.change_members_if(MemberChange::Add { node, address: address.to_owned() }, seen).await
    }

    /// Removes a node. The node may be the leader, or may be gone for good.
    pub async fn remove_member(&self, node: NodeId) -> Result<(), MemberError> {
        let seen = self.members_seen().await?;
        self.change_members_if(MemberChange::Remove { node }, seen).await
    }

    /// The present members, as the condition of a change. Ask before the change, in the caller's own future: a caller
    /// that has stopped waiting then changes nothing later.
    pub async fn members_seen(&self) -> Result<MembersSeen, MemberError> {
        match self.ask_members(LeaderRequest::MembersEntry).await? {
            LeaderAnswer::MembersEntry(seen) => Ok(seen),
            other => Err(MemberError::Retry(format!("unexpected answer {other:?}"))),
        }
    }

    /// Changes the members if they are still those of `seen`.
    pub async fn change_members_if(&self, change: MemberChange, seen: MembersSeen) -> Result<(), MemberError> {
        self.ask_members(LeaderRequest::ChangeMembersIf { change, seen }).await.map(|_| ())
    }

    /// Transfers leadership to an up-to-date voter without waiting for an election. [`clicktally_state::leadership`]
    /// chooses the voter.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), MemberError> {
        self.ask_members(LeaderRequest::ChangeMembers(MemberChange::TransferLeader { to })).await.map(|_| ())
    }

    pub fn status(&self) -> GroupStatus {
        let metrics = self.core.metrics();
        let membership = metrics.membership_config.membership();
        let voter_ids: Vec<NodeId> = membership.voter_ids().collect();
        let (voters, learners) = membership
            .nodes()
            .map(|(node, at)| (*node, at.addr.clone()))
            .partition(|(node, _)| voter_ids.contains(node));
        let acknowledged =
            metrics.replication.iter().flatten().map(|(node, log_id)| (*node, log_id.map(|id| id.index)));
        GroupStatus {
            group: self.core.id,
            node: self.core.node,
            role: format!("{:?}", metrics.state).to_lowercase(),
            leader: metrics.current_leader,
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            log_bytes: self.core.log.used_bytes(),
            voters,
            learners,
            acknowledged: acknowledged.collect(),
            stale_ms: self.staleness().map(|stale| u64::try_from(stale.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    async fn ask_members(&self, request: LeaderRequest) -> Result<LeaderAnswer, MemberError> {
        let reply = self.ask_leader(request).await;
        match reply.map_err(|error| MemberError::Halt(error.to_string()))? {
            Ok(answer) => Ok(answer),
            Err(LeaderReply::Refused(reason)) => Err(MemberError::Reject(reason)),
            Err(LeaderReply::Halted(reason)) => Err(MemberError::Halt(reason)),
            Err(reply) => Err(MemberError::Retry(propose_error(reply).to_string())),
        }
    }

    async fn ask_leader(&self, request: LeaderRequest) -> Result<Result<LeaderAnswer, LeaderReply>, ProposeError> {
        let core = self.core.clone();
        self.on_runtime(async move { core.ask_leader(request).await }).await
    }

    async fn on_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ProposeError> {
        self.runtime.spawn(work).await.map_err(|_| ProposeError::Halt("the node is shutting down".to_owned()))
    }
}
