//! One TOML file. The environment can set every key (`CLICKTALLY_NODE__HTTP_LISTEN`). Unknown keys are rejected.
//!
//! To add a key: 1. Write one line in its section, with documentation, default and bound. 2. If it depends on another
//! key, refuse what does not fit in the section's `check`. 3. Add a case to the test of impossible values. 4. Run the
//! tests: the one that compares `docs/configuration.md` prints the new tables. Nothing else names the key, except the
//! code that uses it.

mod archive;
mod bound;
mod budget;
mod cluster;
mod error;
mod event_time;
mod log;
mod node;
mod postgres;
mod section;
mod source;
mod stream;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clicktally_proto::command::GroupSettings;
use clicktally_proto::identity::ids::NodeId;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

pub use self::archive::ArchiveSection;
pub use self::budget::BudgetSection;
pub use self::cluster::ClusterSection;
pub use self::error::ConfigError;
use self::error::{explain, invalid, not_toml};
pub use self::event_time::EventTimeSection;
pub use self::log::LogSection;
pub use self::node::{NodeSection, Role};
pub use self::postgres::PostgresSection;
use self::postgres::{MASK, masked_url};
pub use self::source::SourceSection;
use self::source::check_all;
pub use self::stream::StreamSection;

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

impl Config {
    /// Loads the defaults, then the file, then the environment, and checks the result.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        if let Some(path) = path {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.display().to_string(), source })?;
            toml::from_str::<toml::Table>(&text).map_err(|error| not_toml(&text, &error))?;
            figment = figment.merge(Toml::string(&text));
        }
        // Read only keys with a section: CLICKTALLY_URL and the like are not configuration.
        let environment = Env::prefixed("CLICKTALLY_").filter(|key| key.as_str().contains("__")).split("__");
        let config: Config = figment.merge(environment).extract().map_err(|error| explain(&error))?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), ConfigError> {
        self.node.check()?;
        self.cluster.check()?;
        self.cluster.check_membership(self.node.id)?;
        self.log.check()?;
        self.postgres.check()?;
        self.event_time.check()?;
        self.stream.check()?;
        self.budget.check()?;
        self.archive.check()?;
        if self.budget.counting_lag_max_ms < self.stream.checkpoint_ms.saturating_mul(2) {
            return invalid(
                "budget.counting_lag_max_ms must be at least twice stream.checkpoint_ms: counts are that far behind in \
                 regular operation, and every budget would pause",
            );
        }
        check_all(&self.sources)
    }

    /// Returns the founding members by id; a single node needs no list.
    pub fn founders(&self) -> Result<BTreeMap<NodeId, String>, ConfigError> {
        if self.cluster.peers.is_empty() {
            return Ok(BTreeMap::from([(self.node.id, self.node.peer_listen.clone())]));
        }
        self.cluster.founders()
    }

    pub fn has(&self, role: Role) -> bool {
        self.node.roles.contains(&role)
    }

    pub fn http_advertised(&self) -> &str {
        if self.node.http_advertise.is_empty() { &self.node.http_listen } else { &self.node.http_advertise }
    }

    pub fn group_settings(&self) -> GroupSettings {
        GroupSettings {
            groups: self.cluster.groups,
            event_time: self.event_time.rules(),
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
            ("[node]\nid = 9007199254740992", "node.id must be 1 to 9007199254740991"),
            ("[node]\nroles = []", "node.roles"),
            ("[node]\nroles = [\"serve\", \"serve\"]", "each once"),
            ("[node]\nhttp_listen = \"127.0.0.1:0\"", "node.http_listen"),
            ("[node]\nhttp_advertise = \"node-1\"", "node.http_advertise must be HOST:PORT"),
            ("[node]\npeer_listen = \"127.0.0.1:8080\"", "must differ"),
            ("[node]\ndata_dir = \"\"", "node.data_dir"),
            ("[node]\nactor_threads = 0", "node.actor_threads"),
            ("[cluster]\nname = \"\"", "cluster.name"),
            ("[cluster]\nheartbeat_ms = 0", "cluster.heartbeat_ms"),
            ("[cluster]\nnode_lease_ms = 36000000", "cluster.node_lease_ms"),
            ("[cluster.peers]\n1 = \"a:1\"\n01 = \"b:1\"", "cluster.peers"),
            ("[cluster.peers]\n1 = \"a:1\"\n2 = \"a:1\"", "different addresses"),
            ("[cluster.peers]\n1 = \"a\"", "HOST:PORT"),
            ("[cluster.peers]\n2 = \"a:1\"", "cluster.peers lacks this node (1)"),
            ("[cluster]\njoins = true", "cluster.joins needs cluster.peers"),
            ("[cluster]\njoins = true\n[cluster.peers]\n1 = \"a:1\"", "remove cluster.joins"),
            ("[log]\nbrokers = \"\"", "log.brokers"),
            ("[log]\nbrokers = \"kafka\"", "log.brokers must be HOST:PORT"),
            ("[log]\nreplication = 0", "log.replication must be 1 to"),
            ("[postgres]\nurl = \"mysql://db/x\"", "postgres.url must be postgres://"),
            ("[event_time]\nout_of_orderness_ms = 36000000", "event_time.out_of_orderness_ms"),
            ("[event_time]\nretain_final_ms = 864000000", "event_time.retain_final_ms"),
            ("[event_time]\nmax_ahead_ms = -1", "event_time.max_ahead_ms"),
            ("[budget]\ncounting_lag_max_ms = 0", "budget.counting_lag_max_ms"),
            ("[stream]\ncheckpoint_ms = 6000", "twice stream.checkpoint_ms"),
            ("[archive]\nlocation = \"s3://\"", "archive.location must be a folder, s3://BUCKET/PREFIX"),
            ("[archive]\nflush_rows = 0", "archive.flush_rows"),
            ("[archive]\nflush_ms = 0", "archive.flush_ms"),
            ("[[sources]]\nname = \"\"\ntoken = \"0123456789abcdef\"", "sources.name"),
            ("[[sources]]\nname = \"shop\"\ntoken = \"short\"", "sources.token"),
            ("not toml at all", "line 1 is not TOML"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_node_that_joins_is_not_a_founding_member() {
        let text = "[node]\nid = 4\n[cluster]\njoins = true\n[cluster.peers]\n1 = \"a:1\"\n2 = \"b:1\"";
        assert!(!load(text).unwrap().founders().unwrap().contains_key(&4));
    }

    #[test]
    fn two_sources_never_share_a_token_and_one_may_have_two() {
        let source = |name: &str, token: char| {
            format!("[[sources]]\nname = \"{name}\"\ntoken = \"{}\"\n", token.to_string().repeat(16))
        };
        let error = load(&(source("shop", 'a') + &source("news", 'a'))).unwrap_err().to_string();
        assert!(error.contains("'shop' and 'news' have the same token") && !error.contains("aaaa"), "{error}");
        assert_eq!(load(&(source("shop", 'a') + &source("shop", 'b'))).unwrap().sources.len(), 2);
    }

    #[test]
    fn an_error_never_repeats_a_secret() {
        for text in [
            "[[sources]]\nname = \"shop\"\ntoken = hunter2hunter2hunter2",
            "[[sources]]\nname = \"shop\"\ntoken = \"hunter2\"",
            "[[sources]]\nname = \"shop\"\ntoken = [\"hunter2\"]",
            "[[sources]]\nname = \"shop\"\ntoken = \"hunter2 \ttabs are not visible\"",
            "[[sources]]\nname = 5\ntoken = \"hunter2hunter2hunter2\"",
            "[postgres]\nurl = \"mysql://me:hunter2@db/x\"",
            "[postgres]\nurl = \"postgres://me:hunter2@db/x",
            "[postgres]\nurl = {password = \"hunter2\"}",
            "[archive]\nlocation = \"s3://key:hunter2@bucket/x\"",
            "postgres = \"postgres://me:hunter2@db/x\"",
            "sources = \"hunter2hunter2hunter2\"",
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = load("[[sources]]\nname = \"shop\"\ntoken = 12345678901234567").unwrap_err().to_string();
        assert!(error.contains("token") && !error.contains("12345678901234567"), "{error}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = load("[postgres]\nurl = \"postgres://me:hunter2@db/x\"\n[[sources]]\nname = \"shop\"\ntoken = \"0123456789abcdef\"").unwrap();
        let shown = format!("{config:?}{}", toml::to_string(&config.masked()).unwrap());
        assert!(!shown.contains("hunter2") && !shown.contains("0123456789abcdef"), "{shown}");
    }

    /// A key, what it may be, and its documentation.
    type Key = (&'static str, String, &'static str);

    /// The keys by section.
    fn sections() -> [(&'static str, Vec<Key>); 8] {
        [
            ("node", NodeSection::keys()),
            ("cluster", ClusterSection::keys()),
            ("log", LogSection::keys()),
            ("postgres", PostgresSection::keys()),
            ("event_time", EventTimeSection::keys()),
            ("stream", StreamSection::keys()),
            ("budget", BudgetSection::keys()),
            ("archive", ArchiveSection::keys()),
        ]
    }
    /// The generated part of the page begins below this line.
    const TABLES: &str = "<!-- Generated from node/src/config: see its documentation. -->\n";

    fn tables() -> String {
        let defaults = serde_json::to_value(Config::default()).unwrap();
        let mut page = String::new();
        for (section, keys) in sections() {
            page += &format!("\n## `[{section}]`\n\n| key | default | allowed | meaning |\n|---|---|---|---|\n");
            for (key, allowed, meaning) in keys {
                let default = &defaults[section][key];
                page += &format!("| `{key}` | `{default}` | {allowed} | {} |\n", meaning.trim());
            }
        }
        page
    }

    #[test]
    fn the_reference_page_lists_every_key_with_its_default_and_no_other() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (_, written) = page.split_once(TABLES).unwrap();
        assert_eq!(written, tables(), "replace the tables of docs/configuration.md with:\n{}", tables());
    }

    #[test]
    fn every_section_of_the_file_is_in_the_reference() {
        let defaults = serde_json::to_value(Config::default()).unwrap();
        assert_eq!(defaults.as_object().unwrap().len(), sections().len() + 1, "and the sources");
        for (section, keys) in sections() {
            let found: Vec<&String> = defaults[section].as_object().unwrap().keys().collect();
            assert_eq!(found.len(), keys.len(), "{section}");
            assert!(keys.iter().all(|(key, ..)| found.contains(&&(*key).to_owned())), "{section}: {found:?}");
        }
    }
}
