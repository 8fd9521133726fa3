//! What all simulated hosts share and the driver holds on to: the trace, the log, the disks, the weather, and who is alive.
//!
//! One world to a process: a fail-stop knows nothing of hosts, and is asked of the process ([`World::install`]).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::ids::{CampaignId, NodeId};
use clicktally_raft_store::group::Group;
use clicktally_raft_store::{blocking, on_fail_stop};
use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};

use super::disk::{End, SimDisk};
use super::network::Weather;
use super::operator::Replacement;
use crate::checks::Violation;
use crate::simulation::random::{Seed, Stream};
use crate::simulation::sim_log::SimLog;
use crate::simulation::trace::Trace;

/// Wall time when a simulation begins: 2026-01-01T00:00:30Z, in the middle of a minute.
pub(super) const EPOCH_MS: UnixMillis = 1_767_225_630_000;

pub(super) struct World {
    pub(super) nodes: Vec<NodeId>,
    pub(super) log: Mutex<SimLog>,
    pub(super) log_weather: Mutex<LogWeather>,
    pub(super) weather: Mutex<Weather>,
    disks: BTreeMap<NodeId, SimDisk>,
    hosts: Mutex<BTreeMap<NodeId, Host>>,
    trace: Mutex<Trace>,
    /// Of the driver, for whoever asks outside of any host. Microseconds.
    driver_us: AtomicU64,
    panic: Mutex<Option<String>>,
    violation: Mutex<Option<Violation>>,
    /// The highest index any replica has ever applied: applied is committed, and committed is for ever.
    committed: AtomicU64,
    /// When it rose, in simulated time.
    rises: Mutex<VecDeque<(Duration, u64)>>,
    /// What clients were told was done.
    promised: Mutex<BTreeMap<CampaignId, i64>>,
    replacements: Mutex<BTreeMap<NodeId, Replacement>>,
    is_loud: bool,
}

/// Rises of the committed index remembered: some ten seconds of them.
const RISES_MAX: usize = 1_024;

/// How the log treats whoever asks.
pub(super) struct LogWeather {
    pub(super) random: Stream,
    /// Of a thousand questions and writes, how many end in doubt.
    pub(super) doubt_permille: u64,
    /// Milliseconds an answer takes: drawn between the two.
    pub(super) answer_ms: (u64, u64),
}

/// The log on a good day.
pub(super) const LOG_ANSWER_MS: (u64, u64) = (1, 4);

/// One host, as far as it is alive.
#[derive(Default)]
pub(super) struct Host {
    runtime: Option<Id>,
    pub(super) lives: u64,
    /// Its replicas, once they are open.
    pub(super) groups: Option<Arc<[Group]>>,
    /// The process serves peers.
    pub(super) is_up: bool,
    /// A fail-stop, or a start that was refused: why it has to be ended by the driver.
    pub(super) ended: Option<Ended>,
    pub(super) wall_offset_ms: i64,
    pub(super) drift_ppm: i64,
    /// It is to stop in order.
    pub(super) stop: Option<tokio::sync::watch::Sender<bool>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    FailStop(String),
    Refused(String),
    InOrder,
}

static WORLD: OnceLock<Arc<World>> = OnceLock::new();

/// What unwinds the tasks of a host that has ended.
struct HostEnded;

impl World {
    pub(super) fn new(seed: Seed, nodes: &[NodeId], partitions: u16) -> World {
        let disk = |&node: &NodeId| (node, SimDisk::new(node, seed.stream(&format!("disk {node}"))));
        World {
            nodes: nodes.to_vec(),
            log: Mutex::new(SimLog::new(partitions)),
            log_weather: Mutex::new(LogWeather {
                random: seed.stream("log"),
                doubt_permille: 0,
                answer_ms: LOG_ANSWER_MS,
            }),
            weather: Mutex::new(Weather::new(seed.stream("network"))),
            disks: nodes.iter().map(disk).collect(),
            hosts: Mutex::new(nodes.iter().map(|node| (*node, Host::default())).collect()),
            trace: Mutex::default(),
            driver_us: AtomicU64::new(0),
            panic: Mutex::new(None),
            violation: Mutex::new(None),
            committed: AtomicU64::new(0),
            rises: Mutex::default(),
            promised: Mutex::default(),
            replacements: Mutex::default(),
            is_loud: std::env::var_os("CLICKTALLY_SIM_TRACE").is_some(),
        }
    }

    /// Makes it the world of this process: one thread, and fail-stops that end a host and not the process.
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
        turmoil::sim_elapsed().unwrap_or_else(|| Duration::from_micros(self.driver_us.load(Ordering::Relaxed)))
    }

    pub(super) fn driver_is_at(&self, elapsed: Duration) {
        self.driver_us.store(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The true wall time, which no host knows; the log's own clock goes by it.
    pub(super) fn now_ms(&self) -> UnixMillis {
        EPOCH_MS + millis(self.elapsed())
    }

    pub(super) fn line(&self, what: fmt::Arguments<'_>) {
        let at_ms = millis(self.elapsed());
        if self.is_loud {
            #[allow(clippy::print_stderr)] // Asked for.
            {
                eprintln!("{at_ms:>8} {what}");
            }
        }
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

    /// A life begins, in the host's runtime.
    pub(super) fn begin(&self, node: NodeId) -> u64 {
        let runtime = Handle::current().id();
        self.host(node, |host| {
            host.runtime = Some(runtime);
            host.ended = None;
            host.lives += 1;
            host.lives
        })
    }

    /// A life ends; its disk keeps what `end` leaves.
    pub(super) fn end(&self, node: NodeId, end: End) {
        self.disk(node).detach(end);
        self.host(node, |host| {
            (host.runtime, host.groups, host.is_up, host.stop) = (None, None, false, None);
        });
    }

    /// The host that runs now.
    fn current(&self) -> Option<NodeId> {
        let runtime = Handle::try_current().ok()?.id();
        self.hosts.lock().iter().find(|(_, host)| host.runtime == Some(runtime)).map(|(node, _)| *node)
    }

    /// Ends the host that runs now, at once: whatever its other tasks do until the driver buries it reaches neither disk nor network.
    fn fail_stop(&self, doing: &str) -> ! {
        if let Some(node) = self.current() {
            self.line(format_args!("node {node} stops at once: {doing}"));
            self.end(node, End::Killed);
            self.host(node, |host| host.ended = Some(Ended::FailStop(doing.to_owned())));
        }
        std::panic::resume_unwind(Box::new(HostEnded))
    }

    /// A client has found what must not be.
    pub(super) fn violate(&self, violation: Violation) {
        self.violation.lock().get_or_insert(violation);
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.violation.lock().clone()
    }

    pub(super) fn replacements(&self) -> Vec<(NodeId, Replacement)> {
        self.replacements.lock().iter().map(|(node, step)| (*node, *step)).collect()
    }

    pub(super) fn replace(&self, node: NodeId, step: Replacement) {
        self.line(format_args!("node {node} is replaced: {step:?}"));
        self.replacements.lock().insert(node, step);
    }

    /// A step was carried out.
    pub(super) fn replaced(&self, node: NodeId, step: Replacement) {
        self.line(format_args!("node {node} is replaced: {step:?} done"));
        match step {
            Replacement::Leaving => drop(self.replacements.lock().insert(node, Replacement::Gone)),
            Replacement::Gone => drop(self.replacements.lock().insert(node, Replacement::Returning)),
            Replacement::Returning => drop(self.replacements.lock().remove(&node)),
        }
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    pub(super) fn note_committed(&self, index: u64) {
        if self.committed.fetch_max(index, Ordering::Relaxed) >= index {
            return;
        }
        let mut rises = self.rises.lock();
        if rises.len() == RISES_MAX {
            rises.pop_front();
        }
        rises.push_back((self.elapsed(), index));
    }

    /// The highest index that was applied anywhere at that time; 0 if that is too long ago to say.
    pub(super) fn committed_at(&self, elapsed: Duration) -> u64 {
        self.rises.lock().iter().rev().find(|(at, _)| *at <= elapsed).map_or(0, |(_, index)| *index)
    }

    pub(super) fn promised(&self) -> Vec<(CampaignId, i64)> {
        self.promised.lock().iter().map(|(campaign, budget)| (*campaign, *budget)).collect()
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
