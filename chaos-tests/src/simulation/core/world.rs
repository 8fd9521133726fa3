//! The world of one seed: nodes, the log, the sink, the network between them, and the loop that runs the events.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use clicktally_proto::codec;
use clicktally_proto::command::{CampaignTerms, Command, GroupSettings, NodeRecord, Outcome};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::{Partitioner, SALTS};
use clicktally_proto::money::Currency;
use clicktally_raft_store::group::ProposeError;

use super::agenda::Agenda;
use super::consensus::Consensus;
use super::event::{Event, IndexFor, Life, NodeEvent, Proposal, Proposer};
use super::happenings::{Happening, Kind};
use super::node::SimNode;
use super::node_clock::NodeClock;
use super::plan::{LEADER_DEADLINE_MS, Plan, START_MS};
use super::sink_work::Sink;
use super::watch::Watch;
use crate::simulation::commands;
use crate::simulation::edition::Story;
use crate::simulation::random::Stream;
use crate::simulation::report::SeedReport;
use crate::simulation::sim_log::SimLog;
use crate::simulation::trace::Trace;
use crate::simulation::traffic::{Traffic, TrafficPlan};
use crate::simulation::transactions::Transactions;

const ELECTION_EVERY_MS: u64 = 200;
/// A leader that cannot reach a majority for this long is deposed.
const ELECTION_TIMEOUT_MS: u64 = 600;
const TICK_SPREAD_MS: u64 = 50;
const LONG_DELAY_PERMILLE: u64 = 15;
const LONG_DELAY_MS_MAX: u64 = 8_000;

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) agenda: Agenda<Event>,
    pub(super) trace: Trace,
    pub(super) report: SeedReport,
    pub(super) watch: Watch,
    pub(super) log: SimLog,
    pub(super) traffic: Traffic,
    pub(super) transactions: Transactions,
    pub(super) consensus: Consensus,
    pub(super) nodes: BTreeMap<NodeId, SimNode>,
    /// Links that deliver nothing, from and to.
    pub(super) cut_links: BTreeSet<(NodeId, NodeId)>,
    pub(super) sink: Sink,
    pub(super) is_calm: bool,
    pub(super) leaderless_since_ms: Option<u64>,
    pub(super) elections_paused: bool,
    pub(super) network: Stream,
    pub(super) steps: Stream,
    pub(super) faults: Stream,
    pub(super) budget: Stream,
    pub(super) happenings: Vec<Happening>,
    pub(super) ids: u64,
}

impl World {
    pub(super) fn new(story: Story, kinds: &'static [Kind]) -> World {
        let seed = story.seed;
        let plan = Plan::draw(seed);
        let partitioner = Partitioner::new(1);
        let mut clocks = seed.stream("clocks");
        let mut clock = || {
            let drift_ppm = i64::try_from(clocks.below(2_000)).unwrap_or(0) - 1_000;
            // Half of them are exact to the millisecond, so that a check that allows for the others stays sharp.
            let offset_ms =
                if clocks.permille(500) { 0 } else { i64::try_from(clocks.below(1_000)).unwrap_or(0) - 500 };
            if offset_ms == 0 { NodeClock::new(0, 0) } else { NodeClock::new(drift_ppm, offset_ms) }
        };
        let nodes: BTreeMap<NodeId, SimNode> = (1..=plan.nodes).map(|id| (id, SimNode::new(id, clock()))).collect();
        let members = nodes.keys().copied().collect();
        let traffic = Traffic::new(story, TrafficPlan::draw(seed, SALTS), partitioner, plan.rules);
        let mut world = World {
            agenda: Agenda::new(),
            trace: Trace::default(),
            report: SeedReport { seed: seed.0, edition: story.edition, ..SeedReport::default() },
            watch: Watch::new(partitioner, plan.rules),
            log: SimLog::new(SALTS),
            traffic,
            transactions: Transactions::draw(story),
            consensus: Consensus::new(members, plan.snapshot_every),
            nodes,
            cut_links: BTreeSet::new(),
            sink: Sink::default(),
            is_calm: false,
            leaderless_since_ms: None,
            elections_paused: false,
            network: seed.stream("network"),
            steps: seed.stream("steps"),
            faults: seed.stream("faults"),
            budget: seed.stream("budget"),
            happenings: Happening::draw(story, kinds),
            ids: 0,
            plan,
        };
        world.found();
        world
    }

    /// The group's first entries, and the first steps of every node.
    fn found(&mut self) {
        let settings = GroupSettings::new(1, self.plan.rules);
        self.commit_directly(Command::Configure(settings));
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.commit_directly(register(node));
        }
        for campaign_id in 1..=4 {
            let terms = CampaignTerms {
                campaign_id,
                advertiser_id: 1,
                name: String::new(),
                currency: Currency::USD,
                cost_per_click_micros: self.plan.cost_per_click_micros,
                budget_micros: self.plan.budget_micros,
                tolerance_micros: self.plan.tolerance_micros,
                effective_from_ms: 0,
                expected_revision: None,
            };
            self.commit_directly(Command::SetCampaign(terms));
        }
        self.trace_line(format_args!("{:?}", self.plan.clone()));
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.begin_life(node);
        }
        self.agenda.after(0, Event::Election);
        self.agenda.after(100, Event::Traffic);
        self.begin_sink();
        if let Some(every_ms) = self.plan.fault_every_ms {
            self.agenda.after(every_ms, Event::Fault);
            self.await_happenings();
        }
    }

    pub(super) fn begin_life(&mut self, node: NodeId) {
        let spread_ms = self.network.below(TICK_SPREAD_MS);
        let life = self.nodes[&node].life();
        for event in [
            NodeEvent::Beat,
            NodeEvent::CatchUp { is_periodic: true },
            NodeEvent::Place,
            NodeEvent::PublishNews,
            NodeEvent::Freshen,
            NodeEvent::AskBudget,
            NodeEvent::Drain,
            NodeEvent::CheckpointDue,
        ] {
            self.agenda.after(spread_ms, Event::To(life, event));
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.agenda.now_ms()
    }

    /// The log's own clock, which is true time.
    pub(super) fn log_ms(&self) -> u64 {
        START_MS + self.now_ms()
    }

    pub(super) fn trace_line(&mut self, what: fmt::Arguments<'_>) {
        self.trace.line(self.agenda.now_ms(), what);
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Runs events until then, or until the first violation.
    pub(super) fn run_until(&mut self, until_ms: u64) {
        while !self.watch.has_violations() {
            let Some(event) = self.agenda.next(until_ms) else { return };
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::To(life, event) => self.reach(life, event),
            Event::Traffic => self.produce(),
            Event::Election => self.hold_election(),
            Event::Fault => self.strike(),
            Event::Happening(at) => self.happening(at),
            Event::Heal(healing) => self.heal(healing),
            Event::Sink(writer) => self.work_sink(writer),
            Event::BackUp => self.back_up(),
            Event::Commit(proposal) => self.decide(proposal),
        }
    }

    fn reach(&mut self, life: Life, event: NodeEvent) {
        let now_ms = self.now_ms();
        let Some(node) = self.nodes.get(&life.node) else { return };
        if !node.is_alive || node.incarnation != life.incarnation {
            return;
        }
        if node.paused_until_ms > now_ms {
            let delay_ms = node.paused_until_ms - now_ms;
            self.agenda.after(delay_ms, Event::To(life, event));
            return;
        }
        match event {
            NodeEvent::Beat => self.beat(life),
            NodeEvent::Heard(heartbeat) => self.hear(life.node, heartbeat),
            NodeEvent::CatchUp { is_periodic } => self.catch_up(life, is_periodic),
            NodeEvent::Place => self.place(life),
            NodeEvent::PublishNews => self.publish_news(life),
            NodeEvent::News(publication) => self.publish(life, publication),
            NodeEvent::Freshen => self.freshen(life),
            NodeEvent::AskBudget => self.ask_budget(life),
            NodeEvent::Drain => self.drain_all(life),
            NodeEvent::CheckpointDue => self.checkpoint_all(life),
            NodeEvent::Shard(shard, attempt, event) => self.work_shard(life, shard, attempt, event),
            NodeEvent::Proposed(proposal) => self.lead(life, proposal),
            NodeEvent::Answered(id, answer) => self.answered(life, id, answer),
            NodeEvent::AskedIndex(from, index_for) => self.answer_index(life, from, index_for),
            NodeEvent::Index(index_for, index) => self.await_index(life, index_for, index),
            NodeEvent::Installed(index, bytes) => self.install(life, index, bytes),
        }
    }

    pub(super) fn is_linked(&self, from: NodeId, to: NodeId) -> bool {
        from == to || !self.cut_links.contains(&(from, to))
    }

    /// Sometimes far more than usual, so that a message arrives long after its sender gave up.
    pub(super) fn latency_ms(&mut self) -> u64 {
        let usual_ms = self.network.between(1, self.plan.latency_ms_max);
        if self.is_calm || self.plan.loss_one_in == 0 || !self.network.permille(LONG_DELAY_PERMILLE) {
            return usual_ms;
        }
        self.report.fault("message delayed");
        self.network.between(500, LONG_DELAY_MS_MAX)
    }

    /// Loses one in so many, while there are faults.
    pub(super) fn is_lost(&mut self) -> bool {
        let one_in = if self.is_calm { 0 } else { self.plan.loss_one_in };
        one_in > 0 && self.network.below(one_in) == 0
    }

    /// A message between two nodes, unless the network loses it.
    pub(super) fn send(&mut self, from: NodeId, to: Life, event: NodeEvent) {
        if !self.is_linked(from, to.node) {
            return;
        }
        if from != to.node && self.is_lost() {
            self.report.fault("message lost");
            return;
        }
        let delay_ms = if from == to.node { 1 } else { self.latency_ms() };
        self.agenda.after(delay_ms, Event::To(to, event));
    }

    // The leader's side of a proposal.

    pub(super) fn propose(&mut self, from: Life, proposer: Proposer, command: Command) {
        let id = self.next_id();
        let bytes: Arc<[u8]> = codec::encode(&command).expect("a command encodes").into();
        let node = self.nodes.get_mut(&from.node).expect("a proposer");
        node.memory.pending.insert(id, proposer);
        let leader = node.memory.known_leader;
        let retry = Err(ProposeError::Retry("no answer".into()));
        self.agenda.after(LEADER_DEADLINE_MS, Event::To(from, NodeEvent::Answered(id, retry)));
        let Some(leader) = leader.and_then(|leader| self.nodes.get(&leader)).map(SimNode::life) else { return };
        let proposal = Proposal { id, from, proposer, command, bytes, term: 0 };
        self.send(from.node, leader, NodeEvent::Proposed(proposal));
    }

    fn leads(&self, node: NodeId) -> bool {
        self.consensus.leader == Some(node) && self.has_majority(node)
    }

    fn lead(&mut self, life: Life, mut proposal: Proposal) {
        if !self.leads(life.node) {
            let no_leader = Err(ProposeError::Retry("no leader".into()));
            let id = proposal.id;
            self.send(life.node, proposal.from, NodeEvent::Answered(id, no_leader));
            return;
        }
        proposal.term = self.consensus.term;
        let delay_ms = self.latency_ms();
        self.agenda.after(delay_ms, Event::Commit(proposal));
    }

    fn decide(&mut self, proposal: Proposal) {
        let leader = self.consensus.leader.filter(|leader| self.leads(*leader));
        let is_same_term = leader.is_some() && proposal.term == self.consensus.term;
        // Entries in flight when their leader is deposed may or may not survive, and no answer is sent.
        if !is_same_term && (self.consensus.leader.is_none() || self.steps.permille(500)) {
            return;
        }
        let outcome = self.commit(&proposal);
        if is_same_term && let Some(leader) = leader {
            self.send(leader, proposal.from, NodeEvent::Answered(proposal.id, Ok(outcome)));
        }
    }

    pub(super) fn commit(&mut self, proposal: &Proposal) -> Outcome {
        let outcome = self.append(proposal);
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.consensus.leader.is_some_and(|leader| self.is_linked(leader, node)) {
                let (life, delay_ms) = (self.nodes[&node].life(), self.network.between(1, self.plan.latency_ms_max));
                self.agenda.after(delay_ms, Event::To(life, NodeEvent::CatchUp { is_periodic: false }));
            }
        }
        outcome
    }

    fn append(&mut self, proposal: &Proposal) -> Outcome {
        let before = self.watch.before(&self.consensus.state, &proposal.command);
        let outcome = self.consensus.commit(Arc::clone(&proposal.bytes));
        self.report.command(commands::name(&proposal.command));
        let index = self.consensus.committed();
        self.trace_line(format_args!("{index} {} by {:?}: {outcome:?}", describe(&proposal.command), proposal.from));
        if let Command::Checkpoint(checkpoint) = &proposal.command {
            self.watch.read_on(&self.log, checkpoint.shard);
        }
        self.watch.committed(&self.consensus.state, before, proposal, &outcome);
        if let Command::Checkpoint(checkpoint) = &proposal.command
            && outcome == Outcome::Done
            && checkpoint.from == checkpoint.to
            && self.is_counted_by_another(proposal)
        {
            self.watch.proof_of_an_earlier_life(checkpoint.shard);
        }
        outcome
    }

    pub(super) fn commit_directly(&mut self, command: Command) -> Outcome {
        let proposal = self.driver_proposal(command);
        self.commit(&proposal)
    }

    /// The replicas learn of it when they next catch up by themselves: telling them would draw from the network's
    /// stream, and shift the latency of every later message.
    pub(super) fn commit_unannounced(&mut self, command: Command) -> Outcome {
        let proposal = self.driver_proposal(command);
        self.append(&proposal)
    }

    fn driver_proposal(&self, command: Command) -> Proposal {
        let bytes: Arc<[u8]> = codec::encode(&command).expect("a command encodes").into();
        let from = Life { node: 0, incarnation: 0 };
        Proposal { id: 0, from, proposer: Proposer::Driver, command, bytes, term: self.consensus.term }
    }

    fn answered(&mut self, life: Life, id: u64, answer: Result<Outcome, ProposeError>) {
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        let Some(proposer) = node.memory.pending.remove(&id) else { return };
        match proposer {
            Proposer::Checkpoint(shard, attempt) => self.checkpoint_answered(life, shard, attempt, answer),
            Proposer::HandOver(shard, attempt) => self.handed_over(life, shard, attempt, answer),
            Proposer::Placement => node.memory.placements_in_flight -= 1,
            Proposer::Publisher => self.reported(life, answer.is_ok()),
            Proposer::Driver => {}
        }
    }

    // Questions to the leader how far the group has committed.

    pub(super) fn ask_index(&mut self, from: Life, index_for: IndexFor) {
        let leader = self.nodes[&from.node].memory.known_leader;
        let Some(leader) = leader.and_then(|leader| self.nodes.get(&leader)).map(SimNode::life) else { return };
        self.send(from.node, leader, NodeEvent::AskedIndex(from, index_for));
    }

    fn answer_index(&mut self, life: Life, from: Life, index_for: IndexFor) {
        if self.leads(life.node) {
            let index = self.consensus.committed();
            self.send(life.node, from, NodeEvent::Index(index_for, index));
        }
    }

    fn await_index(&mut self, life: Life, index_for: IndexFor, index: u64) {
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        node.memory.awaited.push((index, index_for));
        self.look_at_replica(life);
    }

    // Elections.

    pub(super) fn has_majority(&self, node: NodeId) -> bool {
        let now_ms = self.now_ms();
        let reaches = |other: &NodeId| {
            self.nodes.get(other).is_some_and(|other| other.is_running(now_ms))
                && self.is_linked(node, *other)
                && self.is_linked(*other, node)
        };
        self.consensus.is_majority(self.consensus.members.iter().filter(|other| reaches(other)).count())
    }

    fn can_lead(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.is_running(self.now_ms())) && self.has_majority(node)
    }

    fn hold_election(&mut self) {
        self.agenda.after(ELECTION_EVERY_MS, Event::Election);
        if self.elections_paused {
            return;
        }
        let now_ms = self.now_ms();
        if self.consensus.leader.is_some_and(|leader| self.can_lead(leader)) {
            self.leaderless_since_ms = None;
            return;
        }
        let since_ms = *self.leaderless_since_ms.get_or_insert(now_ms);
        if self.consensus.leader.is_some() && now_ms - since_ms < ELECTION_TIMEOUT_MS {
            return;
        }
        let able: Vec<NodeId> = self.consensus.members.iter().copied().filter(|node| self.can_lead(*node)).collect();
        let Some(&leader) = self.network.pick(&able) else {
            self.consensus.leader = None;
            return;
        };
        self.appoint(leader);
    }

    pub(super) fn appoint(&mut self, leader: NodeId) {
        self.consensus.term += 1;
        self.consensus.leader = Some(leader);
        self.leaderless_since_ms = None;
        let term = self.consensus.term;
        self.trace_line(format_args!("node {leader} leads in term {term}"));
        let node = self.nodes.get_mut(&leader).expect("a leader is a node");
        (node.memory.known_leader, node.memory.known_term) = (Some(leader), term);
    }
}

pub(super) fn register(node: NodeId) -> Command {
    let address = format!("node-{node}");
    Command::RegisterNode(NodeRecord {
        node,
        http_address: address.clone(),
        peer_address: address,
        can_aggregate: true,
    })
}

fn describe(command: &Command) -> String {
    match command {
        Command::Checkpoint(checkpoint) => format!(
            "checkpoint of shard {} epoch {}: [{}, {}) watermark {} complete {} {:?}",
            checkpoint.shard.0,
            checkpoint.epoch.0,
            checkpoint.from,
            checkpoint.to,
            checkpoint.watermark_ms,
            checkpoint.complete_to_ms,
            checkpoint.outcomes
        ),
        other => format!("{other:?}"),
    }
}
