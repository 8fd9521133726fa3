//! A cluster of one node, in this process or in a child process that may die.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::clock::SystemClock;
use clicktally_proto::command::{COMMAND_LEVEL, CampaignTerms, Command, Outcome};
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_proto::money::Currency;
use clicktally_raft_store::disk_storage::DiskStorage;
use clicktally_raft_store::group::{Group, ProposeError};
use clicktally_raft_store::peers::transport::HttpTransport;
use clicktally_raft_store::storage::Storage;
use clicktally_raft_store::store::RaftStore;
use clicktally_raft_store::store_config::{RaftTiming, SnapshotRules, StoreConfig};

const FOLDER: &str = "CLICKTALLY_CRASH_TEST_FOLDER";
pub const GROUP: GroupId = GroupId(0);
/// The number of proposals of the child, if it does not die first. It always dies first: a snapshot is built beside
/// the proposals, so there are far more of them than three requests for a snapshot need.
pub const PROPOSALS: u64 = 5_000;

/// The storage folder of the node, inside the folder of a test.
pub fn store_folder(folder: &Path) -> PathBuf {
    folder.join("store")
}

pub async fn open(storage: Arc<dyn Storage>) -> RaftStore {
    let often =
        SnapshotRules { every_entries: 10, check_interval: Duration::from_millis(20), ..SnapshotRules::default() };
    open_with(storage, often).await
}

pub async fn open_with(storage: Arc<dyn Storage>, snapshots: SnapshotRules) -> RaftStore {
    let config = StoreConfig {
        cluster: "crash".to_owned(),
        node: 1,
        groups: 1,
        founders: BTreeMap::from([(1, "127.0.0.1:1".to_owned())]),
        timing: RaftTiming::FAST,
        snapshots,
        heartbeat_gap_max: Duration::from_secs(1),
        command_level: COMMAND_LEVEL,
    };
    let transport = Arc::new(HttpTransport::new("crash").unwrap());
    RaftStore::open(config, storage, transport, Arc::new(SystemClock)).await.unwrap()
}

pub async fn set_campaign(store: &RaftStore, campaign_id: u64) -> Outcome {
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

/// The campaigns of a replica after a read barrier.
pub async fn campaigns(group: &Group) -> Vec<u64> {
    while let Err(error) = group.read_barrier().await {
        assert!(matches!(error, ProposeError::Retry(_)), "{error}");
    }
    group.read(|state| state.campaigns().keys().copied().collect())
}

/// The work of a child process: proposes one campaign after the other, and records each acknowledged one in a file.
pub async fn propose_all(storage: impl FnOnce(PathBuf) -> Arc<dyn Storage>) {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let mut acknowledged = OpenOptions::new().create(true).append(true).open(folder.join("acknowledged")).unwrap();
    let store = open(storage(store_folder(folder))).await;
    for campaign in 1..=PROPOSALS {
        assert!(matches!(set_campaign(&store, campaign).await, Outcome::CampaignSet { .. }));
        acknowledged.write_all(b".").unwrap();
    }
    store.shutdown().await;
}

/// Runs an ignored test of this program in a process of its own. Returns its exit status and the number of
/// acknowledged proposals.
pub fn run_child(child: &str, folder: &Path, environment: &[(&str, &str)]) -> (ExitStatus, u64) {
    let status = Process::new(std::env::current_exe().unwrap())
        .args([child, "--exact", "--ignored"])
        .env(FOLDER, folder)
        .envs(environment.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    let mut dots = String::new();
    File::open(folder.join("acknowledged")).unwrap().read_to_string(&mut dots).unwrap();
    (status, u64::try_from(dots.len()).unwrap())
}

/// Opens the folder that a child left behind. Every acknowledged campaign must be there, and at most one more, whose
/// answer the child did not receive.
pub async fn assert_only_acknowledged(folder: &Path, acknowledged: u64) {
    let store = open(Arc::new(DiskStorage::new(store_folder(folder)))).await;
    let found = campaigns(store.group(GROUP).unwrap()).await;
    let all: Vec<u64> = (1..=acknowledged).collect();
    let with_one_in_doubt: Vec<u64> = (1..=acknowledged + 1).collect();
    assert!(found == all || found == with_one_in_doubt, "{acknowledged} acknowledged, found {found:?}");
    // The node accepts further proposals.
    assert!(matches!(set_campaign(&store, acknowledged + 1).await, Outcome::CampaignSet { .. }));
    store.shutdown().await;
}
