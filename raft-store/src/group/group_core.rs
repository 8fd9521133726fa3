//! The part of a group that runs on this node. It does the leader's work if this node leads, and forwards requests to
//! the leader otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clicktally_proto::clock::Clock;
use clicktally_proto::command::{COMMAND_LEVEL_MIN, Outcome, Rejection};
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_state::apply::read_command;
use clicktally_state::limits::COMMAND_BYTES_MAX;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::{RaftMetrics, ReadPolicy, ServerState};
use tokio::time::{Instant, sleep, timeout};

use crate::group::errors::ProposeError;
use crate::group::replica::Replica;
use crate::group::state_machine::Raft;
use crate::group_log::GroupLog;
use crate::peers::heartbeats::HeartbeatTable;
use crate::peers::messages::{LeaderAnswer, LeaderReply, LeaderRequest};
use crate::peers::network::ask;
use crate::peers::transport::{PeerCall, PeerTarget, PeerTransport, TransportError};
use crate::snapshots::group_snapshots::GroupSnapshots;
use crate::store_config::StoreConfig;
use crate::type_config::{CommandBytes, TypeConfig};

/// Deadline of a request to the leader, including the search for a leader. It is several elections long.
pub(super) const LEADER_DEADLINE: Duration = Duration::from_secs(5);
/// Deadline of a change of members. It is longer, because a new member first catches up.
pub(super) const MEMBERS_DEADLINE: Duration = Duration::from_secs(120);
/// Pause before the next search for a leader.
const SEARCH_PAUSE: Duration = Duration::from_millis(50);
/// Value of `fresh_as_of` for a replica that was never proven fresh.
const NEVER: u64 = u64::MAX;

pub(crate) struct GroupCore {
    pub(crate) id: GroupId,
    pub(crate) node: NodeId,
    /// The highest level of the commands that this build applies.
    pub(crate) command_level: u16,
    pub(crate) raft: Raft,
    pub(crate) replica: Arc<Replica>,
    pub(crate) log: GroupLog,
    pub(crate) snapshots: GroupSnapshots,
    pub(crate) transport: Arc<dyn PeerTransport>,
    pub(crate) clock: Arc<dyn Clock>,
    /// All groups of this node share this table.
    pub(crate) heartbeats: Arc<HeartbeatTable>,
    /// A caller asked this leader to rebalance the load now.
    is_rebalance_asked: AtomicBool,
    /// Monotonic time of this process in microseconds, or [`NEVER`].
    fresh_as_of: AtomicU64,
}

impl GroupCore {
    #[allow(clippy::too_many_arguments)] // A constructor: each argument is a field, and none has a sensible default.
    pub(crate) fn new(
        id: GroupId,
        config: &StoreConfig,
        raft: Raft,
        replica: Arc<Replica>,
        log: GroupLog,
        snapshots: GroupSnapshots,
        transport: Arc<dyn PeerTransport>,
        clock: Arc<dyn Clock>,
        heartbeats: Arc<HeartbeatTable>,
    ) -> GroupCore {
        GroupCore {
            id,
            node: config.node,
            command_level: config.command_level,
            raft,
            replica,
            log,
            snapshots,
            transport,
            clock,
            heartbeats,
            is_rebalance_asked: AtomicBool::new(false),
            fresh_as_of: AtomicU64::new(NEVER),
        }
    }

    pub(crate) fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader
    }

    pub(crate) fn leader_and_term(&self) -> (Option<NodeId>, u64) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.current_leader, metrics.current_term)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raft.metrics().borrow_watched().state == ServerState::Leader
    }

    /// Every other member, including learners.
    pub(crate) fn peers(&self) -> Vec<(NodeId, PeerTarget)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let others = metrics.membership_config.nodes().filter(|(node, _)| **node != self.node);
        others.map(|(&node, at)| (node, PeerTarget { node, address: at.addr.clone(), group: self.id })).collect()
    }

    /// Whether a caller has asked this leader to rebalance the load. Resets the flag, so each request is reported
    /// once.
    pub(crate) fn take_rebalance(&self) -> bool {
        self.is_rebalance_asked.swap(false, Ordering::AcqRel)
    }

    /// The peer address of a member, from the newest membership that this node knows.
    fn target(&self, node: NodeId) -> Option<PeerTarget> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let address = metrics.membership_config.get_node(&node)?.addr.clone();
        Some(PeerTarget { node, address, group: self.id })
    }

    /// Sends the request to the leader, on whichever node that is. Retries only if the request was certainly not
    /// carried out.
    pub(crate) async fn ask_leader(&self, request: LeaderRequest) -> Result<LeaderAnswer, LeaderReply> {
        let deadline = match &request {
            LeaderRequest::ChangeMembers(_) | LeaderRequest::ChangeMembersIf { .. } => MEMBERS_DEADLINE,
            LeaderRequest::Propose { .. }
            | LeaderRequest::ReadIndex
            | LeaderRequest::Rebalance
            | LeaderRequest::MembersEntry => LEADER_DEADLINE,
        };
        let until = Instant::now() + deadline;
        let mut believed = self.leader();
        let mut obstacle = "no leader".to_owned();
        while Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let hint = match believed {
                Some(node) if node == self.node => match self.lead(&request).await {
                    LeaderReply::NotLeader(hint) => hint.filter(|hint| *hint != self.node),
                    reply => return settle(reply),
                },
                Some(node) => match self.forward(node, &request, left).await {
                    Ok(LeaderReply::NotLeader(hint)) => hint.filter(|hint| *hint != node),
                    Ok(reply) => return settle(seen_from_afar(node, reply)),
                    Err(error @ TransportError::Lost(..)) => return Err(LeaderReply::Undecided(error.to_string())),
                    Err(error) => {
                        obstacle = error.to_string();
                        None
                    }
                },
                None => None,
            };
            believed = match hint {
                Some(hint) => Some(hint),
                None => {
                    sleep(SEARCH_PAUSE.min(left)).await;
                    self.leader()
                }
            };
        }
        Err(LeaderReply::Undecided(format!("gave up after {} ms: {obstacle}", deadline.as_millis())))
    }

    async fn forward(
        &self,
        leader: NodeId,
        request: &LeaderRequest,
        deadline: Duration,
    ) -> Result<LeaderReply, TransportError> {
        let Some(target) = self.target(leader) else {
            return Err(TransportError::Unreachable(
                format!("node {leader}"),
                "this node does not know its address".to_owned(),
            ));
        };
        ask(self.transport.as_ref(), &target, PeerCall::Lead, request, deadline).await
    }

    /// Carries out the request of another node if this node leads. What that node proposes is decoded first: a frame
    /// that no build can read would look like a command of a newer build, and stop every replica at each restart.
    pub(crate) async fn lead_for_peer(&self, request: &LeaderRequest) -> LeaderReply {
        if let LeaderRequest::Propose { command, level } = request
            && *level <= self.command_level
            && let Err(error) = read_command(command, self.command_level)
        {
            tracing::error!(group = self.id.0, %error, "refused a command that cannot be read");
            return LeaderReply::Refused(format!("the command cannot be read: {error}"));
        }
        self.lead(request).await
    }

    /// Carries out the request if this node leads.
    async fn lead(&self, request: &LeaderRequest) -> LeaderReply {
        match request {
            LeaderRequest::Propose { command, level } => self.propose(command.clone(), *level).await,
            LeaderRequest::ReadIndex => self.read_index().await,
            _ if !self.is_leader() => LeaderReply::NotLeader(self.leader()),
            LeaderRequest::Rebalance => {
                self.is_rebalance_asked.store(true, Ordering::Release);
                LeaderReply::Done(LeaderAnswer::Accepted)
            }
            LeaderRequest::MembersEntry => LeaderReply::Done(LeaderAnswer::MembersEntry(self.members_seen())),
            LeaderRequest::ChangeMembers(change) => self.change_members(change, None).await,
            LeaderRequest::ChangeMembersIf { change, seen } => self.change_members(change, Some(*seen)).await,
        }
    }

    async fn propose(&self, command: Bytes, level: u16) -> LeaderReply {
        if command.len() > COMMAND_BYTES_MAX {
            return LeaderReply::Refused(format!(
                "the command has {} bytes; the limit is {COMMAND_BYTES_MAX}",
                command.len()
            ));
        }
        if level > COMMAND_LEVEL_MIN
            && self.is_leader()
            && let Some(node) = self.below_level(level)
        {
            let rejection = Rejection::NeedsUpgrade { node };
            return LeaderReply::Done(LeaderAnswer::Outcome(Outcome::Rejected(rejection)));
        }
        if is_broken(Mutant::AnsweredUncommitted) && self.is_leader() {
            let raft = self.raft.clone();
            tokio::spawn(async move { drop(raft.client_write(CommandBytes(command)).await) });
            return LeaderReply::Done(LeaderAnswer::Outcome(Outcome::Done));
        }
        match timeout(LEADER_DEADLINE, self.raft.client_write(CommandBytes(command))).await {
            Err(_) => LeaderReply::Undecided("the command was not committed within the deadline".to_owned()),
            Ok(Ok(written)) => LeaderReply::Done(LeaderAnswer::Outcome(written.data)),
            Ok(Err(error)) => write_error(error),
        }
    }

    /// A member that would stop at a command of this level, because it has not announced that it applies this level.
    fn below_level(&self, level: u16) -> Option<NodeId> {
        if is_broken(Mutant::LevelUnchecked) {
            return None;
        }
        let members = self.metrics().membership_config;
        let mut nodes = members.membership().nodes().map(|(node, _)| *node);
        self.replica.read(|state| nodes.find(|node| state.command_level(*node) < level))
    }

    async fn read_index(&self) -> LeaderReply {
        if is_broken(Mutant::LeaderReadsAlone) && self.is_leader() {
            return LeaderReply::Done(LeaderAnswer::ReadIndex(*self.replica.applied().borrow()));
        }
        match timeout(LEADER_DEADLINE, self.raft.get_read_linearizer(ReadPolicy::ReadIndex)).await {
            Err(_) => LeaderReply::Undecided("a quorum did not confirm the leader within the deadline".to_owned()),
            Ok(Ok(linearizer)) => LeaderReply::Done(LeaderAnswer::ReadIndex(linearizer.read_log_id().index())),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                LeaderReply::NotLeader(forward.leader_id)
            }
            Ok(Err(RaftError::APIError(error))) => LeaderReply::Undecided(error.to_string()),
            Ok(Err(RaftError::Fatal(fatal))) => LeaderReply::Halted(fatal.to_string()),
        }
    }

    /// Proves that this replica holds every entry committed before the call, and records the time of the call.
    ///
    /// The time is taken before the leader is asked, so the leader's answer covers every entry that was committed by
    /// then.
    pub(crate) async fn confirm_fresh(&self) -> Result<(), ProposeError> {
        let asked_at = self.clock.monotonic();
        let asked = if is_broken(Mutant::StaleRead) {
            Ok(LeaderAnswer::ReadIndex(*self.replica.applied().borrow()))
        } else {
            self.ask_leader(LeaderRequest::ReadIndex).await
        };
        let index = match asked {
            Ok(LeaderAnswer::ReadIndex(index)) => index,
            Ok(other) => return Err(ProposeError::Retry(format!("unexpected answer {other:?}"))),
            Err(reply) => return Err(propose_error(reply)),
        };
        let mut applied = self.replica.applied();
        match timeout(LEADER_DEADLINE, applied.wait_for(|applied| *applied >= index)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(ProposeError::Halt("the state machine has stopped".to_owned())),
            Err(_) => {
                return Err(ProposeError::Retry(format!(
                    "this replica did not reach index {index} within the deadline"
                )));
            }
        }
        let asked_at = u64::try_from(asked_at.as_micros()).unwrap_or(NEVER - 1);
        // Two proofs may finish out of order; the later time counts.
        let _ = self.fresh_as_of.fetch_update(Ordering::AcqRel, Ordering::Acquire, |known| {
            (known == NEVER || known < asked_at).then_some(asked_at)
        });
        Ok(())
    }

    pub(crate) fn staleness(&self) -> Option<Duration> {
        match self.fresh_as_of.load(Ordering::Acquire) {
            NEVER => None,
            micros => Some(self.clock.monotonic().saturating_sub(Duration::from_micros(micros))),
        }
    }
}

/// What the answer of another node means to this one. If that node's replica has stopped, this node's has not: the
/// others elect a leader, and only the outcome of this request is unknown.
fn seen_from_afar(node: NodeId, reply: LeaderReply) -> LeaderReply {
    match reply {
        LeaderReply::Halted(reason) => {
            LeaderReply::Undecided(format!("the replica of node {node}, the leader, has stopped: {reason}"))
        }
        reply => reply,
    }
}

fn settle(reply: LeaderReply) -> Result<LeaderAnswer, LeaderReply> {
    match reply {
        LeaderReply::Done(answer) => Ok(answer),
        reply => Err(reply),
    }
}

pub(super) fn write_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> LeaderReply {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => LeaderReply::NotLeader(forward.leader_id),
        // Another leader may have committed the entry. Only the fences of the command can tell.
        RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_)) => {
            LeaderReply::Undecided(error.to_string())
        }
        RaftError::APIError(error) => LeaderReply::Refused(error.to_string()),
        RaftError::Fatal(fatal) => LeaderReply::Halted(fatal.to_string()),
    }
}

pub(crate) fn propose_error(reply: LeaderReply) -> ProposeError {
    match reply {
        LeaderReply::Halted(reason) => ProposeError::Halt(reason),
        LeaderReply::Undecided(reason) | LeaderReply::Refused(reason) => ProposeError::Retry(reason),
        LeaderReply::NotLeader(_) => ProposeError::Retry("no leader".to_owned()),
        LeaderReply::Done(answer) => ProposeError::Retry(format!("unexpected answer {answer:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader that is being stopped answers so. A shard elsewhere that took the answer for its own end would stay
    /// uncounted until an operator acts.
    #[test]
    fn a_stopped_leader_does_not_stop_the_replica_that_asked_it() {
        let seen = seen_from_afar(2, LeaderReply::Halted("raft stopped".to_owned()));
        assert!(matches!(propose_error(seen), ProposeError::Retry(_)));
        let own = LeaderReply::Halted("raft stopped".to_owned());
        assert!(matches!(propose_error(own), ProposeError::Halt(_)));
    }
}
