//! What goes wrong, and when: drawn from the seed, overlapping, each with its end. Only faults that a cluster must
//! survive: a majority of disks stays intact, and all damage ends before the time of healing begins.
//!
//! The kinds in `strike` are closed, because another one would shift every draw behind it. A new kind is a struct with
//! its own stream and timetable, as [`Builds`] is ([`crate::simulation::edition`]).

use std::collections::{BTreeMap, BTreeSet};

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};

use super::builds::{self, Build, Builds};
use super::cures::{Cure, Cures};
use super::disk::{End, Rot};
use super::operator::Chore;
use super::supervisor::{self, DOWN_MS_MAX};
use super::wire::LinkWeather;
use super::world::{LOG_ANSWER_MS, World, millis};
use crate::simulation::random::Stream;
use crate::simulation::report::SeedReport;
use crate::simulation::traffic::{Storm, Traffic};

/// The time between two faults is drawn below this.
const PAUSE_MS_MAX: u64 = 1_600;
const FROZEN_MS: (u64, u64) = (100, 8_000);
const BACK_UP_EVERY_MS: u64 = 6_000;
/// No other fault begins while a node starts with an older disk: a leader that remembers more must be reachable.
const CALM_MS: u64 = 3_000;
/// This many of a thousand times that a snapshot replaces a log, the node is killed at that moment.
const KILLED_AT_INSTALL: u64 = 300;
/// This many of a thousand times that a node has met a new term, and perhaps voted in it, it loses power at that
/// moment. It is back before the election is over.
const KILLED_AT_ELECTION: u64 = 50;
const BACK_FOR_ELECTION_MS_MAX: u64 = 250;
/// An unclean election only cuts the partition of a shard that has committed this much.
const TRUNCATE_FROM_MIN: u64 = 20;
/// One in this many unclean elections that are drawn takes place.
const TRUNCATE_ONE_IN: u64 = 4;

/// An action of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    End(NodeId),
    Start(NodeId),
    Freeze(NodeId),
    Thaw(NodeId),
    /// A partition of the log loses everything from an offset on.
    Truncate(ShardId, u64),
}

pub(super) struct Faults {
    random: Stream,
    next_ms: u64,
    cures: Cures,
    /// The nodes whose disks may rot or be replaced by older ones: a minority.
    weak: BTreeSet<NodeId>,
    next_backup_ms: u64,
    /// Logs known to be replaced by a snapshot.
    seen_gone: BTreeSet<(NodeId, GroupId)>,
    /// The terms of the nodes at the previous look.
    seen_terms: BTreeMap<(NodeId, GroupId), u64>,
    is_truncated: bool,
    builds: Builds,
}

/// The kind of a fault, or `None` if there was nothing to break.
type Struck = Option<&'static str>;

impl Faults {
    pub(super) fn new(mut random: Stream, builds: Builds, world: &World, begin_ms: u64) -> Faults {
        let mut whole = world.nodes.clone();
        let mut weak = BTreeSet::new();
        for _ in 0..world.shape.minority() {
            let at = usize::try_from(random.below(whole.len() as u64)).unwrap_or(0);
            weak.insert(whole.swap_remove(at));
        }
        Faults {
            random,
            next_ms: begin_ms,
            cures: Cures::default(),
            weak,
            next_backup_ms: begin_ms,
            seen_gone: BTreeSet::new(),
            seen_terms: BTreeMap::new(),
            is_truncated: false,
            builds,
        }
    }

    /// Draws the faults of this moment. The caller carries out the actions on hosts and on the log.
    pub(super) fn tick(&mut self, world: &World, traffic: &mut Traffic, report: &mut SeedReport) -> Vec<Action> {
        let now_ms = millis(world.elapsed());
        let mut actions = self.tend(world, traffic);
        if now_ms >= self.next_backup_ms {
            self.next_backup_ms = now_ms + BACK_UP_EVERY_MS;
            self.weak.iter().filter(|node| world.is_up(**node)).for_each(|node| world.disk(*node).back_up());
        }
        if now_ms >= self.next_ms {
            self.next_ms = now_ms + self.random.below(PAUSE_MS_MAX);
            if let Some(kind) = self.strike(world, traffic, now_ms, &mut actions) {
                report.fault(kind);
            }
        }
        world.database.lock().tick(world, now_ms, report);
        if let Some((node, kind)) = self.builds.change(world, now_ms) {
            world.line(format_args!("fault: {kind}, node {node}"));
            report.fault(kind);
            self.start_again(world, node, now_ms, &mut actions);
        }
        if let Some(node) = self.just_installed(world).filter(|_| self.random.permille(KILLED_AT_INSTALL)) {
            report.fault(self.end(world, node, End::Killed, now_ms, &mut actions));
        }
        if let Some(node) = self.just_in_a_new_term(world).filter(|_| self.random.permille(KILLED_AT_ELECTION)) {
            report.fault(self.end_for(world, node, End::PowerLost, now_ms, BACK_FOR_ELECTION_MS_MAX, &mut actions));
        }
        actions
    }

    /// Ends all faults at once.
    pub(super) fn heal(&mut self, world: &World, traffic: &mut Traffic) -> Vec<Action> {
        let mut actions = Vec::new();
        for &node in &world.nodes {
            if world.host(node, |host| host.build) != Build::Newest {
                builds::upgrade(world, node);
                self.start_again(world, node, millis(world.elapsed()), &mut actions);
            }
        }
        world.database.lock().mend();
        self.cures.all_at_once();
        actions.extend(self.tend(world, traffic));
        actions
    }

    /// Restarts a running node. A stopped node will be started anyway.
    fn start_again(&mut self, world: &World, node: NodeId, now_ms: u64, actions: &mut Vec<Action>) {
        if world.is_up(node) {
            self.end(world, node, End::Killed, now_ms, actions);
        }
    }

    /// Restarts processes that have ended, and ends faults whose time has come.
    pub(super) fn tend(&mut self, world: &World, traffic: &mut Traffic) -> Vec<Action> {
        let now_ms = millis(world.elapsed());
        let mut actions = supervisor::look_after(world, &mut self.random, &mut self.cures, now_ms);
        while let Some(cure) = self.cures.take_due(now_ms) {
            world.line(format_args!("cure: {cure:?}"));
            match cure {
                Cure::Start(node) => actions.push(Action::Start(node)),
                Cure::Thaw(node) => actions.push(Action::Thaw(node)),
                Cure::Mend(ways) => world.wire.lock().cut.retain(|way| !ways.contains(way)),
                Cure::Calm(from, to) => drop(world.wire.lock().links.remove(&(from, to))),
                Cure::FastDisk(node) => world.disk(node).set_sync(None),
                Cure::LogAnswers => {
                    let mut weather = world.log_weather.lock();
                    (weather.doubt_permille, weather.answer_ms) = (0, LOG_ANSWER_MS);
                }
                Cure::Leader(shard) => world.log.lock().set_available(shard, true),
                Cure::Traffic => traffic.set_storm(Storm::None),
                Cure::Undrain(node) => {
                    let chore = world.chores.lock().of(node);
                    if matches!(chore, Some(Chore::Drain | Chore::Rest)) {
                        world.set_chore(node, Chore::Undrain);
                    }
                }
            }
        }
        actions
    }

    fn strike(&mut self, world: &World, traffic: &mut Traffic, now_ms: u64, actions: &mut Vec<Action>) -> Struck {
        let node = self.random.pick(&world.nodes).copied()?;
        let until_ms = now_ms + self.random.between(100, 6_000);
        let is_up = world.is_up(node);
        let kind = match self.random.below(24) {
            0..=2 if is_up => return Some(self.end(world, node, End::Killed, now_ms, actions)),
            3..=4 if is_up => return Some(self.end(world, node, End::PowerLost, now_ms, actions)),
            5 if is_up => {
                let told = world.host(node, |host| host.stop.take()).is_some_and(|stop| stop.send(true).is_ok());
                told.then_some("stop in order")
            }
            6..=7 => Some(self.cut(world, node, until_ms)),
            8..=9 => Some(self.foul(world, node, until_ms)),
            10 => {
                let slow_us = self.random.between(20_000, 900_000);
                world.disk(node).set_sync(Some((slow_us / 4, slow_us)));
                self.cures.at(until_ms, Cure::FastDisk(node));
                Some("slow disk")
            }
            11 if is_up => {
                world.disk(node).fail_next_sync();
                Some("fsync error")
            }
            12 => self.rot(world, node, now_ms, actions),
            13 => Some(self.turn_clock(world, node)),
            14 => Some(self.trouble_the_log(world, until_ms)),
            15 => {
                let storms = [Storm::Repeats, Storm::Late, Storm::Silence];
                traffic.set_storm(self.random.pick(&storms).copied().unwrap_or(Storm::None));
                self.cures.at(until_ms, Cure::Traffic);
                Some("traffic storm")
            }
            16..=18 if is_up => {
                let (least, most) = FROZEN_MS;
                let frozen_ms = self.random.between(least, most);
                actions.push(Action::Freeze(node));
                self.cures.at(now_ms + frozen_ms, Cure::Thaw(node));
                Some("freeze")
            }
            19..=20 => self.take_out(world, node),
            21 => self.drain(world, node, until_ms),
            22 => return self.restore(world, now_ms, actions),
            23 => self.truncate(world, actions),
            _ => None,
        }?;
        world.line(format_args!("fault: {kind}, node {node}"));
        Some(kind)
    }

    fn end(&mut self, world: &World, node: NodeId, end: End, now_ms: u64, actions: &mut Vec<Action>) -> &'static str {
        self.end_for(world, node, end, now_ms, DOWN_MS_MAX, actions)
    }

    fn end_for(
        &mut self,
        world: &World,
        node: NodeId,
        end: End,
        now_ms: u64,
        down_ms_max: u64,
        actions: &mut Vec<Action>,
    ) -> &'static str {
        let kind = if end == End::Killed { "kill" } else { "power loss" };
        world.line(format_args!("fault: {kind}, node {node}"));
        world.end(node, end);
        let down_ms = self.random.between(50, down_ms_max);
        self.cures.at(now_ms + down_ms, Cure::Start(node));
        actions.push(Action::End(node));
        kind
    }

    /// A node on which a snapshot has replaced a log's entries, and nothing has been written after it yet.
    fn just_installed(&mut self, world: &World) -> Option<NodeId> {
        let replicas = world.nodes.iter().flat_map(|node| world.shape.groups().map(|group| (*node, group)));
        let gone: BTreeSet<_> = replicas.filter(|(node, group)| world.disk(*node).is_log_gone(*group)).collect();
        let seen = std::mem::replace(&mut self.seen_gone, gone);
        self.seen_gone.difference(&seen).map(|(node, _)| *node).find(|node| world.is_up(*node))
    }

    fn just_in_a_new_term(&mut self, world: &World) -> Option<NodeId> {
        let terms = world.nodes.iter().filter_map(|node| Some((*node, world.groups(*node)?)));
        let terms = terms
            .flat_map(|(node, groups)| {
                groups.iter().map(|g| ((node, g.id()), g.leader_and_term().1)).collect::<Vec<_>>()
            })
            .collect();
        let seen = std::mem::replace(&mut self.seen_terms, terms);
        let rose = |at: &(NodeId, GroupId), term: u64| seen.get(at).is_some_and(|before| *before < term);
        let risen = self.seen_terms.iter().filter(|(at, term)| rose(at, **term));
        risen.map(|((node, _), _)| *node).find(|node| world.is_up(*node))
    }

    /// Cuts one node from all others, one way between two, or both.
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
        world.wire.lock().cut.extend(ways.iter().copied());
        self.cures.at(until_ms, Cure::Mend(ways));
        kind
    }

    fn foul(&mut self, world: &World, node: NodeId, until_ms: u64) -> &'static str {
        let link = LinkWeather {
            lost: self.random.below(300),
            doubled: self.random.below(300),
            delayed: self.random.below(300),
            delay_ms: self.random.between(1, 1_500),
        };
        let mut wire = world.wire.lock();
        for &other in world.nodes.iter().filter(|other| **other != node) {
            for (from, to) in [(node, other), (other, node)] {
                wire.links.insert((from, to), link);
                self.cures.at(until_ms, Cure::Calm(from, to));
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

    fn shard(&mut self, world: &World) -> ShardId {
        let partitions = u64::try_from(world.shape.partitioner().partitions()).unwrap_or(0);
        ShardId(u16::try_from(self.random.below(partitions)).unwrap_or(0))
    }

    fn trouble_the_log(&mut self, world: &World, until_ms: u64) -> &'static str {
        if self.random.permille(500) {
            let shard = self.shard(world);
            world.log.lock().set_available(shard, false);
            self.cures.at(until_ms, Cure::Leader(shard));
            return "partition without a leader";
        }
        let mut weather = world.log_weather.lock();
        weather.doubt_permille = self.random.below(500);
        weather.answer_ms = (1, self.random.between(5, 800));
        drop(weather);
        self.cures.at(until_ms, Cure::LogAnswers);
        "slow and doubtful log"
    }

    /// An unclean election loses half of the records that a shard has counted. It happens at most once in a run, and
    /// not in every run.
    fn truncate(&mut self, world: &World, actions: &mut Vec<Action>) -> Struck {
        let shard = self.shard(world);
        let is_due = self.random.below(TRUNCATE_ONE_IN) == 0 && !std::mem::replace(&mut self.is_truncated, true);
        let replicas = world.nodes.iter().filter_map(|node| world.groups(*node));
        let committed = replicas.map(|groups| {
            let group = &groups[usize::from(shard.group().0)];
            group.read(|state| state.shard(shard).map_or(0, |entry| entry.committed_offset))
        });
        let committed = committed.max().filter(|committed| is_due && *committed >= TRUNCATE_FROM_MIN)?;
        actions.push(Action::Truncate(shard, committed / 2));
        Some("unclean election of the log")
    }

    fn rot(&mut self, world: &World, node: NodeId, now_ms: u64, actions: &mut Vec<Action>) -> Struck {
        let rots = [(Rot::NewestSnapshot, "snapshot rots"), (Rot::LogMiddle, "log rots"), (Rot::Vote, "vote rots")];
        let (rot, kind) = self.random.pick(&rots).copied()?;
        let groups: Vec<GroupId> = world.shape.groups().collect();
        let group = self.random.pick(&groups).copied()?;
        let may_rot = self.may_be_damaged(world, node);
        let has_rotted = may_rot && world.disk(node).rot(group, rot);
        // Restarted before there is a newer snapshot: only a start, or a peer that receives it, reads a snapshot.
        if has_rotted && rot == Rot::NewestSnapshot {
            self.start_again(world, node, now_ms, actions);
        }
        has_rotted.then_some(kind)
    }

    /// While a node is away, no other may lose anything: the rest of the cluster may be just a majority.
    fn may_be_damaged(&self, world: &World, node: NodeId) -> bool {
        self.weak.contains(&node) && !world.disk(node).is_rotten() && world.chores.lock().is_empty()
    }

    /// A healthy node leaves the cluster and comes back.
    fn take_out(&self, world: &World, node: NodeId) -> Struck {
        let others_are_whole = world.nodes.iter().all(|other| *other == node || !world.disk(*other).is_rotten());
        let may_leave = others_are_whole && world.is_up(node) && world.chores.lock().is_empty();
        may_leave.then(|| world.set_chore(node, Chore::Leave))?;
        let leads = world.groups(node).is_some_and(|groups| groups.iter().any(|group| group.is_leader()));
        Some(if leads { "a leader is taken out" } else { "a node is taken out" })
    }

    fn drain(&mut self, world: &World, node: NodeId, until_ms: u64) -> Struck {
        let is_busy = world.chores.lock().of(node).is_some();
        (!is_busy).then(|| world.set_chore(node, Chore::Drain))?;
        self.cures.at(until_ms, Cure::Undrain(node));
        Some("drain")
    }

    /// A weak node comes back with an older copy of its disk, while a leader remembers more.
    fn restore(&mut self, world: &World, now_ms: u64, actions: &mut Vec<Action>) -> Struck {
        let weak: Vec<NodeId> = self.weak.iter().copied().collect();
        let node = self.random.pick(&weak).copied()?;
        let disk = world.disk(node);
        let is_known = |group: GroupId, end: Option<u64>| {
            let remembered = world.remembered(node, group).map(|(_, last)| last);
            end.is_some() && end < remembered
        };
        let backups = world.shape.groups().map(|group| disk.backup_ends(group)).collect::<Vec<_>>();
        let count = backups.iter().map(Vec::len).min().unwrap_or(0);
        let of_some_group =
            |at: &usize| backups.iter().zip(world.shape.groups()).any(|(ends, group)| is_known(group, ends[*at]));
        let usable: Vec<usize> = (0..count).filter(of_some_group).collect();
        let backup = self.random.pick(&usable).copied().filter(|_| self.may_be_damaged(world, node))?;
        world.line(format_args!("fault: older disk, node {node}"));
        {
            let mut wire = world.wire.lock();
            wire.cut.clear();
            wire.links.clear();
        }
        world.nodes.iter().for_each(|node| world.disk(*node).set_sync(None));
        world.end(node, End::Killed);
        disk.restore(backup);
        actions.extend(world.nodes.iter().map(|node| Action::Thaw(*node)));
        actions.push(Action::End(node));
        self.cures.at(now_ms + 1, Cure::Start(node));
        self.next_ms = now_ms + CALM_MS;
        Some("older disk")
    }
}
