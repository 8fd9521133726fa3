//! One story from its first tick to its verdict: a start, faults, and a time in which everything must heal.

use std::collections::BTreeMap;
use std::sync::Arc;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};

use super::builds::Builds;
use super::entropy;
use super::faults::{Action, Faults};
use super::hosts::Hosts;
use super::process::{event_time_rules, live};
use super::shape::Shape;
use super::verdict;
use super::watch::{Watch, breach};
use super::world::{World, millis};
use crate::checks::Invariant;
use crate::simulation::click_oracle::ClickOracle;
use crate::simulation::edition::{Edition, Story};
use crate::simulation::report::{Breach, Finding, SeedReport};
use crate::simulation::traffic::{Traffic, TrafficPlan};
use crate::simulation::transactions::Transactions;

/// Traffic comes in bursts.
const TRAFFIC_EVERY_MS: u64 = 200;
/// All founders have joined by then.
const START_MS: u64 = 5_000;
const FAULTS_MS: u64 = 60_000;
/// After the last fault everything must have converged within this.
const HEALED_WITHIN_MS: u64 = 30_000;

/// Runs one story, once in a process.
///
/// # Panics
/// The second time in a process.
pub fn run_story(story: Story) -> SeedReport {
    entropy::sow(story.seed.0);
    // In a new thread, which has not drawn anything yet.
    let ran = std::thread::Builder::new().name("simulation".to_owned()).spawn(move || Run::new(story).run());
    ran.expect("a thread").join().expect("the driver does not panic")
}

struct Run {
    world: Arc<World>,
    hosts: Hosts,
    traffic: Traffic,
    transactions: Transactions,
    oracle: ClickOracle,
    watch: Watch,
    faults: Faults,
    report: SeedReport,
}

impl Run {
    fn new(story: Story) -> Run {
        let seed = story.seed;
        let shape = Shape::draw(story);
        let partitioner = shape.partitioner();
        let world = World::new(seed, shape).install();
        if story.edition >= Edition::LOG_IDENTITY {
            let id = world.log.lock().id();
            world.log_id.get_or_init(|| id);
        }
        world.line(format_args!("{shape}"));
        let builds = Builds::new(story, &world, START_MS);
        let hosts = Hosts::new(Arc::clone(&world), seed.stream("hosts"));
        let faults = Faults::new(seed.stream("faults"), builds, &world, START_MS);
        let plan = TrafficPlan::draw(seed, u16::try_from(partitioner.partitions()).unwrap_or(0));
        let report =
            SeedReport { seed: seed.0, edition: story.edition, shape: shape.to_string(), ..SeedReport::default() };
        let rules = event_time_rules();
        let mut run = Run {
            world,
            hosts,
            traffic: Traffic::new(story, plan, partitioner, rules),
            transactions: Transactions::draw(story),
            oracle: ClickOracle::new(partitioner, rules),
            watch: Watch::default(),
            faults,
            report,
        };
        shape.nodes().for_each(|node| run.start(node));
        run
    }

    fn start(&mut self, node: NodeId) {
        self.report.levels.insert(self.world.host(node, |host| host.build).command_level());
        self.hosts.start(node, live(Arc::clone(&self.world), node));
    }

    fn run(mut self) -> SeedReport {
        let verdict = self.live_through();
        let (hash, lines, tail) = self.world.with_trace(|trace| (trace.hash(), trace.lines(), trace.tail()));
        self.report.simulated_ms = millis(self.world.elapsed());
        (self.report.trace_hash, self.report.trace_lines) = (hash, lines);
        self.report.violation = verdict.err().map(|breach| Finding::of(breach, tail));
        self.report
    }

    fn live_through(&mut self) -> Result<(), Breach> {
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

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::End(node) => self.hosts.end(node),
                Action::Start(node) => self.start(node),
                Action::Freeze(node) => self.hosts.freeze(node),
                Action::Thaw(node) => self.hosts.thaw(node),
                Action::Truncate(shard, end) => {
                    let mut log = self.world.log.lock();
                    // Records that existed once must still be counted.
                    self.oracle.read_on(&log, shard);
                    log.truncate(shard, end);
                }
            }
        }
    }

    fn until(&mut self, ms: u64) -> Result<(), Breach> {
        while millis(self.world.elapsed()) < ms {
            let actions = self.faults.tend(&self.world, &mut self.traffic);
            self.act(actions);
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Breach> {
        self.hosts.tick();
        if let Some(panic) = self.world.panic() {
            return Err(Breach::Panic(panic));
        }
        if let Some(violation) = self.world.violation() {
            return Err(violation.into());
        }
        Ok(self.watch.look(&self.world, &mut self.oracle)?)
    }

    /// Writes clicks straight into the log.
    fn click(&mut self) {
        let now_ms = self.world.now_ms();
        let mut log = self.world.log.lock();
        for produced in self.traffic.tick(now_ms) {
            // Producers avoid a partition that has lost records until its operator lets them back.
            if log.truncated_from(produced.shard).is_some() {
                continue;
            }
            log.append(produced.shard, now_ms, produced.value);
            self.report.clicks += produced.ids.len() as u64;
            self.oracle.sent(&produced.ids, true);
            if let Some(aborted) = self.transactions.end(now_ms, produced.shard) {
                self.report.fault(if aborted.is_empty() { "transaction committed" } else { "transaction aborted" });
                log.end_transaction(produced.shard, now_ms, aborted);
            }
        }
    }

    fn converge(&mut self, deadline_ms: u64) -> Result<(), Breach> {
        loop {
            let missing = self.missing();
            let Some(missing) = missing else { break };
            if millis(self.world.elapsed()) >= deadline_ms {
                let detail = format!("still not healed after {HEALED_WITHIN_MS} ms: {missing}");
                return Err(breach(Invariant::Liveness, detail).into());
            }
            self.until(millis(self.world.elapsed()) + 50)?;
        }
        self.watch.compare(&self.world)?;
        let sent = self.world.wire.lock().sent;
        self.world.line(format_args!("{sent} datagrams were sent"));
        self.judge()
    }

    /// Why the cluster has not converged yet.
    fn missing(&self) -> Option<String> {
        if let Some((node, chore)) = self.world.chores.lock().all().first() {
            return Some(format!("the operator is not done with node {node}: {chore:?}"));
        }
        let ends: Vec<(ShardId, u64)> = {
            let log = self.world.log.lock();
            let whole = log.shards().filter(|shard| log.truncated_from(*shard).is_none());
            whole.map(|shard| (shard, log.held(shard).len() as u64)).collect()
        };
        let mut applied: BTreeMap<GroupId, BTreeMap<u64, NodeId>> = BTreeMap::new();
        for &node in &self.world.nodes {
            let Some(groups) = self.world.groups(node) else { return Some(format!("node {node} is not up")) };
            for group in groups.iter() {
                let id = group.id();
                let behind = group.read(|state| {
                    let behind = ends.iter().filter(|(shard, _)| shard.group() == id).find_map(|(shard, end)| {
                        let at = state.shard(*shard).map_or(0, |entry| entry.committed_offset);
                        (at != *end).then(|| format!("node {node}: shard {} is at {at} of {end}", shard.0))
                    });
                    let is_published = state.published_revision() >= state.newest_revision();
                    behind.or_else(|| (!is_published).then(|| format!("node {node}: not everything is published")))
                });
                if behind.is_some() {
                    return behind;
                }
                applied.entry(id).or_default().insert(*group.applied().borrow(), node);
            }
        }
        if let Some(unread) = self.unwritten() {
            return Some(unread);
        }
        // Idle shards keep proving themselves complete, so the replicas are only sometimes at the same index.
        applied.values().any(|applied| applied.len() != 1).then(|| format!("the replicas are at {applied:?}"))
    }

    /// An outbound partition that is not fully in the tables yet.
    fn unwritten(&self) -> Option<String> {
        let (log, database) = (self.world.log.lock(), self.world.database.lock());
        log.outbound_ends().find_map(|(at, end)| {
            let read = database.tables().progress.get(&at).copied().unwrap_or(0);
            (read != end).then(|| format!("the tables hold {}/{} up to {read} of {end}", at.0, at.1))
        })
    }

    fn judge(&mut self) -> Result<(), Breach> {
        let Some(groups) = self.world.groups(self.world.nodes[0]) else { return Ok(()) };
        Ok(verdict::judge(&self.world, &mut self.oracle, &groups)?)
    }
}
