//! What goes wrong, and when: drawn from the seed, overlapping, each with its end. Only what a cluster must survive: a majority of disks
//! stays whole, and what is broken is mended before the time of healing begins.

use std::collections::BTreeMap;

use clicktally_proto::ids::NodeId;
use clicktally_proto::shard_key::ShardId;

use super::disk::{End, Rot};
use super::network::{LinkWeather, Weather};
use super::operator::Replacement;
use super::watch::GROUP;
use super::world::{Ended, LOG_ANSWER_MS, World, millis};
use crate::simulation::random::Stream;
use crate::simulation::report::SeedReport;
use crate::simulation::traffic::{Storm, Traffic};

/// Between two faults: drawn up to this.
const PAUSE_MS_MAX: u64 = 1_600;
/// A process that has ended is started again after this long at most.
const DOWN_MS_MAX: u64 = 4_000;

/// What the driver does to the hosts themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostAction {
    Crash(NodeId),
    Start(NodeId),
}

/// The end of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cure {
    Start(NodeId),
    Mend(Vec<(NodeId, NodeId)>),
    Calm(NodeId, NodeId),
    FastDisk(NodeId),
    LogAnswers,
    Leader(ShardId),
    Traffic,
}

pub(super) struct Faults {
    random: Stream,
    next_ms: u64,
    /// By when.
    cures: BTreeMap<(u64, u64), Cure>,
    numbered: u64,
    /// The one node whose disk may rot: a majority must stay whole.
    rotting: NodeId,
}

impl Faults {
    pub(super) fn new(mut random: Stream, nodes: &[NodeId], begin_ms: u64) -> Faults {
        let rotting = random.pick(nodes).copied().unwrap_or(0);
        Faults { random, next_ms: begin_ms, cures: BTreeMap::new(), numbered: 0, rotting }
    }

    /// What happens now; the hosts' part is the caller's to do.
    pub(super) fn tick(&mut self, world: &World, traffic: &mut Traffic, report: &mut SeedReport) -> Vec<HostAction> {
        let now_ms = millis(world.elapsed());
        let mut actions = self.bury(world, now_ms);
        actions.extend(self.cure(world, traffic, now_ms));
        if now_ms >= self.next_ms {
            self.next_ms = now_ms + self.random.below(PAUSE_MS_MAX);
            actions.extend(self.strike(world, traffic, report, now_ms));
        }
        actions
    }

    /// Ends everything that is wrong, at once.
    pub(super) fn heal(&mut self, world: &World, traffic: &mut Traffic) -> Vec<HostAction> {
        self.cures = std::mem::take(&mut self.cures).into_iter().map(|((_, n), cure)| ((0, n), cure)).collect();
        let mut actions = self.bury(world, 0);
        actions.extend(self.cure(world, traffic, millis(world.elapsed())));
        actions
    }

    /// While healing: whoever ends is still started again.
    pub(super) fn tend(&mut self, world: &World, traffic: &mut Traffic) -> Vec<HostAction> {
        let now_ms = millis(world.elapsed());
        let mut actions = self.bury(world, now_ms);
        actions.extend(self.cure(world, traffic, now_ms));
        actions
    }

    fn later(&mut self, at_ms: u64, cure: Cure) {
        self.numbered += 1;
        self.cures.insert((at_ms, self.numbered), cure);
    }

    /// Processes that have ended by themselves: a supervisor starts them again.
    fn bury(&mut self, world: &World, now_ms: u64) -> Vec<HostAction> {
        let mut actions = Vec::new();
        for (node, step) in world.replacements() {
            if step == Replacement::Gone {
                world.disk(node).wipe();
                world.replaced(node, step);
                self.later(now_ms, Cure::Start(node));
            }
        }
        for &node in &world.nodes {
            let Some(ended) = world.host(node, |host| host.ended.take()) else { continue };
            world.line(format_args!("node {node} is buried: {ended:?}"));
            if !matches!(ended, Ended::FailStop(_)) {
                world.end(node, End::Killed);
            }
            actions.push(HostAction::Crash(node));
            // What can be healed heals when it is started again.
            let needs_replacing = world.disk(node).is_rotten() && matches!(ended, Ended::Refused(_));
            if needs_replacing {
                world.replace(node, Replacement::Leaving);
                continue;
            }
            let down_ms = 200 + self.random.below(DOWN_MS_MAX);
            self.later(now_ms + down_ms, Cure::Start(node));
        }
        actions
    }

    fn cure(&mut self, world: &World, traffic: &mut Traffic, now_ms: u64) -> Vec<HostAction> {
        let mut actions = Vec::new();
        while let Some(due) = self.cures.first_entry().filter(|due| due.key().0 <= now_ms) {
            let cure = due.remove();
            world.line(format_args!("cure: {cure:?}"));
            match cure {
                Cure::Start(node) => actions.push(HostAction::Start(node)),
                Cure::Mend(ways) => {
                    let mut weather = world.weather.lock();
                    weather.cut.retain(|way| !ways.contains(way));
                }
                Cure::Calm(from, to) => drop(world.weather.lock().links.remove(&(from, to))),
                Cure::FastDisk(node) => world.disk(node).set_sync(None),
                Cure::LogAnswers => {
                    let mut weather = world.log_weather.lock();
                    (weather.doubt_permille, weather.answer_ms) = (0, LOG_ANSWER_MS);
                }
                Cure::Leader(shard) => world.log.lock().set_available(shard, true),
                Cure::Traffic => traffic.set_storm(Storm::None),
            }
        }
        actions
    }

    fn strike(
        &mut self,
        world: &World,
        traffic: &mut Traffic,
        report: &mut SeedReport,
        now_ms: u64,
    ) -> Vec<HostAction> {
        let node = self.random.pick(&world.nodes).copied().unwrap_or(0);
        let until_ms = now_ms + self.random.between(100, 6_000);
        let is_up = world.is_up(node);
        let kind = match self.random.below(16) {
            0..=2 if is_up => return vec![self.end(world, report, node, End::Killed, now_ms)],
            3..=4 if is_up => return vec![self.end(world, report, node, End::PowerLost, now_ms)],
            5 if is_up => {
                let told = world.host(node, |host| host.stop.take()).is_some_and(|stop| stop.send(true).is_ok());
                if told { "stop in order" } else { return Vec::new() }
            }
            6..=7 => self.cut(world, node, until_ms),
            8..=9 => self.foul(world, node, until_ms),
            10 => {
                let slow_us = self.random.between(20_000, 900_000);
                world.disk(node).set_sync(Some((slow_us / 4, slow_us)));
                self.later(until_ms, Cure::FastDisk(node));
                "slow disk"
            }
            11 if is_up => {
                world.disk(node).fail_next_sync();
                "fsync error"
            }
            12 if node == self.rotting => {
                let rots =
                    [(Rot::NewestSnapshot, "snapshot rots"), (Rot::LogMiddle, "log rots"), (Rot::Vote, "vote rots")];
                let Some((rot, kind)) = self.random.pick(&rots).copied() else { return Vec::new() };
                if world.disk(node).is_rotten() || !world.disk(node).rot(GROUP, rot) {
                    return Vec::new();
                }
                kind
            }
            13 => self.turn_clock(world, node),
            14 => self.trouble_the_log(world, until_ms),
            15 => {
                let storms = [Storm::Repeats, Storm::Late, Storm::Silence];
                traffic.set_storm(self.random.pick(&storms).copied().unwrap_or(Storm::None));
                self.later(until_ms, Cure::Traffic);
                "traffic storm"
            }
            _ => return Vec::new(),
        };
        world.line(format_args!("fault: {kind}, node {node}"));
        report.fault(kind);
        Vec::new()
    }

    fn end(&mut self, world: &World, report: &mut SeedReport, node: NodeId, end: End, now_ms: u64) -> HostAction {
        let kind = if end == End::Killed { "kill" } else { "power loss" };
        world.line(format_args!("fault: {kind}, node {node}"));
        report.fault(kind);
        world.end(node, end);
        let down_ms = self.random.between(50, DOWN_MS_MAX);
        self.later(now_ms + down_ms, Cure::Start(node));
        HostAction::Crash(node)
    }

    /// One node from the others, one way from one to another, or both.
    fn cut(&mut self, world: &World, node: NodeId, until_ms: u64) -> &'static str {
        let others: Vec<NodeId> = world.nodes.iter().copied().filter(|other| *other != node).collect();
        let other = self.random.pick(&others).copied().unwrap_or(node);
        let (ways, kind) = match self.random.below(4) {
            0 => (others.iter().flat_map(|other| [(node, *other), (*other, node)]).collect(), "isolation"),
            1 => (others.iter().map(|other| (node, *other)).collect(), "nothing goes out"),
            2 => (vec![(node, other)], "one way cut"),
            _ => (vec![(node, other), (other, node)], "link cut"),
        };
        let ways: Vec<(NodeId, NodeId)> = ways;
        world.weather.lock().cut.extend(ways.iter().copied());
        self.later(until_ms, Cure::Mend(ways));
        kind
    }

    fn foul(&mut self, world: &World, node: NodeId, until_ms: u64) -> &'static str {
        let link = LinkWeather {
            lost: self.random.below(300),
            doubled: self.random.below(300),
            delayed: self.random.below(300),
            delay_ms: self.random.between(1, 1_500),
        };
        let mut weather = world.weather.lock();
        let Weather { links, .. } = &mut *weather;
        for &other in world.nodes.iter().filter(|other| **other != node) {
            for way in [(node, other), (other, node)] {
                links.insert(way, link);
                self.numbered += 1;
                self.cures.insert((until_ms, self.numbered), Cure::Calm(way.0, way.1));
            }
        }
        "loss, delay and copies"
    }

    fn turn_clock(&mut self, world: &World, node: NodeId) -> &'static str {
        let jump_ms = i64::try_from(self.random.below(4_000)).unwrap_or(0) - 2_000;
        let drift_ppm = i64::try_from(self.random.below(600)).unwrap_or(0) - 300;
        world.host(node, |host| (host.wall_offset_ms, host.drift_ppm) = (jump_ms, drift_ppm));
        "clock jump"
    }

    fn trouble_the_log(&mut self, world: &World, until_ms: u64) -> &'static str {
        if self.random.permille(500) {
            let shard = ShardId(u16::try_from(self.random.below(16)).unwrap_or(0));
            world.log.lock().set_available(shard, false);
            self.later(until_ms, Cure::Leader(shard));
            return "partition without a leader";
        }
        let mut weather = world.log_weather.lock();
        weather.doubt_permille = self.random.below(500);
        weather.answer_ms = (1, self.random.between(5, 800));
        drop(weather);
        self.later(until_ms, Cure::LogAnswers);
        "slow and doubtful log"
    }
}
