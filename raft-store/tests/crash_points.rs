//! A process that dies between any two steps of a write loses nothing it acknowledged: each test runs a one-node cluster in a
//! child process, has it abort at a planted point, and opens what it left behind.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::clock::SystemClock;
use clicktally_proto::command::{CampaignTerms, Command, Outcome};
use clicktally_proto::money::Currency;
use clicktally_proto::shard_key::GroupId;
use clicktally_raft_store::group::ProposeError;
use clicktally_raft_store::peer_transport::HttpTransport;
use clicktally_raft_store::store::RaftStore;
use clicktally_raft_store::store_config::{RaftTiming, SnapshotRules, StoreConfig};

const FOLDER: &str = "CLICKTALLY_CRASH_TEST_FOLDER";
/// What `std::process::abort` dies of.
const SIGABRT: i32 = 6;
const GROUP: GroupId = GroupId(0);
/// The child proposes this many unless it dies before, which it does: a snapshot is built beside the proposals, so there must
/// be far more of them than it takes to ask for three.
const PROPOSALS: u64 = 5_000;

async fn open(folder: &Path) -> RaftStore {
    let config = StoreConfig {
        cluster: "crash".to_owned(),
        node: 1,
        folder: folder.join("store"),
        groups: 1,
        founders: BTreeMap::from([(1, "127.0.0.1:1".to_owned())]),
        timing: RaftTiming::FAST,
        snapshots: SnapshotRules {
            every_entries: 10,
            check_interval: Duration::from_millis(20),
            ..SnapshotRules::default()
        },
    };
    RaftStore::open(config, Arc::new(HttpTransport::new("crash").unwrap()), Arc::new(SystemClock)).await.unwrap()
}

async fn set_campaign(store: &RaftStore, campaign_id: u64) -> Outcome {
    let command = Command::SetCampaign(CampaignTerms {
        campaign_id,
        advertiser_id: 1,
        name: String::new(),
        currency: Currency::USD,
        cost_per_click_micros: 1,
        budget_micros: 1,
        tolerance_micros: 0,
        effective_from_ms: 0,
        expected_revision: None,
    });
    loop {
        match store.group(GROUP).unwrap().propose(&command).await {
            Ok(outcome) => return outcome,
            Err(ProposeError::Retry(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the tests below"]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let mut acknowledged = OpenOptions::new().create(true).append(true).open(folder.join("acknowledged")).unwrap();
    let store = open(folder).await;
    for campaign in 1..=PROPOSALS {
        assert!(matches!(set_campaign(&store, campaign).await, Outcome::CampaignSet { .. }));
        acknowledged.write_all(b".").unwrap();
    }
    store.shutdown().await;
}

/// Returns how many proposals the child had acknowledged when it died.
fn run_child_until(folder: &Path, point: &str) -> u64 {
    let status = Process::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored"])
        .env(FOLDER, folder)
        .env("CLICKTALLY_FAIL_AT", point)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(SIGABRT), "the child should have died at {point}");
    let mut dots = String::new();
    File::open(folder.join("acknowledged")).unwrap().read_to_string(&mut dots).unwrap();
    u64::try_from(dots.len()).unwrap()
}

async fn assert_nothing_acknowledged_is_lost(point: &str) {
    let folder = tempfile::tempdir().unwrap();
    let acknowledged = run_child_until(folder.path(), point);
    assert!((1..PROPOSALS).contains(&acknowledged), "{acknowledged} acknowledged before {point}");

    let store = open(folder.path()).await;
    let group = store.group(GROUP).unwrap();
    while let Err(error) = group.read_barrier().await {
        assert!(matches!(error, ProposeError::Retry(_)), "{error}");
    }
    let found: Vec<u64> = group.read(|state| state.campaigns().keys().copied().collect());
    let all: Vec<u64> = (1..=acknowledged).collect();
    let with_one_in_doubt: Vec<u64> = (1..=acknowledged + 1).collect();
    assert!(found == all || found == with_one_in_doubt, "{acknowledged} acknowledged, found {found:?}");
    // And life goes on.
    assert!(matches!(set_campaign(&store, acknowledged + 1).await, Outcome::CampaignSet { .. }));
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_after_the_fsync_loses_nothing() {
    assert_nothing_acknowledged_is_lost("raft.after_append:25").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_before_apply_loses_nothing() {
    assert_nothing_acknowledged_is_lost("raft.before_apply:25").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_after_apply_loses_nothing() {
    assert_nothing_acknowledged_is_lost("raft.after_apply:25").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_before_a_snapshot_gets_its_name_loses_nothing() {
    assert_nothing_acknowledged_is_lost("snapshot.after_write:3").await;
}
