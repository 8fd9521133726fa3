//! One TOML file. The environment can set every key (`CLICKTALLY_NODE__HTTP_LISTEN`). Unknown keys are rejected.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clicktally_kafka::{FetchBy, KafkaConnection};
use clicktally_proto::command::{GroupSettings, STATE_BYTES_MAX_DEFAULT};
use clicktally_proto::event_time::EventTimeRules;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GROUPS_MAX;
use clicktally_raft_store::store_config::SnapshotRules;
use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::Url;

use crate::shard::LIVE_SPAN_MAX_MS;

/// Below this, a node spends most of its time on snapshots; above it, a restart replays for long.
const SNAPSHOT_EVERY_ENTRIES: RangeInclusive<u64> = 10..=1_000_000;
/// Each group's log takes up to two such stretches on the disk.
const SNAPSHOT_EVERY_BYTES: RangeInclusive<u64> = 1024 * 1024..=1024 * 1024 * 1024;
/// Below this, a single checkpoint of one shard might not fit.
const STATE_BYTES_LEAST: u64 = 64 * 1024 * 1024;

/// The text shown instead of a secret.
const MASK: &str = "********";

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("unknown key '{key}' in {place}{hint}")]
    UnknownKey { key: String, place: String, hint: String },
    #[error("configuration: {0}")]
    Invalid(String),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub node: NodeSection,
    pub cluster: ClusterSection,
    pub log: LogSection,
    pub postgres: PostgresSection,
    pub event_time: EventTimeSection,
    pub stream: StreamSection,
    pub budget: BudgetSection,
    pub archive: ArchiveSection,
    /// The sources that may send clicks, by bearer token. If empty, every sender is accepted as source "anonymous".
    pub sources: Vec<SourceSection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes clicks over HTTP.
    Capture,
    /// Counts shards.
    Aggregate,
    /// Answers queries and budget checks, writes windows to PostgreSQL.
    Serve,
    /// Moves the raw log into the Parquet archive.
    Archive,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSection {
    /// Unique, never 0, never reused for another machine.
    pub id: NodeId,
    pub roles: Vec<Role>,
    pub http_listen: String,
    /// The address that other nodes get; empty: `http_listen`.
    pub http_advertise: String,
    pub peer_listen: String,
    pub data_dir: PathBuf,
    /// Threads that host shard and budget actors.
    pub actor_threads: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSection {
    pub name: String,
    pub groups: u16,
    /// The founding members, `id = "host:port"` of their peer interfaces; the same on every node.
    pub peers: BTreeMap<String, String>,
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
    /// A node silent for this long loses its shards.
    pub node_lease_ms: u64,
    /// A group snapshots its state after this many log entries, or this many bytes of them, whichever comes first. Its
    /// log holds at most two such stretches.
    pub snapshot_every_entries: u64,
    pub snapshot_every_bytes: u64,
    /// The approximate memory limit for one group's cells and seen ids. At the limit its shards wait for windows to
    /// become final. A restart may raise the limit later, never lower it.
    pub state_bytes_max: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Kafka bootstrap servers, `host:port,host:port`.
    pub brokers: String,
    /// Replication of the topics that this node creates.
    pub replication: i32,
    /// "direct", or "librdkafka" if the raw topic holds batches older than Kafka 0.11.
    pub fetch: FetchBy,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresSection {
    pub url: String,
}

/// Shows the address, never the password.
impl fmt::Debug for PostgresSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresSection({})", masked_url(&self.url))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventTimeSection {
    pub out_of_orderness_ms: u64,
    pub allowed_lateness_ms: u64,
    pub retain_final_ms: u64,
    pub max_ahead_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamSection {
    /// How often a shard's counts go into replicated state. A click becomes visible half of this later, on average. The
    /// cost of shorter intervals is in docs/performance.md.
    pub checkpoint_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetSection {
    /// How far the counting may be behind before the budget lane pauses.
    pub counting_lag_max_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveSection {
    /// A folder, or `s3://bucket/prefix`; empty: `archive` below the node's data folder.
    pub location: String,
    pub flush_rows: usize,
    pub flush_ms: u64,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSection {
    pub name: String,
    pub token: String,
}

impl fmt::Debug for SourceSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceSection({})", self.name)
    }
}

impl Default for NodeSection {
    fn default() -> Self {
        NodeSection {
            id: 1,
            roles: vec![Role::Capture, Role::Aggregate, Role::Serve, Role::Archive],
            http_listen: "127.0.0.1:8080".into(),
            http_advertise: String::new(),
            peer_listen: "127.0.0.1:7080".into(),
            data_dir: PathBuf::from("clicktally-data"),
            actor_threads: 2,
        }
    }
}

impl Default for ClusterSection {
    fn default() -> Self {
        let snapshots = SnapshotRules::default();
        ClusterSection {
            name: "clicktally".into(),
            groups: 1,
            peers: BTreeMap::new(),
            heartbeat_ms: 50,
            election_min_ms: 150,
            election_max_ms: 300,
            node_lease_ms: 1_000,
            snapshot_every_entries: snapshots.every_entries,
            snapshot_every_bytes: snapshots.every_bytes,
            state_bytes_max: STATE_BYTES_MAX_DEFAULT,
        }
    }
}

impl LogSection {
    pub fn connection(&self) -> KafkaConnection {
        KafkaConnection::plaintext(self.brokers.clone())
    }
}

impl Default for LogSection {
    fn default() -> Self {
        LogSection { brokers: "127.0.0.1:9092".into(), replication: 1, fetch: FetchBy::default() }
    }
}

impl Default for PostgresSection {
    fn default() -> Self {
        PostgresSection { url: "postgres://clicktally@127.0.0.1:5432/clicktally".into() }
    }
}

impl Default for EventTimeSection {
    fn default() -> Self {
        let rules = EventTimeRules::default();
        EventTimeSection {
            out_of_orderness_ms: rules.out_of_orderness_ms,
            allowed_lateness_ms: rules.allowed_lateness_ms,
            retain_final_ms: rules.retain_final_ms,
            max_ahead_ms: rules.max_ahead_ms,
        }
    }
}

impl Default for StreamSection {
    fn default() -> Self {
        StreamSection { checkpoint_ms: 500 }
    }
}

impl Default for BudgetSection {
    fn default() -> Self {
        BudgetSection { counting_lag_max_ms: 10_000 }
    }
}

impl Default for ArchiveSection {
    fn default() -> Self {
        ArchiveSection { location: String::new(), flush_rows: 1_000_000, flush_ms: 60_000 }
    }
}

impl Config {
    /// Loads the defaults, then the file, then the environment, and checks the result.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        if let Some(path) = path {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.display().to_string(), source })?;
            figment = figment.merge(Toml::string(&text));
        }
        // Read only keys with a section: CLICKTALLY_URL and the like are not configuration.
        let environment = Env::prefixed("CLICKTALLY_").filter(|key| key.as_str().contains("__")).split("__");
        let config: Config = figment.merge(environment).extract().map_err(|error| explain(&error))?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), ConfigError> {
        let invalid = |text: String| Err(ConfigError::Invalid(text));
        if self.node.id == 0 {
            return invalid("node.id must not be 0".into());
        }
        if self.node.roles.is_empty() {
            return invalid("node.roles is empty: name at least one of capture, aggregate, serve, archive".into());
        }
        if !(1..=GROUPS_MAX).contains(&self.cluster.groups) {
            return invalid(format!("cluster.groups must be 1..={GROUPS_MAX}, is {}", self.cluster.groups));
        }
        if !(1..=64).contains(&self.node.actor_threads) {
            return invalid(format!("node.actor_threads must be 1..=64, is {}", self.node.actor_threads));
        }
        if !(50..=60_000).contains(&self.stream.checkpoint_ms) {
            return invalid(format!("stream.checkpoint_ms must be 50..=60000, is {}", self.stream.checkpoint_ms));
        }
        let cluster = &self.cluster;
        if cluster.heartbeat_ms * 2 > cluster.election_min_ms || cluster.election_min_ms >= cluster.election_max_ms {
            return invalid(
                "cluster: heartbeat_ms must be at most half of election_min_ms, and election_min_ms below election_max_ms".into(),
            );
        }
        if cluster.node_lease_ms < cluster.election_max_ms {
            return invalid("cluster.node_lease_ms must not be below election_max_ms".into());
        }
        let times = &self.event_time;
        if times.allowed_lateness_ms.saturating_add(times.out_of_orderness_ms) > LIVE_SPAN_MAX_MS {
            return invalid(format!(
                "event_time: allowed_lateness_ms and out_of_orderness_ms together must be at most {LIVE_SPAN_MAX_MS}"
            ));
        }
        if !SNAPSHOT_EVERY_ENTRIES.contains(&cluster.snapshot_every_entries) {
            let (least, most) = (SNAPSHOT_EVERY_ENTRIES.start(), SNAPSHOT_EVERY_ENTRIES.end());
            let is = cluster.snapshot_every_entries;
            return invalid(format!("cluster.snapshot_every_entries must be {least}..={most}, is {is}"));
        }
        if !SNAPSHOT_EVERY_BYTES.contains(&cluster.snapshot_every_bytes) {
            let (least, most) = (SNAPSHOT_EVERY_BYTES.start(), SNAPSHOT_EVERY_BYTES.end());
            let is = cluster.snapshot_every_bytes;
            return invalid(format!("cluster.snapshot_every_bytes must be {least}..={most}, is {is}"));
        }
        if cluster.state_bytes_max < STATE_BYTES_LEAST {
            let is = cluster.state_bytes_max;
            return invalid(format!("cluster.state_bytes_max must be {STATE_BYTES_LEAST} or more, is {is}"));
        }
        self.founders()?;
        for (name, address) in
            [("node.http_listen", &self.node.http_listen), ("node.peer_listen", &self.node.peer_listen)]
        {
            if address.parse::<std::net::SocketAddr>().is_err() {
                return invalid(format!("{name} must be IP:PORT, is '{address}'"));
            }
        }
        if self.sources.iter().any(|source| source.token.len() < 16) {
            return invalid("sources: a token must have at least 16 characters".into());
        }
        Ok(())
    }

    /// Returns the founding members by id; a single node needs no list.
    pub fn founders(&self) -> Result<BTreeMap<NodeId, String>, ConfigError> {
        if self.cluster.peers.is_empty() {
            return Ok(BTreeMap::from([(self.node.id, self.node.peer_listen.clone())]));
        }
        let parse = |(id, address): (&String, &String)| match id.parse::<NodeId>() {
            Ok(id) if id > 0 => Ok((id, address.clone())),
            _ => Err(ConfigError::Invalid(format!("cluster.peers: '{id}' is not a node id (a number above 0)"))),
        };
        self.cluster.peers.iter().map(parse).collect()
    }

    pub fn has(&self, role: Role) -> bool {
        self.node.roles.contains(&role)
    }

    pub fn http_advertised(&self) -> &str {
        if self.node.http_advertise.is_empty() { &self.node.http_listen } else { &self.node.http_advertise }
    }

    pub fn group_settings(&self) -> GroupSettings {
        let times = &self.event_time;
        GroupSettings {
            groups: self.cluster.groups,
            event_time: EventTimeRules {
                out_of_orderness_ms: times.out_of_orderness_ms,
                allowed_lateness_ms: times.allowed_lateness_ms,
                retain_final_ms: times.retain_final_ms,
                max_ahead_ms: times.max_ahead_ms,
            },
            state_bytes_max: self.cluster.state_bytes_max,
        }
    }

    pub fn checkpoint_interval(&self) -> Duration {
        Duration::from_millis(self.stream.checkpoint_ms)
    }

    pub fn archive_location(&self) -> String {
        if self.archive.location.is_empty() {
            self.node.data_dir.join("archive").display().to_string()
        } else {
            self.archive.location.clone()
        }
    }

    /// The settings for `config show`, without secrets.
    pub fn masked(&self) -> Config {
        let mut masked = self.clone();
        masked.postgres.url = masked_url(&self.postgres.url);
        for source in &mut masked.sources {
            source.token = MASK.into();
        }
        masked
    }
}

/// Hides the password of a URL, including a password in a parameter. A text that is not a URL is hidden as a whole,
/// because it may be a password after a typing mistake.
fn masked_url(url: &str) -> String {
    if url.is_empty() {
        return String::new();
    }
    let Ok(mut masked) = Url::parse(url) else { return MASK.to_owned() };
    if masked.password().is_some() && masked.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    let hidden = |name: &str| name.to_ascii_lowercase().contains("password");
    if masked.query_pairs().any(|(name, _)| hidden(&name)) {
        let pairs: Vec<(String, String)> = masked
            .query_pairs()
            .map(|(name, value)| (name.to_string(), if hidden(&name) { MASK.to_owned() } else { value.to_string() }))
            .collect();
        masked.query_pairs_mut().clear().extend_pairs(pairs);
    }
    masked.into()
}

fn explain(error: &figment::Error) -> ConfigError {
    if let Kind::UnknownField(key, known) = &error.kind {
        let nearest = known.iter().max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
        let hint = nearest.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default();
        let section = error.path.iter().filter(|part| *part != key).cloned().collect::<Vec<_>>().join(".");
        let place = if section.is_empty() { "the top level".to_owned() } else { format!("[{section}]") };
        return ConfigError::UnknownKey { key: key.clone(), place, hint };
    }
    ConfigError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path))
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let error = load("[node]\nhttp_listn = \"127.0.0.1:1\"").unwrap_err().to_string();
        assert!(error.contains("http_listn") && error.contains("did you mean 'http_listen'"), "{error}");
        let error = load("[clutser]\nname = \"x\"").unwrap_err().to_string();
        assert!(error.contains("did you mean 'cluster'"), "{error}");
    }

    #[test]
    fn impossible_values_say_what_is_possible() {
        for (text, expected) in [
            ("[node]\nid = 0", "node.id"),
            ("[node]\nhttp_listen = \"nowhere\"", "IP:PORT"),
            ("[cluster]\ngroups = 0", "cluster.groups"),
            ("[cluster]\nelection_min_ms = 60", "heartbeat_ms"),
            ("[cluster]\nsnapshot_every_entries = 0", "snapshot_every_entries"),
            ("[cluster]\nsnapshot_every_bytes = 1", "snapshot_every_bytes"),
            ("[cluster]\nstate_bytes_max = 1", "state_bytes_max"),
            ("[log]\nfetch = \"telepathy\"", "telepathy"),
            ("[stream]\ncheckpoint_ms = 1", "checkpoint_ms"),
            ("[event_time]\nallowed_lateness_ms = 36000000", "allowed_lateness_ms"),
            ("[node]\nroles = [\"juggle\"]", "juggle"),
            ("not toml at all", "TOML"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = load("[postgres]\nurl = \"postgres://me:hunter2@db/x\"\n[[sources]]\nname = \"shop\"\ntoken = \"0123456789abcdef\"").unwrap();
        let shown = format!("{config:?}{}", toml::to_string(&config.masked()).unwrap());
        assert!(!shown.contains("hunter2") && !shown.contains("0123456789abcdef"), "{shown}");
    }

    #[test]
    fn a_password_is_hidden_wherever_a_url_holds_it() {
        for (url, shown) in [
            ("postgres://me:hunter2@db:5432/x", "postgres://me:********@db:5432/x"),
            ("postgres://me:hunt@er2@db/x", "postgres://me:********@db/x"),
            ("postgres://me@db/x?sslmode=require", "postgres://me@db/x?sslmode=require"),
            (
                "postgres://me@db/x?password=hunter2&sslmode=require",
                "postgres://me@db/x?password=********&sslmode=require",
            ),
            ("host=db password=hunter2", "********"),
            ("", ""),
        ] {
            assert_eq!(masked_url(url), shown, "{url}");
        }
    }
}
