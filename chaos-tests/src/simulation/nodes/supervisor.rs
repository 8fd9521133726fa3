//! The supervisor of processes: restarts those that have ended, and has a node replaced that refuses to start.

use clicktally_proto::identity::ids::NodeId;
use clicktally_raft_store::APPLYING_NEWER;

use super::builds;
use super::cures::{Cure, Cures};
use super::disk::End;
use super::faults::Action;
use super::operator::Chore;
use super::world::{Ended, World};
use crate::checks::ct20_older_builds_go_on;
use crate::simulation::random::Stream;

/// A process that has ended is restarted after at most this long.
pub(super) const DOWN_MS_MAX: u64 = 4_000;
const DOWN_MS_MIN: u64 = 200;

pub(super) fn look_after(world: &World, random: &mut Stream, cures: &mut Cures, now_ms: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    // Copied first: a guard in the loop's head would be held throughout the loop.
    let chores = world.chores.lock().all();
    for (node, chore) in chores {
        if chore == Chore::StartAnew {
            start_anew(world, random, node);
            actions.push(Action::End(node));
            cures.at(now_ms, Cure::Start(node));
        }
    }
    for &node in &world.nodes {
        let Some(ended) = world.host(node, |host| host.ended.take()) else { continue };
        world.line(format_args!("node {node} is buried: {ended:?}"));
        if !matches!(ended, Ended::FailStop(_)) {
            world.end(node, End::Killed);
        }
        actions.push(Action::End(node));
        if matches!(&ended, Ended::FailStop(doing) if doing.as_str() == APPLYING_NEWER) {
            let is_away = world.chores.lock().of(node).is_some_and(Chore::is_away);
            let was_set_back = world.host(node, |host| host.build).is_set_back();
            let breach = ct20_older_builds_go_on::check(node, is_away || was_set_back);
            breach.into_iter().for_each(|violation| world.violate(violation));
            builds::upgrade(world, node);
        }
        // A damaged replica that can heal does so when the node starts again.
        if world.disk(node).is_rotten() && matches!(ended, Ended::Refused(_)) {
            world.set_chore(node, Chore::Leave);
            continue;
        }
        cures.at(now_ms + DOWN_MS_MIN + random.below(DOWN_MS_MAX), Cure::Start(node));
    }
    actions
}

/// A node that has left comes back with an empty disk or, if its disk has lost nothing, perhaps with its old content.
fn start_anew(world: &World, random: &mut Stream, node: NodeId) {
    world.end(node, End::Killed);
    world.host(node, |host| host.ended = None);
    // Its build must know everything that was committed while it was away.
    builds::upgrade(world, node);
    let is_emptied = world.disk(node).is_rotten() || random.permille(500);
    if is_emptied {
        world.disk(node).wipe();
    }
    world
        .line(format_args!("node {node} is started anew, its disk {}", if is_emptied { "empty" } else { "as it was" }));
    world.chore_done(node, Chore::StartAnew);
}
