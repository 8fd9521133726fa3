//! The world that all simulated hosts share and the driver holds: the trace, the log, the disks, the wires, and the
//! living hosts.
//!
//! A process has one world: a fail-stop does not know its host, so the process must ([`World::install`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::{CampaignId, NodeId};
use clicktally_proto::identity::log_id::LogId;
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::{blocking, on_fail_stop};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::builds::Build;
use super::committed::Committed;
use super::database::SimDatabase;
use super::disk::{End, SimDisk};
use super::operator::Chores;
use super::shape::Shape;
use super::wire::Wire;
use crate::checks::Violation;
use crate::simulation::random::{Seed, Stream};
use crate::simulation::sim_log::{Fate, SimLog};
use crate::simulation::trace::Trace;

/// Wall time when a simulation begins: 2026-01-01T00:00:30Z, in the middle of a minute.
pub(super) const EPOCH_MS: UnixMillis = 1_767_225_630_000;

pub(super) struct World {
    pub(super) shape: Shape,
    pub(super) nodes: Vec<NodeId>,
    pub(super) log: Mutex<SimLog>,
    pub(super) log_weather: Mutex<LogWeather>,
    pub(super) wire: Mutex<Wire>,
    /// Empty in the stories of earlier editions, whose groups do not name their log.
    pub(super) log_id: OnceLock<LogId>,
    pub(super) database: Mutex<SimDatabase>,
    disks: BTreeMap<NodeId, SimDisk>,
    hosts: Mutex<BTreeMap<NodeId, Host>>,
    trace: Mutex<Trace>,
    clock: Mutex<SimClock>,
    panic: Mutex<Option<String>>,
    violation: Mutex<Option<Violation>>,
    committed: Mutex<Committed>,
    /// What clients were told was done: the budget of each campaign.
    promised: Mutex<BTreeMap<CampaignId, i64>>,
    pub(super) chores: Mutex<Chores>,
}

/// Simulated time: the driver's and, while a host runs, the time passed on that host's clock.
#[derive(Default)]
struct SimClock {
    driver: Duration,
    host: Option<RunningHost>,
}

struct RunningHost {
    node: NodeId,
    /// In simulated time, and on the host's own clock.
    began: (Duration, Instant),
}

/// How the log treats its callers.
pub(super) struct LogWeather {
    pub(super) random: Stream,
    /// How long answers about the log's time take.
    pub(super) time_random: Stream,
    /// This many of a thousand questions and writes end in doubt.
    pub(super) doubt_permille: u64,
    /// How many milliseconds an answer takes: drawn from this range.
    pub(super) answer_ms: (u64, u64),
    /// The outcome of the next write, regardless of the chances.
    pub(super) next_write: Option<Fate>,
}

/// An undisturbed log.
pub(super) const LOG_ANSWER_MS: (u64, u64) = (1, 4);

/// The state of one host.
#[derive(Default)]
pub(super) struct Host {
    /// The process runs: its life has begun and not ended.
    is_alive: bool,
    pub(super) lives: u64,
    /// The build that it starts with.
    pub(super) build: Build,
    /// Its replicas, once they are open.
    pub(super) groups: Option<Arc<[Group]>>,
    /// The process serves peers.
    pub(super) is_up: bool,
    /// The node has joined, and can do an operator's work.
    pub(super) has_joined: bool,
    /// A fail-stop or a refused start: why the driver must end it.
    pub(super) ended: Option<Ended>,
    pub(super) wall_offset_ms: i64,
    pub(super) drift_ppm: i64,
    /// Tells it to stop in order.
    pub(super) stop: Option<tokio::sync::watch::Sender<bool>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    FailStop(String),
    Refused(String),
    InOrder,
}

static WORLD: OnceLock<Arc<World>> = OnceLock::new();

/// The payload that unwinds the tasks of a host that has ended.
struct HostEnded;

impl World {
    pub(super) fn new(seed: Seed, shape: Shape) -> World {
        let nodes: Vec<NodeId> = shape.nodes().collect();
        let partitions = u16::try_from(shape.partitioner().partitions()).unwrap_or(0);
        let disk = |&node: &NodeId| (node, SimDisk::new(node, seed.stream(&format!("disk {node}"))));
        World {
            shape,
            log: Mutex::new(SimLog::new(partitions)),
            log_weather: Mutex::new(LogWeather {
                random: seed.stream("log"),
                time_random: seed.stream("time of the log"),
                doubt_permille: 0,
                answer_ms: LOG_ANSWER_MS,
                next_write: None,
            }),
            wire: Mutex::new(Wire::new(seed.stream("network"))),
            log_id: OnceLock::new(),
            database: Mutex::new(SimDatabase::new(seed.stream("database"))),
            disks: nodes.iter().map(disk).collect(),
            hosts: Mutex::new(nodes.iter().map(|node| (*node, Host::default())).collect()),
            nodes,
            trace: Mutex::default(),
            clock: Mutex::default(),
            panic: Mutex::new(None),
            violation: Mutex::new(None),
            committed: Mutex::default(),
            promised: Mutex::default(),
            chores: Mutex::default(),
        }
    }

    /// Makes it the world of this process: one thread, and fail-stops that end a host instead of the process.
    ///
    /// # Panics
    /// The second time.
    pub(super) fn install(self) -> Arc<World> {
        let world = Arc::new(self);
        assert!(WORLD.set(Arc::clone(&world)).is_ok(), "one simulation to a process");
        blocking::run_inline();
        on_fail_stop(|doing| match WORLD.get() {
            Some(world) => world.fail_stop(doing),
            None => std::process::abort(),
        });
        std::panic::set_hook(Box::new(|panic| {
            if let Some(world) = WORLD.get() {
                world.panic.lock().get_or_insert_with(|| panic.to_string());
            }
        }));
        world
    }

    /// Simulated time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        let clock = self.clock.lock();
        clock.host.as_ref().map_or(clock.driver, |RunningHost { began: (began, then), .. }| *began + then.elapsed())
    }

    pub(super) fn driver_is_at(&self, elapsed: Duration) {
        self.clock.lock().driver = elapsed;
    }

    /// A host runs from here on, whose own clock is at `then`.
    pub(super) fn enter(&self, node: NodeId, began: Duration, then: Instant) {
        self.clock.lock().host = Some(RunningHost { node, began: (began, then) });
    }

    pub(super) fn leave(&self) {
        self.clock.lock().host = None;
    }

    /// The true wall time, which no host knows. The log's own clock follows it.
    pub(super) fn now_ms(&self) -> UnixMillis {
        EPOCH_MS + millis(self.elapsed())
    }

    pub(super) fn line(&self, what: fmt::Arguments<'_>) {
        let at_ms = millis(self.elapsed());
        self.trace.lock().line(at_ms, what);
    }

    pub(super) fn with_trace<R>(&self, look: impl FnOnce(&Trace) -> R) -> R {
        look(&self.trace.lock())
    }

    pub(super) fn disk(&self, node: NodeId) -> &SimDisk {
        &self.disks[&node]
    }

    pub(super) fn host<R>(&self, node: NodeId, look: impl FnOnce(&mut Host) -> R) -> R {
        look(self.hosts.lock().entry(node).or_default())
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.host(node, |host| host.is_up)
    }

    pub(super) fn groups(&self, node: NodeId) -> Option<Arc<[Group]>> {
        self.host(node, |host| host.groups.clone())
    }

    /// Begins a life. Returns its number.
    pub(super) fn begin(&self, node: NodeId) -> u64 {
        self.host(node, |host| {
            host.is_alive = true;
            host.ended = None;
            host.lives += 1;
            host.lives
        })
    }

    /// Ends a life. Its disk keeps what `end` leaves.
    pub(super) fn end(&self, node: NodeId, end: End) {
        self.disk(node).detach(end);
        self.database.lock().node_ended(node);
        self.host(node, |host| {
            (host.is_alive, host.is_up, host.has_joined) = (false, false, false);
            (host.groups, host.stop) = (None, None);
        });
    }

    /// The host that runs now, unless its life has ended.
    fn current(&self) -> Option<NodeId> {
        let node = self.clock.lock().host.as_ref()?.node;
        self.host(node, |host| host.is_alive).then_some(node)
    }

    /// Ends the host that runs now, at once. Its other tasks may run until the driver removes it, but they reach
    /// neither disk nor network.
    fn fail_stop(&self, doing: &str) -> ! {
        if let Some(node) = self.current() {
            self.line(format_args!("node {node} stops at once: {doing}"));
            self.end(node, End::Killed);
            self.host(node, |host| host.ended = Some(Ended::FailStop(doing.to_owned())));
        }
        std::panic::resume_unwind(Box::new(HostEnded))
    }

    /// The acknowledgements of a node that a leader of the group remembers: that leader's term, and the last index. Of
    /// several leaders, the latest.
    pub(super) fn remembered(&self, node: NodeId, group: GroupId) -> Option<(u64, u64)> {
        let others = self.nodes.iter().filter(|other| **other != node && self.is_up(**other));
        let groups = others.filter_map(|other| self.groups(*other));
        let leaders = groups.map(|groups| groups[usize::from(group.0)].clone()).filter(Group::is_leader);
        let remembered = |leader: Group| {
            let acknowledged = leader.status().acknowledged.get(&node).copied().flatten()?;
            Some((leader.leader_and_term().1, acknowledged))
        };
        leaders.filter_map(remembered).max()
    }

    /// Records a violation that a client has found.
    pub(super) fn violate(&self, violation: Violation) {
        self.violation.lock().get_or_insert(violation);
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.violation.lock().clone()
    }

    pub(super) fn committed(&self, group: GroupId) -> u64 {
        self.committed.lock().index(group)
    }

    pub(super) fn note_committed(&self, group: GroupId, index: u64) {
        let elapsed = self.elapsed();
        self.committed.lock().note(group, elapsed, index);
    }

    pub(super) fn committed_at(&self, group: GroupId, elapsed: Duration) -> u64 {
        self.committed.lock().index_at(group, elapsed)
    }

    /// What clients of a group were told was done.
    pub(super) fn promised(&self, group: GroupId) -> Vec<(CampaignId, i64)> {
        let partitioner = self.shape.partitioner();
        let promised = self.promised.lock();
        let of_group = promised.iter().filter(|(campaign, _)| partitioner.group(**campaign) == group);
        of_group.map(|(campaign, budget)| (*campaign, *budget)).collect()
    }

    pub(super) fn promise(&self, campaign: CampaignId, budget: i64) {
        let mut promised = self.promised.lock();
        let known = promised.entry(campaign).or_insert(budget);
        *known = budget.max(*known);
    }

    pub(super) fn panic(&self) -> Option<String> {
        self.panic.lock().clone()
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
