//! What tests and the demo ask a cluster over HTTP, of whichever node answers.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clicktally_proto::checkpoint::OutcomeCounts;
use serde::Deserialize;
use serde_json::Value;

/// A node that is frozen accepts a request and never answers, so the next node is asked after this. A caller that needs
/// the answer asks again until [`crate::eventually::HANG_MAX`].
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct ClusterClient {
    client: reqwest::Client,
    pub urls: Vec<String>,
}

/// `GET /v1/cluster`, as far as it is looked at here.
#[derive(Debug, Clone, Deserialize)]
pub struct ClusterView {
    #[serde(default)]
    pub nodes: Vec<MemberView>,
    pub groups: Vec<GroupView>,
}

/// A node over all groups.
#[derive(Debug, Clone, Deserialize)]
pub struct MemberView {
    pub node: u64,
    pub draining: bool,
    pub safe_to_stop: bool,
    pub groups_led: usize,
    pub shards: usize,
}

#[derive(Debug, Clone, Deserialize)]
pub struct GroupView {
    pub leader: Option<u64>,
    #[serde(default)]
    pub term: u64,
    /// The end of the answering node's log, as in the API.
    #[serde(default)]
    pub last_log: Option<u64>,
    #[serde(default)]
    pub applied: Option<u64>,
    #[serde(default)]
    pub snapshot: Option<u64>,
    #[serde(default)]
    pub purged: Option<u64>,
    /// Newest change of a fired window, and up to where such changes are in `window_counts`.
    #[serde(default)]
    pub newest_revision: u64,
    #[serde(default)]
    pub published_revision: u64,
    /// What its replica takes in memory, by the law that its budget is kept by.
    #[serde(default)]
    pub state_bytes: u64,
    pub shards: Vec<ShardView>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct ShardView {
    pub shard: u16,
    pub owner: Option<u64>,
    #[serde(default)]
    pub heir: Option<u64>,
    pub epoch: u64,
    pub committed_offset: u64,
    #[serde(default)]
    pub lag_records: Option<u64>,
    pub outcomes: OutcomesView,
}

/// What became of every click a shard read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct OutcomesView {
    pub read: u64,
    pub counted: u64,
    pub duplicate: u64,
    pub late: u64,
    pub invalid: u64,
    pub quarantined: u64,
    pub misrouted: u64,
}

/// The same counts as a replica holds them, for checks that read replicas instead of HTTP.
impl From<&OutcomeCounts> for OutcomesView {
    fn from(outcomes: &OutcomeCounts) -> OutcomesView {
        let &OutcomeCounts { read, counted, duplicate, late, invalid, quarantined, misrouted } = outcomes;
        OutcomesView { read, counted, duplicate, late, invalid, quarantined, misrouted }
    }
}

impl ClusterView {
    pub fn shards(&self) -> BTreeMap<u16, ShardView> {
        self.groups.iter().flat_map(|group| &group.shards).map(|shard| (shard.shard, shard.clone())).collect()
    }

    pub fn node(&self, id: u64) -> Option<&MemberView> {
        self.nodes.iter().find(|member| member.node == id)
    }

    pub fn owned_by(&self, node: u64) -> usize {
        self.shards().values().filter(|shard| shard.owner == Some(node)).count()
    }
}

impl ClusterClient {
    pub fn new(urls: Vec<String>) -> anyhow::Result<ClusterClient> {
        let client = reqwest::Client::builder().timeout(REQUEST_DEADLINE).connect_timeout(CONNECT_DEADLINE).build()?;
        Ok(ClusterClient { client, urls })
    }

    /// The same cluster, asked through these nodes only.
    pub fn through(&self, urls: Vec<String>) -> ClusterClient {
        ClusterClient { client: self.client.clone(), urls }
    }

    pub async fn cluster(&self) -> anyhow::Result<ClusterView> {
        Ok(serde_json::from_value(self.get("/v1/cluster").await?)?)
    }

    /// What exactly this node says.
    pub async fn cluster_as_seen_by(&self, url: &str) -> anyhow::Result<ClusterView> {
        Ok(serde_json::from_value(self.get_from(url, "/v1/cluster").await?)?)
    }

    /// Asks one node after the other until one answers with success.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let mut failure = String::from("no node given");
        for url in &self.urls {
            match self.get_from(url, path).await {
                Ok(value) => return Ok(value),
                Err(error) => failure = format!("{error:#}"),
            }
        }
        bail!("no node answers {path}: {failure}")
    }

    /// Asks exactly this node.
    pub async fn get_from(&self, url: &str, path: &str) -> anyhow::Result<Value> {
        let response =
            self.client.get(format!("{url}{path}")).send().await.with_context(|| format!("GET {url}{path}"))?;
        read(response).await
    }

    /// Asks one node after the other until one answers with success. Only for requests that may be repeated.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut failure = String::from("no node given");
        for url in &self.urls {
            let response = self.client.post(format!("{url}{path}")).json(body).send().await;
            let answer = match response {
                Ok(response) => read(response).await,
                Err(error) => Err(error.into()),
            };
            match answer {
                Ok(value) => return Ok(value),
                Err(error) => failure = format!("{error:#}"),
            }
        }
        bail!("no node takes {path}: {failure}")
    }

    /// True of a node that says it is ready to serve.
    pub async fn is_ready(&self, url: &str) -> bool {
        let response = self.client.get(format!("{url}/readyz")).send().await;
        response.is_ok_and(|response| response.status().is_success())
    }
}

async fn read(response: reqwest::Response) -> anyhow::Result<Value> {
    let status = response.status();
    let text = response.text().await?;
    if !status.is_success() {
        bail!("{status}: {text}");
    }
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}
