//! The leader's part of a change of members.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_proto::identity::ids::NodeId;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::{BasicNode, ChangeMembers};
use tokio::time::timeout;

use crate::group::group_core::{GroupCore, LEADER_DEADLINE, MEMBERS_DEADLINE, write_error};
use crate::peers::messages::{LeaderAnswer, LeaderReply, MemberChange, MembersSeen};
use crate::type_config::{LogId, TypeConfig};

type Changed = Result<LogId, LeaderReply>;

impl GroupCore {
    pub(super) fn members_seen(&self) -> MembersSeen {
        MembersSeen(*self.raft.metrics().borrow_watched().membership_config.log_id())
    }

    /// Changes the members. With `seen`, only if they are still those of that entry.
    pub(super) async fn change_members(&self, change: &MemberChange, seen: Option<MembersSeen>) -> LeaderReply {
        if !self.is_leader() {
            return LeaderReply::NotLeader(self.leader());
        }
        let changed = async {
            match change {
                MemberChange::Add { node, address } => self.add(*node, address, seen).await,
                MemberChange::Remove { node } => self.remove(*node, seen).await,
                MemberChange::TransferLeader { to } => return self.transfer_leader(*to).await,
            }
            .map_or_else(|reply| reply, |_| LeaderReply::Done(LeaderAnswer::Accepted))
        };
        match timeout(MEMBERS_DEADLINE, changed).await {
            Ok(reply) => reply,
            Err(_) => LeaderReply::Undecided("the members did not change within the deadline".to_owned()),
        }
    }

    /// The node joins as a learner first, so that no majority waits for a member that has no entries yet.
    async fn add(&self, node: NodeId, address: &str, seen: Option<MembersSeen>) -> Changed {
        let learner = ChangeMembers::AddNodes(BTreeMap::from([(node, BasicNode::new(address))]));
        let joined = self.change_if(learner, true, seen).await?;
        self.learner_caught_up(node, joined).await?;
        let voter = ChangeMembers::AddVoterIds(BTreeSet::from([node]));
        self.change_if(voter, true, Some(MembersSeen(Some(joined)))).await
    }

    async fn remove(&self, node: NodeId, seen: Option<MembersSeen>) -> Changed {
        let is_voter = self.raft.voter_ids().any(|voter| voter == node);
        let nodes = BTreeSet::from([node]);
        let change = if is_voter { ChangeMembers::RemoveVoters(nodes) } else { ChangeMembers::RemoveNodes(nodes) };
        self.change_if(change, false, seen).await
    }

    async fn change_if(
        &self,
        change: ChangeMembers<NodeId, BasicNode>,
        is_retained: bool,
        seen: Option<MembersSeen>,
    ) -> Changed {
        let condition = seen.map(|seen| Precondition::LastMembershipLogId { last_membership_log_id: seen.0 });
        match self.raft.change_membership_if(change, is_retained, condition).await {
            Ok(written) => Ok(written.log_id),
            Err(RaftError::APIError(error @ ClientWriteError::PreconditionFailed(_))) => {
                Err(LeaderReply::Undecided(format!("the members have changed since the request was made: {error}")))
            }
            // The present members are not committed yet, as just after a group was founded.
            Err(RaftError::APIError(
                error @ ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)),
            )) => Err(LeaderReply::Undecided(error.to_string())),
            Err(error) => Err(write_error(error)),
        }
    }

    /// Waits until the learner is nearly up to date, or until this node cannot know any more: then the condition of
    /// the next step decides.
    async fn learner_caught_up(&self, node: NodeId, joined: LogId) -> Result<(), LeaderReply> {
        let lag_max = self.raft.config().replication_lag_threshold;
        let is_settled = |metrics: &openraft::RaftMetrics<TypeConfig>| {
            if *metrics.membership_config.log_id() < Some(joined) {
                return false;
            }
            let (Some(followers), Some(last)) = (&metrics.replication, metrics.last_log_index) else {
                return true;
            };
            let is_replaced = *metrics.membership_config.log_id() != Some(joined);
            let acknowledged = followers.get(&node).copied().flatten().map(|log_id| log_id.index);
            is_replaced || acknowledged.is_some_and(|index| last.saturating_sub(index) <= lag_max)
        };
        match self.raft.wait(None).metrics(is_settled, "a learner catches up").await {
            Ok(_) => Ok(()),
            Err(error) => Err(LeaderReply::Undecided(error.to_string())),
        }
    }

    async fn transfer_leader(&self, to: NodeId) -> LeaderReply {
        if to == self.node {
            return LeaderReply::Done(LeaderAnswer::Accepted);
        }
        if !self.raft.voter_ids().any(|voter| voter == to) {
            return LeaderReply::Refused(format!("node {to} is not a voter of group {}", self.id.0));
        }
        if let Err(fatal) = self.raft.trigger().transfer_leader(to).await {
            return LeaderReply::Halted(fatal.to_string());
        }
        match self.raft.wait(Some(LEADER_DEADLINE)).current_leader(to, "transfer of leadership").await {
            Ok(_) => LeaderReply::Done(LeaderAnswer::Accepted),
            Err(error) => LeaderReply::Undecided(error.to_string()),
        }
    }
}
