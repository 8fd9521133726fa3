//! The hosts of a simulated cluster. Each has its own runtime, whose clock moves only when the driver moves it. All run
//! on one thread, one after the other, in an order drawn anew for each tick.
//!
//! A frozen host does not run, like a frozen process (SIGSTOP, a virtual machine in migration, a swap storm): time
//! passes, and datagrams pile up. When it runs again its clock has jumped, and every timer that was due fires at once.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::identity::ids::NodeId;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tokio::time::{Instant, advance, sleep};

use super::world::World;
use crate::simulation::random::Stream;

/// One step of the driver. Messages are delivered, timers fire and checks run once in each step. It is as fine as
/// tokio's timers.
pub(super) const TICK: Duration = Duration::from_millis(1);

pub(super) struct Hosts {
    world: Arc<World>,
    random: Stream,
    running: BTreeMap<NodeId, HostRuntime>,
    frozen: BTreeSet<NodeId>,
}

/// The runtime of one process's life.
struct HostRuntime {
    // In the order in which they must be dropped: tasks of the set use the runtime.
    tasks: LocalSet,
    runtime: Runtime,
    /// How far it has run, in simulated time.
    at: Duration,
}

impl Hosts {
    pub(super) fn new(world: Arc<World>, random: Stream) -> Hosts {
        Hosts { world, random, running: BTreeMap::new(), frozen: BTreeSet::new() }
    }

    /// `life` begins with the next tick, unless another life is running there.
    ///
    /// # Panics
    /// If the machine cannot create a runtime.
    pub(super) fn start(&mut self, node: NodeId, life: impl Future<Output = ()> + 'static) {
        if self.running.contains_key(&node) {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O");
        // tokio's timers are whole milliseconds from an arbitrary start. From here on they agree with the ticks.
        runtime.block_on(async { sleep(TICK).await });
        let tasks = LocalSet::new();
        tasks.spawn_local(life);
        self.running.insert(node, HostRuntime { tasks, runtime, at: self.world.elapsed() });
    }

    /// The process there ends at once.
    pub(super) fn end(&mut self, node: NodeId) {
        self.frozen.remove(&node);
        self.running.remove(&node);
    }

    pub(super) fn freeze(&mut self, node: NodeId) {
        self.frozen.insert(node);
    }

    pub(super) fn thaw(&mut self, node: NodeId) {
        self.frozen.remove(&node);
    }

    /// Advances simulated time by [`TICK`].
    pub(super) fn tick(&mut self) {
        let now = self.world.elapsed();
        self.world.wire.lock().deliver(now);
        let mut waiting: Vec<NodeId> = self.running.keys().copied().collect();
        while !waiting.is_empty() {
            let next = usize::try_from(self.random.below(waiting.len() as u64)).unwrap_or(0);
            let node = waiting.swap_remove(next);
            if let Some(host) = self.running.get_mut(&node).filter(|_| !self.frozen.contains(&node)) {
                host.run(&self.world, node, now);
            }
        }
        self.world.driver_is_at(now + TICK);
    }
}

impl HostRuntime {
    fn run(&mut self, world: &World, node: NodeId, now: Duration) {
        let (was_at, missed) = (self.at, now.saturating_sub(self.at));
        self.runtime.block_on(self.tasks.run_until(async {
            world.enter(node, was_at, Instant::now());
            if !missed.is_zero() {
                advance(missed).await;
            }
            sleep(TICK).await;
        }));
        world.leave();
        self.at = now + TICK;
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::simulation::edition::Story;
    use crate::simulation::nodes::shape::Shape;
    use crate::simulation::random::Seed;

    #[test]
    fn a_frozen_host_does_nothing_and_its_time_passes() {
        let world = Arc::new(World::new(Seed(1), Shape::draw(Story::newest(1))));
        let mut hosts = Hosts::new(Arc::clone(&world), Seed(1).stream("hosts"));
        let woken: Arc<Mutex<Vec<(NodeId, u128)>>> = Arc::default();
        for node in [1, 2] {
            let (world, woken) = (Arc::clone(&world), Arc::clone(&woken));
            hosts.start(node, async move {
                loop {
                    sleep(10 * TICK).await;
                    // Also outside the set, as openraft's tasks are.
                    let (world, woken) = (Arc::clone(&world), Arc::clone(&woken));
                    tokio::spawn(async move { woken.lock().push((node, world.elapsed().as_millis())) });
                }
            });
        }
        (0..25).for_each(|_| hosts.tick());
        hosts.freeze(1);
        (0..100).for_each(|_| hosts.tick());
        hosts.thaw(1);
        (0..20).for_each(|_| hosts.tick());
        let of = |node| woken.lock().iter().filter(|(at, _)| *at == node).map(|(_, ms)| *ms).collect::<Vec<_>>();
        assert_eq!(of(2), (1..=14).map(|n| 10 * n).collect::<Vec<_>>());
        let [before @ .., late, next] = &of(1)[..] else { panic!("{:?}", of(1)) };
        assert_eq!(before, [10, 20]);
        assert!((125..=126).contains(late) && (135..=136).contains(next), "{late} {next}");
    }
}
