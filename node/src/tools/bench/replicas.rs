//! Three replicas of one group in this process, each with a log of its own on disk, over localhost HTTP/2.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clicktally_proto::clock::Clock;
use clicktally_proto::command::{AssignShard, COMMAND_LEVEL, Command, GroupSettings, NodeRecord, Outcome};
use clicktally_proto::event_time::EventTimeRules;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::disk_storage::DiskStorage;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::peers::transport::HttpTransport;
use clicktally_raft_store::store::RaftStore;
use clicktally_raft_store::store_config::{RaftTiming, SnapshotRules, StoreConfig};
use tokio::net::TcpListener;

const CLUSTER: &str = "bench";
const NODES: [NodeId; 3] = [1, 2, 3];
/// The node that counts.
const OWNER: NodeId = 1;

pub(super) struct Replicas {
    stores: Vec<RaftStore>,
}

impl Replicas {
    pub(super) async fn start(folder: &Path, clock: Arc<dyn Clock>) -> anyhow::Result<Replicas> {
        let mut listeners = BTreeMap::new();
        for node in NODES {
            listeners.insert(node, TcpListener::bind("127.0.0.1:0").await?);
        }
        let mut founders = BTreeMap::new();
        for (node, listener) in &listeners {
            founders.insert(*node, listener.local_addr()?.to_string());
        }
        let mut stores = Vec::new();
        for (node, listener) in listeners {
            let config = StoreConfig {
                cluster: CLUSTER.to_owned(),
                node,
                groups: 1,
                founders: founders.clone(),
                timing: RaftTiming::default(),
                snapshots: SnapshotRules::default(),
                heartbeat_gap_max: Duration::from_secs(1),
                command_level: COMMAND_LEVEL,
            };
            let storage = Arc::new(DiskStorage::new(folder.join(format!("node-{node}"))));
            let transport = Arc::new(HttpTransport::new(CLUSTER)?);
            let store = RaftStore::open(config, storage, transport, Arc::clone(&clock)).await?;
            store.serve(listener);
            stores.push(store);
        }
        Ok(Replicas { stores })
    }

    /// Returns the owner's replica.
    pub(super) fn group(&self) -> anyhow::Result<Arc<Group>> {
        let group = self.stores.first().and_then(|store| store.group(GroupId(0))).context("the replica is missing")?;
        Ok(Arc::new(group.clone()))
    }

    /// Gives all sixteen shards to the one node that counts.
    pub(super) async fn assign(&self) -> anyhow::Result<()> {
        let group = self.group()?;
        decide(&group, Command::Configure(GroupSettings::new(1, EventTimeRules::default()))).await?;
        let record =
            NodeRecord { node: OWNER, http_address: "-".into(), peer_address: "-".into(), can_aggregate: true };
        decide(&group, Command::RegisterNode(record)).await?;
        for shard in ShardId::of_group(GroupId(0)) {
            let assignment = AssignShard { shard, owner: Some(OWNER), expected_epoch: Default::default() };
            decide(&group, Command::AssignShard(assignment)).await?;
        }
        Ok(())
    }

    pub(super) async fn stop(self) {
        for store in self.stores {
            store.shutdown().await;
        }
    }
}

async fn decide(group: &Group, command: Command) -> anyhow::Result<()> {
    loop {
        match group.propose(&command).await {
            Ok(Outcome::Rejected(rejection)) => anyhow::bail!("{rejection}"),
            Ok(_) => return Ok(()),
            // Wait for the first election.
            Err(error) if error.next_move() == NextMove::Retry => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await
            }
            Err(error) => return Err(error.into()),
        }
    }
}
