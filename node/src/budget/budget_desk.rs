//! The entry of budget checks: finds each campaign's actor, starts it on first use, and waits no longer than a
//! deadline.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use clicktally_api::ports::BudgetLane;
use clicktally_budget::{BudgetAnswer, BudgetRules, BusiestMinute, CHECK_DEADLINE, LaneFailure, close};
use clicktally_proto::clock::Clock;
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::identity::shard_key::Partitioner;
use clicktally_raft_store::group::Group;
use clicktally_state::windows::Window;
use futures::future::join_all;
use parking_lot::Mutex;

use super::budget_actor::{BudgetActor, Check};
use crate::actor_threads::ActorThreads;
use crate::log_clock::LogClock;

/// Twice this is below the deadline of the request, so that one silent campaign does not close the answers of the
/// others.
const ACTOR_DEADLINE: Duration = Duration::from_millis(150);
const _: () = assert!(
    2 * ACTOR_DEADLINE.as_millis() < CHECK_DEADLINE.as_millis(),
    "starting actors and asking them both fit into the deadline of a request"
);
/// Campaigns with an actor at once on one node; each takes some kilobytes.
pub const ACTORS_MAX: usize = 100_000;
/// How many recent minutes give the first velocity of a campaign.
const RECENT_MINUTES: usize = 3;

/// The actors that run now.
#[derive(Default)]
pub struct Directory(Mutex<HashMap<CampaignId, Addr<BudgetActor>>>);

impl Directory {
    fn find(&self, campaign: CampaignId) -> Option<Addr<BudgetActor>> {
        self.0.lock().get(&campaign).filter(|address| address.connected()).cloned()
    }

    fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Removes only this actor: a successor may have taken its place.
    pub(super) fn remove(&self, campaign: CampaignId, address: &Addr<BudgetActor>) {
        let mut actors = self.0.lock();
        if actors.get(&campaign) == Some(address) {
            actors.remove(&campaign);
        }
    }
}

/// The production budget lane of a node.
pub struct BudgetDesk {
    groups: Vec<Arc<Group>>,
    partitioner: Partitioner,
    clock: Arc<dyn Clock>,
    log_clock: Arc<LogClock>,
    rules: BudgetRules,
    threads: Arc<ActorThreads>,
    directory: Arc<Directory>,
    /// Held while actors start, so that no campaign gets two.
    activating: tokio::sync::Mutex<()>,
}

impl BudgetDesk {
    /// `groups`: the index is the group id.
    pub fn new(
        groups: Vec<Arc<Group>>,
        partitioner: Partitioner,
        clock: Arc<dyn Clock>,
        log_clock: Arc<LogClock>,
        rules: BudgetRules,
        threads: Arc<ActorThreads>,
    ) -> BudgetDesk {
        let directory = Arc::default();
        BudgetDesk {
            groups,
            partitioner,
            clock,
            log_clock,
            rules,
            threads,
            directory,
            activating: tokio::sync::Mutex::default(),
        }
    }

    fn group_of(&self, campaign: CampaignId) -> Option<&Arc<Group>> {
        self.groups.get(usize::from(self.partitioner.group(campaign).0))
    }

    /// Starts the missing actors of campaigns that exist. Invented ids start none, so they cannot fill the node.
    async fn activate(&self, campaigns: &[CampaignId]) {
        let is_asleep = |campaign: &CampaignId| self.directory.find(*campaign).is_none();
        if !campaigns.iter().any(is_asleep) {
            return;
        }
        let _activating = self.activating.lock().await;
        let mut asleep: BTreeMap<u16, Vec<CampaignId>> = BTreeMap::new();
        for &campaign in campaigns.iter().filter(|campaign| is_asleep(campaign)) {
            let group = self.partitioner.group(campaign).0;
            asleep.entry(group).or_default().push(campaign);
        }
        for (group, campaigns) in asleep {
            let Some(group) = self.groups.get(usize::from(group)) else { continue };
            self.activate_in(group, campaigns).await;
        }
    }

    async fn activate_in(&self, group: &Arc<Group>, mut campaigns: Vec<CampaignId>) {
        let windows: Vec<Arc<Window>> = group.read(|state| {
            campaigns.retain(|campaign| state.campaign(*campaign).is_some());
            state.windows().values().rev().take(RECENT_MINUTES).cloned().collect()
        });
        let mut busiest = BusiestMinute::of(&campaigns);
        windows.iter().for_each(|window| busiest.observe(window.spends()));
        for (campaign, velocity) in busiest.per_second() {
            if self.directory.len() >= ACTORS_MAX {
                tracing::warn!(
                    ACTORS_MAX,
                    "this node has reached its limit of budget actors: checks of other campaigns are answered with pause"
                );
                return;
            }
            let directory = Arc::clone(&self.directory);
            let (group, clock, log_clock) = (Arc::clone(group), Arc::clone(&self.clock), Arc::clone(&self.log_clock));
            let rules = self.rules;
            let start = move || BudgetActor::new(campaign, group, clock, log_clock, rules, directory, velocity).start();
            let slot = usize::try_from(campaign).unwrap_or(0);
            let Ok(address) = self.threads.run(slot, start).await else { return };
            self.directory.0.lock().insert(campaign, address);
            assert!(
                self.directory.len() <= ACTORS_MAX,
                "actors start one after another, so their number keeps its limit"
            );
        }
    }

    async fn ask(&self, campaign: CampaignId) -> BudgetAnswer {
        let closed = |failure| close(campaign, failure, self.clock.now_ms());
        let Some(address) = self.directory.find(campaign) else {
            let exists = |group: &Arc<Group>| group.read(|state| state.campaign(campaign).is_some());
            let is_known = self.group_of(campaign).is_some_and(exists);
            return closed(if is_known { LaneFailure::Full } else { LaneFailure::UnknownCampaign });
        };
        match tokio::time::timeout(ACTOR_DEADLINE, address.send(Check)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => closed(LaneFailure::Unreachable),
            Err(_) => closed(LaneFailure::Timeout),
        }
    }
}

#[async_trait::async_trait]
impl BudgetLane for BudgetDesk {
    async fn check(&self, campaigns: Vec<CampaignId>) -> Vec<BudgetAnswer> {
        // If starting takes too long, the running actors still answer; the other campaigns are closed for now.
        if tokio::time::timeout(ACTOR_DEADLINE, self.activate(&campaigns)).await.is_err() {
            tracing::warn!(campaigns = campaigns.len(), "starting budget actors took too long");
        }
        let asked = campaigns.len();
        let answers = join_all(campaigns.into_iter().map(|campaign| self.ask(campaign))).await;
        assert_eq!(answers.len(), asked, "every campaign asked about gets exactly one answer");
        answers
    }
}

#[cfg(test)]
mod tests {
    use clicktally_budget::BudgetDecision;
    use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
    use clicktally_proto::clock::SystemClock;
    use clicktally_proto::command::{
        AssignShard, COMMAND_LEVEL, CampaignTerms, Command, GroupSettings, NodeRecord, Outcome,
    };
    use clicktally_proto::counts::cell_block::CellBlock;
    use clicktally_proto::counts::cell_counts::{CellDelta, CellKey, Counts};
    use clicktally_proto::event_time::{EventTimeRules, Minute};
    use clicktally_proto::identity::shard_key::{GroupId, ShardId};
    use clicktally_proto::money::Currency;
    use clicktally_raft_store::disk_storage::DiskStorage;
    use clicktally_raft_store::group::ProposeError;
    use clicktally_raft_store::peers::transport::HttpTransport;
    use clicktally_raft_store::store::RaftStore;
    use clicktally_raft_store::store_config::{RaftTiming, SnapshotRules, StoreConfig};
    use tokio::net::TcpListener;

    use super::*;
    use crate::log_clock::tests::agreeing;

    const CAMPAIGN: CampaignId = 7;

    struct World {
        store: RaftStore,
        threads: Arc<ActorThreads>,
        _folder: tempfile::TempDir,
    }

    impl World {
        async fn start() -> World {
            let folder = tempfile::tempdir().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let config = StoreConfig {
                cluster: "budget".to_owned(),
                node: 1,
                groups: 1,
                founders: BTreeMap::from([(1, listener.local_addr().unwrap().to_string())]),
                timing: RaftTiming::default(),
                snapshots: SnapshotRules::default(),
                heartbeat_gap_max: Duration::from_secs(1),
                command_level: COMMAND_LEVEL,
            };
            let transport = Arc::new(HttpTransport::new("budget").unwrap());
            let storage = Arc::new(DiskStorage::new(folder.path()));
            let store = RaftStore::open(config, storage, transport, Arc::new(SystemClock)).await.unwrap();
            store.serve(listener);
            let threads = Arc::new(ActorThreads::start("budget", 1).unwrap());
            let world = World { store, threads, _folder: folder };
            let settings = GroupSettings::new(1, EventTimeRules::default());
            world.propose(Command::Configure(settings)).await;
            let address = String::new();
            let node =
                NodeRecord { node: 1, http_address: address.clone(), peer_address: address, can_aggregate: true };
            world.propose(Command::RegisterNode(node)).await;
            for shard in ShardId::of_group(GroupId(0)) {
                world
                    .propose(Command::AssignShard(AssignShard { shard, owner: Some(1), expected_epoch: Epoch(0) }))
                    .await;
            }
            world
        }

        fn group(&self) -> &Group {
            self.store.group(GroupId(0)).unwrap()
        }

        async fn propose(&self, command: Command) -> Outcome {
            loop {
                match self.group().propose(&command).await {
                    Ok(outcome) => return outcome,
                    Err(ProposeError::Retry(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }

        async fn set_budget(&self, budget_micros: i64) {
            let terms = CampaignTerms {
                campaign_id: CAMPAIGN,
                advertiser_id: 1,
                name: String::new(),
                currency: Currency::USD,
                cost_per_click_micros: 10,
                budget_micros,
                tolerance_micros: 0,
                effective_from_ms: 0,
                expected_revision: None,
            };
            assert!(matches!(self.propose(Command::SetCampaign(terms)).await, Outcome::CampaignSet { .. }));
        }

        /// Every shard reports that it is complete; the first one with these clicks.
        async fn count(&self, clicks: u64) {
            for shard in ShardId::of_group(GroupId(0)) {
                let mine = if shard == ShardId(0) { clicks } else { 0 };
                let key = CellKey { minute: Minute(1), campaign_id: CAMPAIGN, ad_id: 1 };
                let mut cells = vec![CellDelta { key, counts: Counts { clicks: mine, ..Counts::default() } }];
                cells.retain(|cell| cell.counts.clicks > 0);
                let checkpoint = Checkpoint {
                    shard,
                    epoch: Epoch(1),
                    from: 0,
                    to: mine,
                    watermark_ms: 0,
                    complete_to_ms: SystemClock.now_ms(),
                    outcomes: OutcomeCounts { read: mine, counted: mine, ..OutcomeCounts::default() },
                    cells: CellBlock::pack(&mut cells),
                    seen: Vec::new(),
                };
                assert_eq!(self.propose(Command::Checkpoint(checkpoint)).await, Outcome::Done);
            }
            while self.group().read_barrier().await.is_err() {}
        }

        fn desk(&self, staleness_max: Duration) -> BudgetDesk {
            let groups = vec![Arc::new(self.group().clone())];
            let rules = BudgetRules { staleness_max, counting_lag_max: PATIENT, ..BudgetRules::default() };
            let (log_clock, threads) = (agreeing(), Arc::clone(&self.threads));
            BudgetDesk::new(groups, Partitioner::new(1), Arc::new(SystemClock), log_clock, rules, threads)
        }
    }

    const PATIENT: Duration = Duration::from_secs(3_600);

    /// Repeats the check until the machine is fast enough for an answer.
    async fn reason(desk: &BudgetDesk, campaign: CampaignId) -> (BudgetDecision, &'static str) {
        loop {
            let answers = desk.check(vec![campaign]).await;
            assert_eq!(answers.len(), 1);
            if !["timeout", "overloaded"].contains(&answers[0].reason) {
                return (answers[0].decision, answers[0].reason);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_budget_opens_when_everything_is_counted_and_closes_when_it_is_spent() {
        let world = World::start().await;
        let desk = world.desk(PATIENT);
        assert_eq!(reason(&desk, CAMPAIGN).await, (BudgetDecision::Pause, "unknown_campaign"));
        assert_eq!(desk.directory.len(), 0, "an invented campaign must not get an actor");

        world.set_budget(1_000).await;
        while world.group().read_barrier().await.is_err() {}
        assert_eq!(reason(&desk, CAMPAIGN).await, (BudgetDecision::Pause, "counting_behind"));

        world.count(50).await;
        assert_eq!(reason(&desk, CAMPAIGN).await, (BudgetDecision::Serve, "within_budget"));
        let answers = desk.check(vec![CAMPAIGN, 8]).await;
        assert_eq!(answers.iter().map(|answer| answer.campaign_id).collect::<Vec<_>>(), [CAMPAIGN, 8]);
        assert_eq!(desk.directory.len(), 1);
        assert_eq!(reason(&world.desk(Duration::ZERO), CAMPAIGN).await, (BudgetDecision::Pause, "replica_stale"));

        world.set_budget(500).await;
        assert_eq!(reason(&desk, CAMPAIGN).await, (BudgetDecision::Pause, "budget_spent"));
        world.store.shutdown().await;
    }
}
