//! One seed from its first tick to its verdict: a start, faults, and a time in which everything must heal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::ids::NodeId;
use clicktally_proto::shard_key::{Partitioner, ShardId};

use super::entropy;
use super::faults::{Faults, HostAction};
use super::network::host_name;
use super::process::{event_time_rules, live};
use super::verdict;
use super::watch::{GROUP, Watch, breach};
use super::world::{World, millis};
use crate::checks::Violation;
use crate::simulation::click_oracle::ClickOracle;
use crate::simulation::random::Seed;
use crate::simulation::report::{self, SeedReport};
use crate::simulation::traffic::{Traffic, TrafficPlan};

/// One step of the driver: messages are delivered, timers fire, and everything is looked at this often.
const TICK: Duration = Duration::from_millis(1);
/// Traffic comes in spurts.
const TRAFFIC_EVERY_MS: u64 = 200;
/// Until all founders have joined.
const START_MS: u64 = 5_000;
const FAULTS_MS: u64 = 60_000;
/// After the last fault everything must have converged within this.
const HEALED_WITHIN_MS: u64 = 30_000;
const DATAGRAMS_QUEUED_MAX: usize = 4_096;

/// Runs one seed. Once to a process.
///
/// # Panics
/// The second time in a process.
pub fn run_seed(seed: u64) -> SeedReport {
    entropy::sow(seed);
    // A thread that has not drawn anything yet.
    let ran = std::thread::Builder::new().name("simulation".to_owned()).spawn(move || Run::new(Seed(seed)).run());
    ran.expect("a thread").join().expect("the driver does not panic")
}

struct Run {
    world: Arc<World>,
    sim: turmoil::Sim<'static>,
    traffic: Traffic,
    oracle: ClickOracle,
    watch: Watch,
    faults: Faults,
    report: SeedReport,
}

impl Run {
    fn new(seed: Seed) -> Run {
        let nodes: Vec<NodeId> = vec![1, 2, 3];
        let partitioner = Partitioner::new(1);
        let partitions = u16::try_from(partitioner.partitions()).unwrap_or(0);
        let world = World::new(seed, &nodes, partitions).install();
        let mut sim = turmoil::Builder::new()
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3_600))
            .rng_seed(seed.0)
            .min_message_latency(Duration::from_micros(100))
            .max_message_latency(Duration::from_millis(5))
            .udp_capacity(DATAGRAMS_QUEUED_MAX)
            .enable_random_order()
            .build();
        let faults = Faults::new(seed.stream("faults"), &nodes, START_MS);
        for node in nodes {
            let world = Arc::clone(&world);
            sim.host(host_name(node), move || live(Arc::clone(&world), node));
        }
        let plan = TrafficPlan::draw(seed, partitions);
        let report = SeedReport { seed: seed.0, ..SeedReport::default() };
        let rules = event_time_rules();
        Run {
            world,
            sim,
            traffic: Traffic::new(seed, plan, partitioner, rules),
            oracle: ClickOracle::new(partitioner, rules),
            watch: Watch::default(),
            faults,
            report,
        }
    }

    fn run(mut self) -> SeedReport {
        let verdict = self.live_through();
        let (hash, lines, tail) = self.world.with_trace(|trace| (trace.hash(), trace.lines(), trace.tail()));
        self.report.simulated_ms = millis(self.world.elapsed());
        (self.report.trace_hash, self.report.trace_lines) = (hash, lines);
        self.report.violation = verdict.err().map(|breach| report::Violation::of(&breach, tail));
        self.report
    }

    fn live_through(&mut self) -> Result<(), Violation> {
        self.until(START_MS)?;
        let end_ms = START_MS + FAULTS_MS;
        while millis(self.world.elapsed()) < end_ms {
            if millis(self.world.elapsed()).is_multiple_of(TRAFFIC_EVERY_MS) {
                self.click();
            }
            let actions = self.faults.tick(&self.world, &mut self.traffic, &mut self.report);
            self.act(actions);
            self.step()?;
        }
        let actions = self.faults.heal(&self.world, &mut self.traffic);
        self.act(actions);
        self.converge(end_ms + HEALED_WITHIN_MS)
    }

    fn act(&mut self, actions: Vec<HostAction>) {
        for action in actions {
            match action {
                HostAction::Crash(node) => self.sim.crash(host_name(node)),
                HostAction::Start(node) if self.sim.is_host_running(host_name(node)) => {}
                HostAction::Start(node) => self.sim.bounce(host_name(node)),
            }
        }
    }

    fn until(&mut self, ms: u64) -> Result<(), Violation> {
        while millis(self.world.elapsed()) < ms {
            let actions = self.faults.tend(&self.world, &mut self.traffic);
            self.act(actions);
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.sim.step().map_err(|error| breach("panic", error.to_string()))?;
        self.world.driver_is_at(self.sim.elapsed());
        if let Some(panic) = self.world.panic() {
            return Err(breach("panic", panic));
        }
        if let Some(violation) = self.world.violation() {
            return Err(violation);
        }
        self.watch.look(&self.world, &mut self.oracle)
    }

    /// What people click on, straight into the log.
    fn click(&mut self) {
        let now_ms = self.world.now_ms();
        let mut log = self.world.log.lock();
        for produced in self.traffic.tick(now_ms) {
            log.append(produced.shard, now_ms, produced.value);
            self.report.clicks += produced.ids.len() as u64;
            self.oracle.sent(&produced.ids, true);
        }
    }

    fn converge(&mut self, deadline_ms: u64) -> Result<(), Violation> {
        loop {
            let missing = self.missing();
            let Some(missing) = missing else { break };
            if millis(self.world.elapsed()) >= deadline_ms {
                return Err(breach("CT-14", format!("still not healed after {HEALED_WITHIN_MS} ms: {missing}")));
            }
            self.until(millis(self.world.elapsed()) + 50)?;
        }
        self.watch.compare(&self.world)?;
        let sent = self.world.weather.lock().sent;
        self.world.line(format_args!("{sent} datagrams were sent"));
        self.judge()
    }

    /// Why it has not converged yet.
    fn missing(&self) -> Option<String> {
        if let Some((node, step)) = self.world.replacements().first() {
            return Some(format!("node {node} is still being replaced: {step:?}"));
        }
        let ends: Vec<(ShardId, u64)> = {
            let log = self.world.log.lock();
            log.shards().map(|shard| (shard, log.held(shard).len() as u64)).collect()
        };
        let mut applied = BTreeMap::new();
        for &node in &self.world.nodes {
            let Some(groups) = self.world.groups(node) else { return Some(format!("node {node} is not up")) };
            let group = &groups[usize::from(GROUP.0)];
            let behind = group.read(|state| {
                let behind = ends.iter().find_map(|(shard, end)| {
                    let at = state.shard(*shard).map_or(0, |entry| entry.committed_offset);
                    (at != *end).then(|| format!("node {node}: shard {} is at {at} of {end}", shard.0))
                });
                let is_published = state.published_revision() >= state.newest_revision();
                behind.or_else(|| (!is_published).then(|| format!("node {node}: not everything is published")))
            });
            if behind.is_some() {
                return behind;
            }
            applied.insert(*group.applied().borrow(), node);
        }
        // Idle shards go on proving themselves complete, so the replicas meet from time to time only.
        (applied.len() != 1).then(|| format!("the replicas are at {applied:?}"))
    }

    fn judge(&mut self) -> Result<(), Violation> {
        let Some(groups) = self.world.groups(self.world.nodes[0]) else { return Ok(()) };
        let (world, oracle) = (&self.world, &mut self.oracle);
        groups[usize::from(GROUP.0)].read(|state| verdict::judge(world, oracle, state))
    }
}
