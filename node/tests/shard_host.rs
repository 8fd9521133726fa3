//! Shards on real Kafka and a real Raft log: whoever owns them, and however often they change hands, each click counts once.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use clicktally_embedded::{Kafka, KafkaOptions};
use clicktally_node::log::{FetchBy, KafkaLog, KafkaLogSettings};
use clicktally_node::shard::{ShardHost, ShardHostConfig};
use clicktally_proto::click::{Click, encode_record};
use clicktally_proto::click_log::{ClickLog, OutRecord, QUARANTINE, RAW_CLICKS};
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::command::{AssignShard, Command, GroupSettings, NodeRecord, Outcome};
use clicktally_proto::event_time::EventTimeRules;
use clicktally_proto::ids::SnowflakeMinter;
use clicktally_proto::shard_key::{GroupId, Partitioner, ShardId};
use clicktally_raft_store::disk_storage::DiskStorage;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::peer_transport::HttpTransport;
use clicktally_raft_store::state::GroupState;
use clicktally_raft_store::store::RaftStore;
use clicktally_raft_store::store_config::{RaftTiming, SnapshotRules, StoreConfig};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::net::TcpListener;

/// Nothing here takes a second on an idle machine; the limit is for one that is busy.
const PATIENCE: Duration = Duration::from_secs(120);
const NODE: u64 = 1;

async fn one_node(folder: &std::path::Path) -> RaftStore {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = StoreConfig {
        cluster: "test".to_owned(),
        node: NODE,
        groups: 1,
        founders: BTreeMap::from([(NODE, listener.local_addr().unwrap().to_string())]),
        timing: RaftTiming::default(),
        snapshots: SnapshotRules::default(),
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
            *sums.entry((minute.0, ad_id)).or_default() += cell.counts.clicks;
        }
    }
    sums
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_click_counts_once_through_restarts_and_changes_of_owner() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(KafkaOptions::for_tests(dir.path().join("kafka"))).await.unwrap();
    let settings = KafkaLogSettings {
        brokers: kafka.bootstrap(),
        partitioner: Partitioner::new(1),
        replication: None,
        fetch: FetchBy::Direct,
    };
    let log = Arc::new(KafkaLog::connect(settings).unwrap());
    log.ensure_topics().await.unwrap();
    let store = one_node(&dir.path().join("raft")).await;
    let group = Arc::new(store.group(GroupId(0)).unwrap().clone());
    let settings = GroupSettings { groups: 1, event_time: EventTimeRules::default() };
    assert_eq!(propose(&group, Command::Configure(settings)).await, Outcome::Done);
    let record = NodeRecord { node: NODE, http_address: "-".into(), peer_address: "-".into(), can_aggregate: true };
    propose(&group, Command::RegisterNode(record)).await;
    let start = || {
        let config = ShardHostConfig { checkpoint_interval: Duration::from_millis(50), threads: 2 };
        let log: Arc<dyn ClickLog> = Arc::clone(&log) as _;
        ShardHost::start(config, vec![Arc::clone(&group)], log, Arc::new(SystemClock)).unwrap()
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

    // What nobody can read is set aside and counted; what lies in a foreign partition is sent home.
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
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    assert_eq!(consumer.fetch_watermarks(QUARANTINE, 0, PATIENCE).unwrap(), (0, 1));

    // With nothing to read, every shard is proven empty and the group's watermark follows the clock.
    let now_ms = SystemClock.now_ms();
    until(&group, |state| state.complete_to_ms() >= now_ms && state.watermark_ms() + 5_000 >= now_ms).await;
    host.stop().await;
    store.shutdown().await;
}
