//! Shards on real Kafka and a real Raft log: each click counts once, however often the shards change their owner.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use clicktally_api::ports::HaltedParts;
use clicktally_embedded::{Kafka, KafkaOptions};
use clicktally_kafka::{FetchBy, KafkaConnection, KafkaLog, KafkaLogSettings};
use clicktally_node::actor_threads::ActorThreads;
use clicktally_node::halts::Halts;
use clicktally_node::log_clock::LogClock;
use clicktally_node::shard::{ShardHost, ShardHostConfig};
use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::click_log::{ClickLog, OutRecord, QUARANTINE, RAW_CLICKS};
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::command::{AssignShard, COMMAND_LEVEL, Command, GroupSettings, NodeRecord, Outcome};
use clicktally_proto::counts::window_count::WindowState;
use clicktally_proto::event_time::EventTimeRules;
use clicktally_proto::identity::ids::SnowflakeMinter;
use clicktally_proto::identity::shard_key::{GroupId, Partitioner, ShardId};
use clicktally_raft_store::disk_storage::DiskStorage;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::peers::transport::HttpTransport;
use clicktally_raft_store::store::RaftStore;
use clicktally_raft_store::store_config::{RaftTiming, SnapshotRules, StoreConfig};
use clicktally_state::group_state::GroupState;
use clicktally_state::limits::CELL_BYTES;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::Consumer;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Nothing here takes a second on an idle machine; the limit is for one that is busy.
const PATIENCE: Duration = Duration::from_secs(300);
const NODE: u64 = 1;

fn halts() -> Arc<Halts> {
    Arc::new(Halts::new(Arc::new(SystemClock)))
}

/// Is asked for as long as the test's runtime lives.
fn log_clock(log: Arc<dyn ClickLog>) -> Arc<LogClock> {
    let clock = Arc::new(LogClock::new(Arc::new(SystemClock)));
    let kept = Arc::clone(&clock);
    tokio::spawn(async move {
        let never = watch::Sender::new(false);
        kept.keep(log, halts(), never.subscribe()).await;
    });
    clock
}

async fn one_node(folder: &std::path::Path) -> RaftStore {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = StoreConfig {
        cluster: "test".to_owned(),
        node: NODE,
        groups: 1,
        founders: BTreeMap::from([(NODE, listener.local_addr().unwrap().to_string())]),
        timing: RaftTiming::default(),
        snapshots: SnapshotRules::default(),
        heartbeat_gap_max: Duration::from_secs(1),
        command_level: COMMAND_LEVEL,
    };
    let transport = Arc::new(HttpTransport::new("test").unwrap());
    let storage = Arc::new(DiskStorage::new(folder));
    let store = RaftStore::open(config, storage, transport, Arc::new(SystemClock)).await.unwrap();
    store.serve(listener);
    store
}

async fn propose(group: &Group, command: Command) -> Outcome {
    let decided = async {
        loop {
            if let Ok(outcome) = group.propose(&command).await {
                return outcome;
            }
        }
    };
    tokio::time::timeout(PATIENCE, decided).await.unwrap()
}

/// Gives every shard to the node, under a new epoch.
async fn assign_all(group: &Group) {
    for shard in ShardId::of_group(GroupId(0)) {
        let expected_epoch = group.read(|state| state.shard(shard).unwrap().epoch);
        let outcome =
            propose(group, Command::AssignShard(AssignShard { shard, owner: Some(NODE), expected_epoch })).await;
        assert!(matches!(outcome, Outcome::Assigned { .. }), "{outcome:?}");
    }
}

async fn until(group: &Group, wanted: impl Fn(&GroupState) -> bool) {
    let mut applied = group.applied();
    let seen = async {
        while !group.read(&wanted) {
            applied.changed().await.unwrap();
        }
    };
    if tokio::time::timeout(PATIENCE, seen).await.is_err() {
        panic!("still {:?}", group.read(|state| state.shards().clone()));
    }
}

fn total(state: &GroupState, of: impl Fn(&clicktally_proto::checkpoint::OutcomeCounts) -> u64) -> u64 {
    state.shards().values().map(|shard| of(&shard.outcomes)).sum()
}

type Sums = BTreeMap<(u32, u64), u64>;

/// Generated clicks, and the naive tally of the distinct ones.
struct Clicks {
    minter: SnowflakeMinter,
    sent: Vec<Click>,
    distinct: HashSet<u64>,
    sums: Sums,
    read: u64,
}

impl Clicks {
    /// `count` new clicks and a repetition of every tenth ever sent, each packed into records of its own partition.
    fn more(&mut self, count: u64) -> Vec<OutRecord> {
        let now_ms = SystemClock.now_ms();
        let repeated: Vec<Click> = self.sent.iter().step_by(10).cloned().collect();
        let minted = (0..count).map(|n| Click {
            click_id: self.minter.mint(now_ms).0,
            campaign_id: n % 5 + 1,
            ad_id: n % 7 + 1,
            event_time_ms: now_ms - n % 3 * 1_000,
            ..Click::default()
        });
        let clicks: Vec<Click> = minted.chain(repeated).collect();
        let mut by_shard: BTreeMap<ShardId, Vec<Click>> = BTreeMap::new();
        for click in &clicks {
            if self.distinct.insert(click.click_id) {
                *self.sums.entry(((click.event_time_ms / 60_000) as u32, click.ad_id)).or_default() += 1;
            }
            by_shard.entry(Partitioner::new(1).shard(click.campaign_id, click.id())).or_default().push(click.clone());
        }
        self.read += clicks.len() as u64;
        self.sent.extend(clicks);
        let pack = |(shard, clicks): (ShardId, Vec<Click>)| {
            clicks.chunks(20).map(|chunk| raw(shard, encode_record(chunk))).collect::<Vec<_>>()
        };
        by_shard.into_iter().flat_map(pack).collect()
    }
}

fn raw(shard: ShardId, value: Vec<u8>) -> OutRecord {
    OutRecord { topic: RAW_CLICKS, partition: Some(shard.partition()), key: Vec::new(), value }
}

fn counted(state: &GroupState) -> Sums {
    let mut sums = Sums::new();
    for (minute, window) in state.windows() {
        for (_, ad_id, cell) in window.cells() {
            *sums.entry((minute.0, ad_id)).or_default() += cell.clicks();
        }
    }
    sums
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_click_counts_once_through_restarts_and_changes_of_owner() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(KafkaOptions::for_tests(dir.path().join("kafka"))).await.unwrap();
    let settings = KafkaLogSettings {
        connection: KafkaConnection::plaintext(kafka.bootstrap()),
        partitioner: Partitioner::new(1),
        replication: None,
        fetch: FetchBy::Direct,
    };
    let log = Arc::new(KafkaLog::connect(settings).unwrap());
    log.ensure_topics().await.unwrap();
    let store = one_node(&dir.path().join("raft")).await;
    let group = Arc::new(store.group(GroupId(0)).unwrap().clone());
    let settings = GroupSettings::new(1, EventTimeRules::default());
    assert_eq!(propose(&group, Command::Configure(settings)).await, Outcome::Done);
    let record = NodeRecord { node: NODE, http_address: "-".into(), peer_address: "-".into(), can_aggregate: true };
    propose(&group, Command::RegisterNode(record)).await;
    let start = || {
        let config = ShardHostConfig { checkpoint_interval: Duration::from_millis(50) };
        let log: Arc<dyn ClickLog> = Arc::clone(&log) as _;
        let threads = ActorThreads::start("shards", 2).unwrap();
        let log_clock = log_clock(Arc::clone(&log));
        ShardHost::start(config, vec![Arc::clone(&group)], log, Arc::new(SystemClock), log_clock, threads, halts())
    };
    let mut clicks = Clicks {
        minter: SnowflakeMinter::new(1),
        sent: Vec::new(),
        distinct: HashSet::new(),
        sums: Sums::new(),
        read: 0,
    };

    // A host that is there before its shards are.
    let host = start();
    assign_all(&group).await;
    log.publish(clicks.more(3_000)).await.unwrap();
    until(&group, |state| total(state, |o| o.read) >= clicks.read).await;
    assert_eq!(group.read(counted), clicks.sums);

    // The same owner, restarted in the middle of a backlog: ids come back from replicated state.
    log.publish(clicks.more(3_000)).await.unwrap();
    host.stop().await;
    log.publish(clicks.more(3_000)).await.unwrap();
    let host = start();
    until(&group, |state| total(state, |o| o.read) >= clicks.read).await;
    assert_eq!(group.read(counted), clicks.sums);

    // New epochs while clicks come in.
    for _ in 0..3 {
        log.publish(clicks.more(1_000)).await.unwrap();
        assign_all(&group).await;
    }
    until(&group, |state| total(state, |o| o.read) >= clicks.read).await;
    assert_eq!(group.read(counted), clicks.sums);

    // An unreadable record is set aside and counted. A click in a foreign partition is sent to its own.
    let stray =
        Click { click_id: 77, campaign_id: 1, ad_id: 1, event_time_ms: SystemClock.now_ms(), ..Click::default() };
    let home = Partitioner::new(1).shard(stray.campaign_id, stray.id());
    let elsewhere = ShardId::new(GroupId(0), (home.salt() + 1) % 16);
    let strange = vec![raw(elsewhere, encode_record(std::slice::from_ref(&stray))), raw(home, b"\xff\xff".to_vec())];
    log.publish(strange).await.unwrap();
    // Read where it lay, read at home, and the garbage.
    until(&group, |state| total(state, |o| o.read) >= clicks.read + 3).await;
    let outcomes = |of: fn(&clicktally_proto::checkpoint::OutcomeCounts) -> u64| group.read(|state| total(state, of));
    assert_eq!(outcomes(|o| o.misrouted), 1);
    assert_eq!(outcomes(|o| o.quarantined), 1);
    assert_eq!(outcomes(|o| o.late + o.invalid), 0);
    assert_eq!(outcomes(|o| o.counted), clicks.distinct.len() as u64 + 1);
    let consumer = KafkaConnection::plaintext(kafka.bootstrap()).metadata_reader().unwrap();
    assert_eq!(consumer.fetch_watermarks(QUARANTINE, 0, PATIENCE).unwrap(), (0, 1));

    // With nothing to read, every shard is proven empty and the group's watermark follows the clock.
    let now_ms = SystemClock.now_ms();
    until(&group, |state| state.complete_to_ms() >= now_ms && state.watermark_ms() + 5_000 >= now_ms).await;
    host.stop().await;
    store.shutdown().await;
}

/// A click each of so many ads, all of one moment, in their partitions; a cell each.
fn one_click_each(minter: &mut SnowflakeMinter, ads: std::ops::Range<u64>, event_time_ms: u64) -> Vec<OutRecord> {
    let click = |ad_id| {
        let click_id = minter.mint(SystemClock.now_ms()).0;
        let click = Click { click_id, campaign_id: 1, ad_id, event_time_ms, ..Click::default() };
        raw(Partitioner::new(1).shard(click.campaign_id, click.id()), encode_record(std::slice::from_ref(&click)))
    };
    ads.map(click).collect()
}

/// Counts the refused checkpoints of this process.
fn refused_checkpoints() -> f64 {
    let families = prometheus::gather();
    let family = families.iter().find(|family| family.name() == "clicktally_checkpoint_failures_total");
    family.map_or(0.0, |family| family.get_metric()[0].get_counter().get_value())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_room_holds_its_shards_back_until_windows_leave_and_every_click_counts() {
    const ADS: u64 = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(KafkaOptions::for_tests(dir.path().join("kafka"))).await.unwrap();
    let settings = KafkaLogSettings {
        connection: KafkaConnection::plaintext(kafka.bootstrap()),
        partitioner: Partitioner::new(1),
        replication: None,
        fetch: FetchBy::default(),
    };
    let log = Arc::new(KafkaLog::connect(settings).unwrap());
    log.ensure_topics().await.unwrap();
    let store = one_node(&dir.path().join("raft")).await;
    let group = Arc::new(store.group(GroupId(0)).unwrap().clone());
    let event_time = EventTimeRules { allowed_lateness_ms: 0, ..EventTimeRules::default() };
    // Room for the first minute and a quarter of the second.
    let state_bytes_max = ADS * CELL_BYTES * 5 / 4;
    propose(&group, Command::Configure(GroupSettings { groups: 1, event_time, state_bytes_max })).await;
    let record = NodeRecord { node: NODE, http_address: "-".into(), peer_address: "-".into(), can_aggregate: true };
    propose(&group, Command::RegisterNode(record)).await;
    let mut minter = SnowflakeMinter::new(1);
    let now_ms = SystemClock.now_ms();
    // In the partitions before anybody reads them, so that none of it is late.
    log.publish(one_click_each(&mut minter, 1..ADS + 1, now_ms - 300_000)).await.unwrap();
    assign_all(&group).await;
    let config = ShardHostConfig { checkpoint_interval: Duration::from_millis(50) };
    let threads = ActorThreads::start("shards", 2).unwrap();
    let host = ShardHost::start(
        config,
        vec![Arc::clone(&group)],
        Arc::clone(&log) as _,
        Arc::new(SystemClock),
        log_clock(Arc::clone(&log) as _),
        threads,
        halts(),
    );
    let is_final = |state: &GroupState| state.windows().values().all(|window| window.state() == WindowState::Final);
    until(&group, |state| total(state, |o| o.counted) == ADS && is_final(state)).await;

    // Final, but published nowhere: nothing leaves.
    let refused_before = refused_checkpoints();
    log.publish(one_click_each(&mut minter, ADS + 1..2 * ADS + 1, SystemClock.now_ms())).await.unwrap();
    let refused = async {
        // A proposal is tried again within a second; each try is an entry of the log.
        let mut applied = group.applied();
        while refused_checkpoints() < refused_before + 3.0 {
            applied.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    let (held, counted_then) = group.read(|state| (state.held(), total(state, |o| o.counted)));
    assert!(held.bytes() <= state_bytes_max + state_bytes_max / 8, "{held:?}");
    assert!((ADS..2 * ADS).contains(&counted_then), "{counted_then}");

    let published_revision = group.read(|state| state.newest_revision());
    propose(&group, Command::SinkProgress { published_revision }).await;
    until(&group, |state| total(state, |o| o.read) == 2 * ADS).await;
    let outcomes = |of: fn(&clicktally_proto::checkpoint::OutcomeCounts) -> u64| group.read(|state| total(state, of));
    assert_eq!(outcomes(|o| o.counted), 2 * ADS);
    assert_eq!(outcomes(|o| o.late + o.duplicate + o.invalid + o.quarantined), 0);
    host.stop().await;
    store.shutdown().await;
}

async fn delete_raw_topic(kafka: &Kafka) {
    let admin = KafkaConnection::plaintext(kafka.bootstrap()).admin().unwrap();
    for deleted in admin.delete_topics(&[RAW_CLICKS], &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_shard_counts_nothing_of_a_topic_that_was_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(KafkaOptions::for_tests(dir.path().join("kafka"))).await.unwrap();
    // Each life of a node has clients of its own.
    let connect = || {
        let connection = KafkaConnection::plaintext(kafka.bootstrap());
        let fetch = FetchBy::default();
        let settings = KafkaLogSettings { connection, partitioner: Partitioner::new(1), replication: None, fetch };
        Arc::new(KafkaLog::connect(settings).unwrap())
    };
    let store = one_node(&dir.path().join("raft")).await;
    let group = Arc::new(store.group(GroupId(0)).unwrap().clone());
    propose(&group, Command::Configure(GroupSettings::new(1, EventTimeRules::default()))).await;
    let record = NodeRecord { node: NODE, http_address: "-".into(), peer_address: "-".into(), can_aggregate: true };
    propose(&group, Command::RegisterNode(record)).await;
    propose(&group, Command::AnnounceLevel { node: NODE, level: COMMAND_LEVEL }).await;
    assign_all(&group).await;
    let start = |log: &Arc<KafkaLog>, halts: &Arc<Halts>| {
        let config = ShardHostConfig { checkpoint_interval: Duration::from_millis(50) };
        let log: Arc<dyn ClickLog> = Arc::clone(log) as _;
        let threads = ActorThreads::start("shards", 2).unwrap();
        let (log_clock, halts) = (log_clock(Arc::clone(&log)), Arc::clone(halts));
        ShardHost::start(config, vec![Arc::clone(&group)], log, Arc::new(SystemClock), log_clock, threads, halts)
    };
    let mut minter = SnowflakeMinter::new(1);

    let log = connect();
    log.ensure_topics().await.unwrap();
    let counted_id = log.log_id().await.unwrap().expect("this broker gives ids");
    log.publish(one_click_each(&mut minter, 1..101, SystemClock.now_ms())).await.unwrap();
    let host = start(&log, &halts());
    until(&group, |state| total(state, |o| o.counted) == 100).await;
    assert_eq!(group.read(|state| state.log_id()), Some(counted_id));
    host.stop().await;
    drop(log);

    // More records in each partition than were counted, so that every committed offset lies within the new topic.
    delete_raw_topic(&kafka).await;
    let log = connect();
    log.ensure_topics().await.unwrap();
    let found_id = log.log_id().await.unwrap().unwrap();
    log.publish(one_click_each(&mut minter, 1..401, SystemClock.now_ms())).await.unwrap();
    let halts = halts();
    let host = start(&log, &halts);
    let all_halted = async {
        while HaltedParts::halted(halts.as_ref()).len() < 16 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(group.read(|state| total(state, |o| o.read)), 100, "clicks of another topic are counted");
        }
    };
    tokio::time::timeout(PATIENCE, all_halted).await.expect("every shard halts");
    for part in HaltedParts::halted(halts.as_ref()) {
        let names_both = [counted_id, found_id].iter().all(|id| part.reason.contains(&id.to_string()));
        assert!(part.part == "shard" && names_both, "{part:?}");
    }
    assert_eq!(group.read(|state| total(state, |o| o.read)), 100);
    host.stop().await;
    store.shutdown().await;
}
