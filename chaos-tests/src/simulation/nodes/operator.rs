//! The operator, who changes the membership by the book. The operator replaces a node that refuses to start, takes a
//! healthy one out under load and adds it back, and drains a node and takes that back. A client's part is done from any
//! host that has joined. The driver does what concerns hosts and disks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::command::{Command, Outcome, Rejection};
use clicktally_proto::identity::ids::NodeId;
use clicktally_raft_store::group::Group;

use super::network::address;
use super::world::World;

const PAUSE: Duration = Duration::from_millis(400);
/// After this, another host may try.
const PATIENCE: Duration = Duration::from_secs(6);

/// The next task for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chore {
    /// The node is a member, at work or refusing to start. It must leave every group.
    Leave,
    /// The node has left. The driver must start it anew.
    StartAnew,
    /// The node has started, and must be added to every group.
    Return,
    /// The node must give away its shards.
    Drain,
    /// The node is drained until the driver ends that.
    Rest,
    /// The node must take shards again.
    Undrain,
}

impl Chore {
    /// The node is not a member at the moment.
    pub(super) fn is_away(self) -> bool {
        matches!(self, Chore::Leave | Chore::StartAnew | Chore::Return)
    }

    fn next(self) -> Option<Chore> {
        match self {
            Chore::Leave => Some(Chore::StartAnew),
            Chore::StartAnew => Some(Chore::Return),
            Chore::Drain => Some(Chore::Rest),
            Chore::Rest => Some(Chore::Undrain),
            Chore::Return | Chore::Undrain => None,
        }
    }
}

/// At most one for each node.
#[derive(Debug, Default)]
pub(super) struct Chores(BTreeMap<NodeId, Chore>);

impl Chores {
    pub(super) fn set(&mut self, node: NodeId, chore: Chore) {
        self.0.insert(node, chore);
    }

    /// Marks a chore as done, unless another one has replaced it. Returns whether it was current.
    fn done(&mut self, node: NodeId, chore: Chore) -> bool {
        let is_current = self.0.get(&node) == Some(&chore);
        match chore.next() {
            _ if !is_current => {}
            Some(next) => drop(self.0.insert(node, next)),
            None => drop(self.0.remove(&node)),
        }
        is_current
    }

    pub(super) fn all(&self) -> Vec<(NodeId, Chore)> {
        self.0.iter().map(|(node, chore)| (*node, *chore)).collect()
    }

    pub(super) fn of(&self, node: NodeId) -> Option<Chore> {
        self.0.get(&node).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl World {
    pub(super) fn set_chore(&self, node: NodeId, chore: Chore) {
        self.line(format_args!("the operator: {chore:?} node {node}"));
        self.chores.lock().set(node, chore);
    }

    pub(super) fn chore_done(&self, node: NodeId, chore: Chore) {
        if self.chores.lock().done(node, chore) {
            self.line(format_args!("the operator: {chore:?} node {node} done"));
        }
    }
}

/// Runs as long as the host's node lives.
pub(super) async fn run(world: Arc<World>, host: NodeId, groups: Arc<[Group]>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let chores = world.chores.lock().all();
        for &(node, chore) in &chores {
            let is_hand = |other: &&NodeId| {
                let is_away = chores.iter().any(|(away, chore)| away == *other && chore.is_away());
                **other != node && !is_away && world.host(**other, |host| host.has_joined)
            };
            // One host does the chore at a time.
            if world.nodes.iter().find(is_hand) != Some(&host) {
                continue;
            }
            let carried_out = tokio::time::timeout(PATIENCE, carry_out(&groups, node, chore)).await;
            if carried_out.unwrap_or(false) {
                world.chore_done(node, chore);
            }
        }
    }
}

/// Returns true if it is done in every group.
async fn carry_out(groups: &[Group], node: NodeId, chore: Chore) -> bool {
    for group in groups {
        let done = match chore {
            Chore::Leave => remove(group, node).await,
            Chore::Return => group.add_member(node, &address(node)).await.is_ok(),
            Chore::Drain | Chore::Undrain => {
                let is_draining = chore == Chore::Drain;
                let drained = group.propose(&Command::SetDraining { node, is_draining }).await;
                // The command is refused in the middle of an upgrade.
                drained.is_ok_and(|outcome| !matches!(outcome, Outcome::Rejected(Rejection::NeedsUpgrade { .. })))
            }
            Chore::StartAnew | Chore::Rest => false,
        };
        if !done {
            return false;
        }
    }
    true
}

/// Its shards first, while all groups agree who it was.
async fn remove(group: &Group, node: NodeId) -> bool {
    if group.propose(&Command::RemoveNode(node)).await.is_err() {
        return false;
    }
    let status = group.status();
    let is_member = status.voters.contains_key(&node) || status.learners.contains_key(&node);
    !is_member || group.remove_member(node).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chore_that_is_done_leads_to_the_next_and_one_that_was_replaced_to_nothing() {
        let mut chores = Chores::default();
        chores.set(1, Chore::Leave);
        for chore in [Chore::Leave, Chore::StartAnew, Chore::Return] {
            assert_eq!(chores.of(1), Some(chore));
            assert!(chores.done(1, chore));
        }
        chores.set(2, Chore::Drain);
        chores.set(2, Chore::Leave);
        assert!(!chores.done(2, Chore::Drain));
        assert_eq!(chores.all(), [(2, Chore::Leave)]);
    }
}
