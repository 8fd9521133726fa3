//! The person who replaces a node whose disk is damaged, by the book: remove it from the cluster, give it an empty disk, start it, add
//! it back. What a client can do is done from any host that is up; the rest is the driver's.

use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::command::Command;
use clicktally_proto::ids::NodeId;
use clicktally_raft_store::group::Group;

use super::network::address;
use super::world::World;

const PAUSE: Duration = Duration::from_millis(400);
/// After that somebody else may try.
const PATIENCE: Duration = Duration::from_secs(6);

/// How far a replacement has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    /// Down, and a member still.
    Leaving,
    /// No member any more: its disk may be taken away.
    Gone,
    /// Started with an empty disk, to be added.
    Returning,
}

/// For as long as the host's node lives.
pub(super) async fn run(world: Arc<World>, host: NodeId, group: Group) {
    loop {
        tokio::time::sleep(PAUSE).await;
        for (node, step) in world.replacements() {
            // One hand at a time: of the hosts that are up, the first that is not replaced itself.
            let hand = world.nodes.iter().find(|other| **other != node && world.is_up(**other));
            if hand != Some(&host) {
                continue;
            }
            let done = match step {
                Replacement::Leaving => tokio::time::timeout(PATIENCE, remove(&group, node)).await.unwrap_or(false),
                Replacement::Returning => tokio::time::timeout(PATIENCE, add(&group, node)).await.unwrap_or(false),
                Replacement::Gone => false,
            };
            if done {
                world.replaced(node, step);
            }
        }
    }
}

async fn remove(group: &Group, node: NodeId) -> bool {
    let is_member = || {
        let status = group.status();
        status.voters.contains_key(&node) || status.learners.contains_key(&node)
    };
    (!is_member() || group.remove_member(node).await.is_ok()) && group.propose(&Command::RemoveNode(node)).await.is_ok()
}

async fn add(group: &Group, node: NodeId) -> bool {
    group.add_member(node, &address(node)).await.is_ok()
}
