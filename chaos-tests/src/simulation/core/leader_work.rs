//! Heartbeats of every node, and the work of the node that believes it leads: placement, and publishing fired windows.

use clicktally_node::sink::window_news::WindowNews;
use clicktally_proto::command::Command;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::NodeId;
use clicktally_state::liveness::Heartbeat;
use clicktally_state::placement::{Decision, PlacementFacts, PlacementRules};

use super::event::{Event, Life, NodeEvent, Proposer, Publication};
use super::plan::LEASE;
use super::world::World;
use crate::checks::ct15_heard_is_not_robbed::{self, Robbery};

const BEAT_EVERY_MS: u64 = LEASE.as_millis() as u64 / 4;
const PLACE_EVERY_MS: u64 = 250;
const PUBLISH_EVERY_MS: u64 = 500;
/// A lease measured by two clocks, each of which may drift by a thousandth.
const LEASE_MS_MIN: u64 = LEASE.as_millis() as u64 * 99 / 100;

impl World {
    pub(super) fn beat(&mut self, life: Life) {
        self.agenda.after(BEAT_EVERY_MS, Event::To(life, NodeEvent::Beat));
        let now_ms = self.now_ms();
        let heartbeat = Heartbeat {
            node: life.node,
            incarnation: life.incarnation,
            accepts_shards: true,
            is_leaving: false,
            threads: 1,
            loads: Vec::new(),
        };
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        let now = node.lease_clock(now_ms);
        node.memory.heartbeats.beat(heartbeat.clone(), now);
        let others: Vec<Life> =
            self.nodes.values().filter(|other| other.id != life.node).map(|other| other.life()).collect();
        for other in others {
            self.send(life.node, other, NodeEvent::Heard(heartbeat.clone()));
        }
    }

    pub(super) fn hear(&mut self, node: NodeId, heartbeat: Heartbeat) {
        let now_ms = self.now_ms();
        let node = self.nodes.get_mut(&node).expect("a living node");
        let now = node.lease_clock(now_ms);
        node.memory.heard_at_ms.insert(heartbeat.node, now_ms);
        node.memory.heartbeats.record(heartbeat, now);
    }

    pub(super) fn place(&mut self, life: Life) {
        self.agenda.after(PLACE_EVERY_MS, Event::To(life, NodeEvent::Place));
        let is_balance_asked = !self.is_calm && self.steps.permille(10);
        let now_ms = self.now_ms();
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        if !node.believes_to_lead() || node.memory.placements_in_flight > 0 {
            return;
        }
        let now = node.lease_clock(now_ms);
        let heartbeats = node.memory.heartbeats.view(now);
        let state = &node.memory.replica.state;
        let decisions = PlacementRules { lease: LEASE }.decide(&PlacementFacts {
            heartbeats: &heartbeats,
            members: &state.nodes().keys().copied().collect(),
            draining: state.draining(),
            shards: state.shards(),
            elsewhere: &Default::default(),
            is_balance_asked,
        });
        let mut robberies = Vec::new();
        for decision in &decisions {
            if let Decision::Assign(assignment) = decision
                && let Some(owner) = state.shard(assignment.shard).and_then(|entry| entry.owner)
                && state.nodes().contains_key(&owner)
            {
                let heard_ago_ms = node.memory.heard_at_ms.get(&owner).map(|at_ms| now_ms - at_ms);
                let (shard, leader) = (assignment.shard.0, life.node);
                // A node always hears itself, unless it has just been frozen.
                robberies.push(Robbery { shard, owner, leader, heard_ago_ms });
            }
        }
        node.memory.placements_in_flight += decisions.len() as u32;
        let found = robberies.iter().filter_map(|robbery| ct15_heard_is_not_robbed::check(robbery, LEASE_MS_MIN));
        self.watch.found(found);
        for decision in decisions {
            let command = match decision {
                Decision::Assign(assignment) => Command::AssignShard(assignment),
                Decision::Plan(plan) => Command::PlanMove(plan),
            };
            self.propose(life, Proposer::Placement, command);
        }
    }

    pub(super) fn publish_news(&mut self, life: Life) {
        self.agenda.after(PUBLISH_EVERY_MS, Event::To(life, NodeEvent::PublishNews));
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        if !node.believes_to_lead() || node.memory.is_publishing {
            return;
        }
        let news = WindowNews::of(&node.memory.replica.state);
        if news.is_empty() {
            return;
        }
        let publication = Publication { newest_revision: news.newest_revision(), records: news.records().collect() };
        node.memory.is_publishing = true;
        if is_broken(Mutant::ReportedUnpublished) {
            return self.report_published(life, publication);
        }
        // A record in flight while its leader is deposed or frozen arrives late, behind newer values.
        let delay_ms = self.latency_ms();
        self.agenda.after(delay_ms, Event::To(life, NodeEvent::News(publication)));
    }

    fn report_published(&mut self, life: Life, publication: Publication) {
        let command = Command::SinkProgress { published_revision: publication.newest_revision };
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        node.memory.publication = Some(publication);
        self.propose(life, Proposer::Publisher, command);
    }

    pub(super) fn publish(&mut self, life: Life, publication: Publication) {
        let is_written = self.write_log(life, &publication.records).is_ok();
        if is_written && !is_broken(Mutant::ReportedUnpublished) {
            return self.report_published(life, publication);
        }
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        node.memory.is_publishing = false;
    }

    pub(super) fn reported(&mut self, life: Life, is_decided: bool) {
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        node.memory.is_publishing = false;
        let publication = node.memory.publication.take();
        if is_broken(Mutant::ReportedUnpublished)
            && is_decided
            && let Some(publication) = publication
        {
            let delay_ms = self.latency_ms();
            self.agenda.after(delay_ms, Event::To(life, NodeEvent::News(publication)));
        }
    }
}
