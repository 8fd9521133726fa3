//! The process on a simulated host: the member and the window writer of production over simulated seams, without HTTP.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use clicktally_budget::BudgetRules;
use clicktally_node::actor_threads::ActorThreads;
use clicktally_node::cluster::member::{Member, MemberConfig, Seams};
use clicktally_node::halts::Part;
use clicktally_node::shard::ShardHostConfig;
use clicktally_node::sink::window_writer;
use clicktally_proto::clock::Clock;
use clicktally_proto::command::{GroupSettings, NodeRecord};
use clicktally_proto::event_time::EventTimeRules;
use clicktally_proto::identity::ids::NodeId;
use clicktally_raft_store::OpenError;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::store_config::{RaftTiming, SnapshotRules, StoreConfig};
use tokio::sync::watch;

use super::click_log::NodeLog;
use super::database::{NodeOutTopics, NodeTables};
use super::host_clock::HostClock;
use super::network::{Endpoint, SimTransport, address};
use super::operator::{self, Chore};
use super::probe::Probe;
use super::world::{Ended, World};
use crate::checks::ct18_whole_disks_are_let_in;

/// How long a silent node counts as alive.
const LEASE: Duration = Duration::from_secs(1);
/// Small, so that nodes make snapshots, purge behind them and install them all the time.
const SNAPSHOT_EVERY_ENTRIES: u64 = 150;

/// Those of production. Late storms reach back beyond the lateness.
pub(super) fn event_time_rules() -> EventTimeRules {
    EventTimeRules::default()
}

fn config(world: &World, node: NodeId, life: u64) -> MemberConfig {
    let founders: BTreeMap<NodeId, String> = world.nodes.iter().map(|node| (*node, address(*node))).collect();
    MemberConfig {
        store: StoreConfig {
            cluster: "simulation".to_owned(),
            node,
            groups: world.shape.group_count(),
            founders,
            timing: RaftTiming::default(),
            snapshots: SnapshotRules { every_entries: SNAPSHOT_EVERY_ENTRIES, ..SnapshotRules::default() },
            heartbeat_gap_max: LEASE / 2,
            command_level: world.host(node, |host| host.build).command_level(),
        },
        settings: GroupSettings::new(world.shape.group_count(), event_time_rules()),
        record: NodeRecord { node, http_address: String::new(), peer_address: address(node), can_aggregate: true },
        incarnation: life,
        lease: LEASE,
        shard_host: ShardHostConfig { checkpoint_interval: Duration::from_millis(500) },
        budget_rules: BudgetRules::default(),
    }
}

/// One life of one node, until the driver ends it or tells it to stop.
pub(super) async fn live(world: Arc<World>, node: NodeId) {
    let life = world.begin(node);
    // In a task of its own: a fail-stop unwinds it, and must not count as a failed simulation.
    let lived = tokio::task::spawn_local(run(Arc::clone(&world), node, life));
    if let Ok(ended) = lived.await {
        world.line(format_args!("node {node} has ended: {ended:?}"));
        world.host(node, |host| {
            (host.is_up, host.has_joined, host.groups) = (false, false, None);
            host.ended.get_or_insert(ended);
        });
    }
}

async fn run(world: Arc<World>, node: NodeId, life: u64) -> Ended {
    let refused = |error: &dyn std::fmt::Display| Ended::Refused(error.to_string());
    world.line(format_args!("node {node} starts, life {life}"));
    let storage = world.disk(node).attach();
    let (endpoint, inbox) = Endpoint::bind(Arc::clone(&world), node, life);
    let (service, served) = watch::channel(None);
    tokio::spawn(Arc::clone(&endpoint).receive(inbox, served));
    let (stop, mut stopped) = watch::channel(false);
    world.host(node, |host| (host.is_up, host.stop) = (true, Some(stop)));
    let clock: Arc<dyn Clock> = Arc::new(HostClock::new(Arc::clone(&world), node));
    let seams = Seams {
        clock: Arc::clone(&clock),
        log: Arc::new(NodeLog::new(Arc::clone(&world))),
        storage,
        transport: Arc::new(SimTransport(endpoint)),
        shard_threads: ActorThreads::on_this_one(),
        actor_threads: ActorThreads::on_this_one(),
    };
    let mut member = match Member::open(config(&world, node, life), seams).await {
        Ok(member) if world.disk(node).take_restored() => {
            judge_let_in(&world, node, member.groups());
            // No leader remembers what it has forgotten, so none can refuse it. An operator who restores an older disk
            // must know better.
            return Ended::Refused("its disk is that of another day".to_owned());
        }
        Ok(member) => member,
        Err(error) => {
            if matches!(error, OpenError::LogLost { .. } | OpenError::LogDamaged { .. } | OpenError::Wiped { .. }) {
                // A node that has left and lost its disk by the book may be refused by a leader that has not heard of
                // it. It tries again.
                let is_away = world.chores.lock().of(node).is_some_and(Chore::is_away);
                let was_replaced = is_away && matches!(error, OpenError::Wiped { .. });
                let has_lost = world.disk(node).is_rotten() || was_replaced;
                let breach = ct18_whole_disks_are_let_in::check(node, Some(&error.to_string()), has_lost);
                breach.into_iter().for_each(|violation| world.violate(violation));
            }
            world.disk(node).take_restored();
            return refused(&error);
        }
    };
    service.send_replace(Some(member.store().peer_service()));
    world.host(node, |host| host.groups = Some(Arc::clone(member.groups())));
    let joined = tokio::select! {
        joined = member.join() => joined,
        _ = stopped.wait_for(|stop| *stop) => {
            member.stop().await;
            return Ended::InOrder;
        }
    };
    match joined {
        Ok(worker) => world.line(format_args!("node {node} has joined, worker {worker}")),
        Err(error) => return refused(&error),
    }
    world.host(node, |host| host.has_joined = true);
    let groups = Arc::clone(member.groups());
    let operator = operator::run(Arc::clone(&world), node, Arc::clone(&groups));
    until_stopped(&mut member, Part::Placement, operator);
    let tables = Arc::new(NodeTables { world: Arc::clone(&world), node });
    let topics = Arc::new(NodeOutTopics(Arc::clone(&world)));
    let stop = member.stopped();
    let halts = member.halts();
    until_stopped(&mut member, Part::WindowWriter, window_writer::run(tables, topics, halts, stop));
    for group in groups.iter() {
        let (clock, desk) = (Arc::clone(&clock), member.budget_desk());
        let probe = Probe { world: Arc::clone(&world), node, group: group.clone(), desk, clock };
        until_stopped(&mut member, Part::Placement, probe.run());
    }
    let _ = stopped.wait_for(|stop| *stop).await;
    world.line(format_args!("node {node} stops in order"));
    member.stop().await;
    Ended::InOrder
}

fn until_stopped(member: &mut Member, part: Part, work: impl Future<Output = ()> + Send + 'static) {
    let mut stopped = member.stopped();
    member.spawn(part, async move {
        tokio::select! {
            () = work => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    });
}

/// A node whose disk was replaced by an older copy was let in: checks if a leader remembered more.
fn judge_let_in(world: &World, node: NodeId, groups: &[Group]) {
    for group in groups {
        let (last, term) = (group.status().last_log, group.leader_and_term().1);
        let remembered = world.remembered(node, group.id()).filter(|(since, _)| *since >= term).map(|(_, last)| last);
        let breach = ct18_whole_disks_are_let_in::check_let_in(node, last, remembered);
        breach.into_iter().for_each(|violation| world.violate(violation));
    }
}
