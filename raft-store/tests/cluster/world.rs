//! A cluster of nodes that a test can start, stop, wipe and compare.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::clock::SystemClock;
use clicktally_proto::command::{COMMAND_LEVEL, CampaignTerms, Command, GroupSettings, Outcome};
use clicktally_proto::event_time::EventTimeRules;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::{GroupId, Partitioner};
use clicktally_proto::money::Currency;
use clicktally_raft_store::OpenError;
use clicktally_raft_store::disk_storage::DiskStorage;
use clicktally_raft_store::group::{Group, GroupStatus, ProposeError};
use clicktally_raft_store::peers::transport::{HttpTransport, PeerTransport};
use clicktally_raft_store::serving::announcer::Announcer;
use clicktally_raft_store::store::RaftStore;
use clicktally_raft_store::store_config::{RaftTiming, SnapshotRules, StoreConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::links::{DamagingTransport, Links};

const CLUSTER: &str = "test";
/// Limit of every wait. Each wait takes less than a second on an idle machine; the limit is for a busy one.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub struct World {
    pub groups: u16,
    pub snapshots: SnapshotRules,
    pub links: Arc<Links>,
    folder: TempDir,
    addresses: BTreeMap<NodeId, SocketAddr>,
    founders: Vec<NodeId>,
    stores: BTreeMap<NodeId, RaftStore>,
}

impl World {
    /// Starts three founders.
    pub async fn start(groups: u16, snapshots: SnapshotRules) -> World {
        let mut world = World {
            groups,
            snapshots,
            links: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
            addresses: BTreeMap::new(),
            founders: vec![1, 2, 3],
            stores: BTreeMap::new(),
        };
        for node in world.founders.clone() {
            world.reserve_address(node).await;
        }
        for node in world.founders.clone() {
            world.run(node).await;
        }
        world
    }

    pub async fn reserve_address(&mut self, node: NodeId) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.addresses.insert(node, address);
        address.to_string()
    }

    pub async fn open(&self, node: NodeId) -> Result<RaftStore, OpenError> {
        let founders = self.founders.iter().map(|node| (*node, self.addresses[node].to_string())).collect();
        let config = StoreConfig {
            cluster: CLUSTER.to_owned(),
            node,
            groups: self.groups,
            founders,
            timing: RaftTiming::default(),
            snapshots: self.snapshots,
            heartbeat_gap_max: Duration::from_secs(1),
            command_level: COMMAND_LEVEL,
        };
        let storage = Arc::new(DiskStorage::new(self.node_folder(node)));
        let http = HttpTransport::new(CLUSTER).unwrap();
        let transport: Arc<dyn PeerTransport> = Arc::new(DamagingTransport { http, links: self.links.clone() });
        RaftStore::open(config, storage, transport, Arc::new(SystemClock)).await
    }

    pub async fn run(&mut self, node: NodeId) {
        let store = self.open_to_peers(node).await;
        self.keep(node, store);
    }

    /// Opens a node and serves its peers. Hand the store to [`World::keep`].
    pub async fn open_to_peers(&self, node: NodeId) -> RaftStore {
        let store = self.open(node).await.unwrap();
        store.serve(TcpListener::bind(self.addresses[&node]).await.unwrap());
        store
    }

    pub fn keep(&mut self, node: NodeId, store: RaftStore) {
        self.stores.insert(node, store);
    }

    pub async fn stop(&mut self, node: NodeId) {
        self.stores.remove(&node).unwrap().shutdown().await;
    }

    pub async fn stop_all(&mut self) {
        for node in self.running() {
            self.stop(node).await;
        }
    }

    pub fn running(&self) -> Vec<NodeId> {
        self.stores.keys().copied().collect()
    }

    pub fn node_folder(&self, node: NodeId) -> std::path::PathBuf {
        self.folder.path().join(format!("node-{node}"))
    }

    pub fn wipe(&self, node: NodeId) {
        std::fs::remove_dir_all(self.node_folder(node)).unwrap();
    }

    /// Copies the folder of a node that is stopped.
    pub fn back_up(&self, node: NodeId) {
        copy_folder(&self.node_folder(node), &self.node_folder(node).with_extension("backup"));
    }

    /// Replaces the current folder with the copy.
    pub fn restore(&self, node: NodeId) {
        self.wipe(node);
        std::fs::rename(self.node_folder(node).with_extension("backup"), self.node_folder(node)).unwrap();
    }

    pub fn announcer(&self, node: NodeId) -> &Announcer {
        self.stores[&node].announcer()
    }

    pub fn group(&self, node: NodeId, group: u16) -> &Group {
        self.stores[&node].group(GroupId(group)).unwrap()
    }

    /// Proposes through one node until the outcome is known.
    pub async fn propose(&self, node: NodeId, group: u16, command: &Command) -> Outcome {
        let proposed = async {
            loop {
                match self.group(node, group).propose(command).await {
                    Ok(outcome) => return outcome,
                    Err(ProposeError::Retry(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        timeout(PATIENCE, proposed).await.unwrap()
    }

    pub async fn configure(&self, node: NodeId) {
        let settings = GroupSettings::new(self.groups, EventTimeRules::default());
        for group in 0..self.groups {
            let outcome = self.propose(node, group, &Command::Configure(settings)).await;
            assert!(matches!(outcome, Outcome::Done | Outcome::AlreadyApplied), "{outcome:?}");
        }
    }

    /// The n-th campaign of a group.
    pub fn campaign(&self, group: u16, n: usize) -> Command {
        let partitioner = Partitioner::new(self.groups);
        let campaign_id = (1..).filter(|id| partitioner.group(*id) == GroupId(group)).nth(n).unwrap();
        Command::SetCampaign(CampaignTerms {
            campaign_id,
            advertiser_id: 1,
            name: format!("campaign {n}"),
            currency: Currency::USD,
            cost_per_click_micros: 10,
            budget_micros: 1_000_000,
            tolerance_micros: 0,
            effective_from_ms: 0,
            expected_revision: None,
        })
    }

    pub async fn set_campaigns(&self, node: NodeId, group: u16, numbers: std::ops::Range<usize>) {
        for n in numbers {
            let outcome = self.propose(node, group, &self.campaign(group, n)).await;
            assert!(matches!(outcome, Outcome::CampaignSet { .. }), "{outcome:?}");
        }
    }

    /// Waits until the status of a group on a node satisfies `wanted`, and returns it.
    pub async fn status_when(&self, node: NodeId, group: u16, wanted: impl Fn(&GroupStatus) -> bool) -> GroupStatus {
        let seen = async {
            loop {
                let status = self.group(node, group).status();
                if wanted(&status) {
                    return status;
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        match timeout(PATIENCE, seen).await {
            Ok(status) => status,
            Err(_) => panic!("still {:?}", self.group(node, group).status()),
        }
    }

    pub async fn leader(&self, group: u16) -> NodeId {
        let running = self.running();
        self.status_when(running[0], group, |status| status.leader.is_some_and(|leader| running.contains(&leader)))
            .await
            .leader
            .unwrap()
    }

    /// The encoded state of a group on each running node. Each is read after a read barrier, so all are at the same
    /// index.
    pub async fn states(&self, group: u16) -> Vec<Vec<u8>> {
        let mut states = Vec::new();
        for node in self.running() {
            let replica = self.group(node, group);
            let fresh = async {
                while let Err(error) = replica.read_barrier().await {
                    assert!(matches!(error, ProposeError::Retry(_)), "{error}");
                }
            };
            timeout(PATIENCE, fresh).await.unwrap();
            let mut bytes = Vec::new();
            replica.read(|state| state.freeze()).write_to(&mut bytes).unwrap();
            states.push(bytes);
        }
        states
    }

    pub async fn assert_equal_states(&self, group: u16) -> Vec<u8> {
        let mut states = self.states(group).await;
        let first = states.pop().unwrap();
        for other in states {
            assert!(other == first, "two replicas of group {group} differ");
        }
        first
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            std::fs::copy(&path, copy).unwrap();
        }
    }
}
