//! What goes wrong, when, and for how long: drawn from the seed and overlapping.

use clicktally_proto::click_log::{OutRecord, RAW_CLICKS};
use clicktally_proto::command::{Command, Outcome};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;

use super::event::{Event, Healing};
use super::node::SimNode;
use super::node_clock::NodeClock;
use super::world::{World, register};
use crate::simulation::sim_log::Fate;
use crate::simulation::traffic::{Produced, Storm};

/// A wall clock that jumps by more than this is a fault of its own, and rare.
const JUMP_MS_MAX: u64 = 3_000;
const BIG_JUMP_MS: u64 = 3_600_000;
/// An unclean election only cuts a partition of which this much is committed.
const TRUNCATE_FROM_MIN: u64 = 20;

#[derive(Debug, Clone, Copy)]
enum FaultKind {
    Crash,
    CrashEverybody,
    Pause,
    CutLink,
    Isolate,
    LeaderChange,
    NoElections,
    PartitionDown,
    LogOutOfReach,
    SinkDown,
    SinkRestored,
    SecondWriter,
    ClockJump,
    BigClockJump,
    RuinSnapshot,
    Storm,
    NodeJoins,
    NodeIsRemoved,
    NodeIsLost,
    Drain,
    Truncate,
}

/// Each kind with its weight. The table is closed: another row would shift every draw behind it. A new kind goes into
/// `happenings.rs`.
const KINDS: [(FaultKind, u64); 20] = [
    (FaultKind::Crash, 20),
    (FaultKind::CrashEverybody, 3),
    (FaultKind::Pause, 15),
    (FaultKind::CutLink, 15),
    (FaultKind::Isolate, 10),
    (FaultKind::LeaderChange, 15),
    (FaultKind::NoElections, 4),
    (FaultKind::PartitionDown, 10),
    (FaultKind::LogOutOfReach, 6),
    (FaultKind::SinkDown, 6),
    (FaultKind::SinkRestored, 6),
    (FaultKind::SecondWriter, 6),
    (FaultKind::ClockJump, 8),
    (FaultKind::BigClockJump, 1),
    (FaultKind::RuinSnapshot, 8),
    (FaultKind::Storm, 10),
    (FaultKind::NodeJoins, 3),
    (FaultKind::NodeIsRemoved, 2),
    (FaultKind::Drain, 4),
    (FaultKind::Truncate, 1),
];

impl World {
    pub(super) fn produce(&mut self) {
        self.agenda.after(self.plan.traffic_every_ms, Event::Traffic);
        if self.is_calm {
            return;
        }
        let now_ms = self.log_ms();
        for Produced { shard, value, ids } in self.traffic.tick(now_ms) {
            // Producers avoid a partition that has lost records until its operator lets them back.
            if self.log.truncated_from(shard).is_some() {
                continue;
            }
            let fate = if self.is_lost() {
                *self.network.pick(&[Fate::WrittenUnknown, Fate::WrittenTwice, Fate::Lost]).expect("three of them")
            } else {
                Fate::Written
            };
            let record = OutRecord {
                topic: RAW_CLICKS,
                partition: Some(shard.partition()),
                key: Vec::new(),
                value: value.to_vec(),
            };
            let is_acknowledged = self.log.publish(&[record], now_ms, fate).is_ok();
            self.watch.sent(&ids, is_acknowledged);
            if let Some(aborted) = self.transactions.end(now_ms, shard) {
                self.report.fault(if aborted.is_empty() { "transaction committed" } else { "transaction aborted" });
                self.log.end_transaction(shard, now_ms, aborted);
            }
        }
    }

    pub(super) fn running(&self) -> Vec<NodeId> {
        let now_ms = self.now_ms();
        self.nodes.values().filter(|node| node.is_running(now_ms)).map(|node| node.id).collect()
    }

    pub(super) fn strike(&mut self) {
        let Some(every_ms) = self.plan.fault_every_ms.filter(|_| !self.is_calm) else { return };
        let pause_ms = self.faults.between(every_ms / 4, every_ms * 2);
        self.agenda.after(pause_ms, Event::Fault);
        let total: u64 = KINDS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.faults.below(total);
        for (kind, weight) in KINDS {
            if drawn < weight {
                return self.inject(kind);
            }
            drawn -= weight;
        }
    }

    fn inject(&mut self, kind: FaultKind) {
        let for_ms =
            if self.faults.permille(700) { self.faults.between(50, 3_000) } else { self.faults.between(3_000, 20_000) };
        let running = self.running();
        let Some(&node) = self.faults.pick(&running) else { return };
        let shard = ShardId(u16::try_from(self.faults.below(16)).unwrap_or(0));
        let healing = match kind {
            FaultKind::Crash => return self.crash_for(node, for_ms),
            FaultKind::CrashEverybody => {
                running.iter().for_each(|node| self.crash_for(*node, for_ms));
                return;
            }
            FaultKind::Pause => {
                // A pause must not reach into the time in which everything has to heal.
                let until_ms = (self.now_ms() + for_ms).min(self.plan.faulty_ms);
                self.nodes.get_mut(&node).expect("a running node").paused_until_ms = until_ms;
                Healing::Nothing
            }
            FaultKind::CutLink => {
                let others: Vec<NodeId> = self.nodes.keys().copied().filter(|other| *other != node).collect();
                let Some(&other) = self.faults.pick(&others) else { return };
                self.cut_links.insert((node, other));
                Healing::Link(node, other)
            }
            FaultKind::Isolate => {
                for other in self.nodes.keys().copied().filter(|other| *other != node).collect::<Vec<_>>() {
                    for (from, to) in [(node, other), (other, node)] {
                        self.cut_links.insert((from, to));
                        self.agenda.after(for_ms, Event::Heal(Healing::Link(from, to)));
                    }
                }
                return self.note(kind, node, for_ms);
            }
            FaultKind::LeaderChange => {
                let able: Vec<NodeId> = running
                    .into_iter()
                    .filter(|node| self.consensus.members.contains(node) && self.has_majority(*node))
                    .collect();
                if let Some(&leader) = self.faults.pick(&able) {
                    self.appoint(leader);
                }
                return self.note(kind, node, 0);
            }
            FaultKind::NoElections => {
                self.consensus.leader = None;
                self.elections_paused = true;
                Healing::ElectionPause
            }
            FaultKind::PartitionDown => {
                self.log.set_available(shard, false);
                Healing::Partition(shard)
            }
            FaultKind::LogOutOfReach => {
                self.nodes.get_mut(&node).expect("a running node").is_log_reachable = false;
                Healing::LogForNode(node)
            }
            FaultKind::SinkDown => {
                self.sink.is_down = true;
                Healing::Sink
            }
            FaultKind::SinkRestored => {
                let age = usize::try_from(self.faults.below(3)).unwrap_or(0);
                if self.sink.database.restore(age) {
                    self.sink.lose_sessions();
                    self.watch.restored(self.sink.database.tables().rows.values());
                }
                return self.note(kind, node, 0);
            }
            FaultKind::SecondWriter => {
                self.sink.has_second_writer = true;
                Healing::SecondWriter
            }
            FaultKind::ClockJump => {
                let by_ms = i64::try_from(self.faults.below(2 * JUMP_MS_MAX)).unwrap_or(0) - JUMP_MS_MAX.cast_signed();
                self.nodes.get_mut(&node).expect("a running node").clock.jump(by_ms);
                return self.note(kind, node, 0);
            }
            FaultKind::BigClockJump => {
                let sign = if self.faults.permille(500) { 1 } else { -1 };
                self.nodes.get_mut(&node).expect("a running node").clock.jump(sign * BIG_JUMP_MS.cast_signed());
                return self.note(kind, node, 0);
            }
            FaultKind::RuinSnapshot => {
                let (at, is_torn) = (self.faults.below(1 << 20), self.faults.permille(500));
                self.nodes.get_mut(&node).expect("a running node").disk.ruin(at, is_torn);
                self.note(kind, node, 0);
                return self.crash_for(node, for_ms);
            }
            FaultKind::Storm => {
                let storm = *self.faults.pick(&[Storm::Repeats, Storm::Late, Storm::Silence]).expect("three of them");
                self.traffic.set_storm(storm);
                Healing::Storm
            }
            FaultKind::NodeJoins => return self.join(),
            FaultKind::NodeIsRemoved => return self.remove(node),
            FaultKind::NodeIsLost => return,
            FaultKind::Drain => {
                let is_draining = self.faults.permille(500);
                if self.consensus.leader.is_some() {
                    self.commit_directly(Command::SetDraining { node, is_draining });
                }
                return self.note(kind, node, 0);
            }
            FaultKind::Truncate => return self.truncate(shard),
        };
        self.agenda.after(for_ms, Event::Heal(healing));
        self.note(kind, node, for_ms);
    }

    fn note(&mut self, kind: FaultKind, node: NodeId, for_ms: u64) {
        self.report.fault(&format!("{kind:?}"));
        self.trace_line(format_args!("fault: {kind:?} (node {node}) for {for_ms} ms"));
    }

    fn crash_for(&mut self, node: NodeId, for_ms: u64) {
        self.note(FaultKind::Crash, node, for_ms);
        self.crash(node);
        self.agenda.after(for_ms, Event::Heal(Healing::Restart(node)));
    }

    /// It restarts by itself, as under any supervisor.
    pub(super) fn crash(&mut self, node: NodeId) {
        self.trace_line(format_args!("node {node} dies"));
        self.nodes.get_mut(&node).expect("a node").crash();
        let pause_ms = self.faults.between(300, 6_000);
        self.agenda.after(pause_ms, Event::Heal(Healing::Restart(node)));
    }

    pub(super) fn heal(&mut self, healing: Healing) {
        match healing {
            Healing::Restart(id) => {
                let node = self.nodes.get_mut(&id).expect("a node");
                if node.is_alive || node.is_gone {
                    return;
                }
                let damaged = node.restart();
                let applied = node.memory.replica.applied;
                self.trace_line(format_args!(
                    "node {id} starts from index {applied}, {damaged} damaged snapshots set aside"
                ));
                self.begin_life(id);
                let life = self.nodes[&id].life();
                self.look_at_assignments(life);
            }
            Healing::Nothing => {}
            Healing::Link(from, to) => {
                self.cut_links.remove(&(from, to));
            }
            Healing::Partition(shard) => self.log.set_available(shard, true),
            Healing::LogForNode(node) => self.nodes.get_mut(&node).expect("a node").is_log_reachable = true,
            Healing::Sink => self.sink.is_down = false,
            Healing::Storm => self.traffic.set_storm(Storm::None),
            Healing::ElectionPause => self.elections_paused = false,
            Healing::SecondWriter => self.sink.has_second_writer = false,
        }
    }

    /// Ends all faults. No new ones follow.
    pub(super) fn heal_everything(&mut self) {
        self.lose_a_node();
        self.is_calm = true;
        self.cut_links.clear();
        self.elections_paused = false;
        self.sink.is_down = false;
        self.sink.has_second_writer = false;
        let now_ms = self.now_ms();
        for shard in self.log.shards() {
            self.log.set_available(shard, true);
        }
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&id).expect("a node");
            node.is_log_reachable = true;
            node.paused_until_ms = node.paused_until_ms.min(now_ms);
            self.heal(Healing::Restart(id));
        }
    }

    /// Sometimes a node dies for good at the end, while wall clocks go back. Its shards must be counted all the same.
    fn lose_a_node(&mut self) {
        let members: Vec<NodeId> = self.consensus.members.iter().copied().collect();
        if self.plan.fault_every_ms.is_none() || !self.faults.permille(300) {
            return;
        }
        let Some(&lost) = self.faults.pick(&members) else { return };
        let node = self.nodes.get_mut(&lost).expect("a node");
        node.is_gone = true;
        node.crash();
        self.note(FaultKind::NodeIsLost, lost, 0);
        if self.faults.permille(500) {
            let back_ms = self.faults.between(1_000, BIG_JUMP_MS).cast_signed();
            self.nodes.values_mut().for_each(|node| node.clock.jump(-back_ms));
        }
    }

    fn join(&mut self) {
        let id = 1 + self.nodes.keys().next_back().copied().unwrap_or(0);
        if self.consensus.leader.is_none() || self.nodes.values().filter(|node| !node.is_gone).count() >= 5 {
            return;
        }
        self.nodes.insert(id, SimNode::new(id, NodeClock::new(0, 0)));
        self.consensus.members.insert(id);
        self.commit_directly(register(id));
        self.begin_life(id);
        self.note(FaultKind::NodeJoins, id, 0);
    }

    fn remove(&mut self, id: NodeId) {
        let members = &self.consensus.members;
        if members.len() <= 3 || !members.contains(&id) || self.consensus.leader.is_none_or(|leader| leader == id) {
            return;
        }
        self.consensus.members.remove(&id);
        let outcome = self.commit_directly(Command::RemoveNode(id));
        assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
        let node = self.nodes.get_mut(&id).expect("a node");
        // In half of the cases it continues for a while without knowing that it was removed.
        node.is_gone = true;
        if self.faults.permille(500) {
            self.nodes.get_mut(&id).expect("a node").crash();
        }
        self.note(FaultKind::NodeIsRemoved, id, 0);
    }

    /// An unclean election loses half of the records that the shard has counted.
    fn truncate(&mut self, shard: ShardId) {
        let committed = self.consensus.state.shard(shard).map_or(0, |entry| entry.committed_offset);
        if committed < TRUNCATE_FROM_MIN || self.log.truncated_from(shard).is_some() {
            return;
        }
        self.watch.read_on(&self.log, shard);
        self.log.truncate(shard, committed / 2);
        self.note(FaultKind::Truncate, u64::from(shard.0), 0);
    }
}
