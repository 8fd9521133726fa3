//! One TOML file. The environment can set every key (`CLICKTALLY_NODE__HTTP_LISTEN`). Unknown keys are rejected.
//!
//! To add a key: 1. Write one line in its section, with documentation and default. 2. If values are impossible, refuse
//! them in the section's `check`, and add a case to the test of impossible values. 3. Run the tests: the one that
//! compares `docs/configuration.md` prints the new tables. Nothing else names the key, except the code that uses it.

mod archive;
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
use self::error::explain;
pub use self::event_time::EventTimeSection;
pub use self::log::LogSection;
pub use self::node::{NodeSection, Role};
pub use self::postgres::PostgresSection;
use self::postgres::{MASK, masked_url};
pub use self::source::SourceSection;
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
        self.stream.check()?;
        self.event_time.check()?;
        self.sources.iter().try_for_each(SourceSection::check)
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

    /// The keys and their documentation, by section.
    const SECTIONS: [(&str, &[(&str, &str)]); 8] = [
        ("node", NodeSection::KEYS),
        ("cluster", ClusterSection::KEYS),
        ("log", LogSection::KEYS),
        ("postgres", PostgresSection::KEYS),
        ("event_time", EventTimeSection::KEYS),
        ("stream", StreamSection::KEYS),
        ("budget", BudgetSection::KEYS),
        ("archive", ArchiveSection::KEYS),
    ];
    /// The generated part of the page begins below this line.
    const TABLES: &str = "<!-- Generated from node/src/config: see its documentation. -->\n";

    fn tables() -> String {
        let defaults = serde_json::to_value(Config::default()).unwrap();
        let mut page = String::new();
        for (section, keys) in SECTIONS {
            page += &format!("\n## `[{section}]`\n\n| key | default | meaning |\n|---|---|---|\n");
            for (key, meaning) in keys {
                let default = &defaults[section][key];
                page += &format!("| `{key}` | `{default}` | {} |\n", meaning.trim());
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
        let sections: Vec<&str> = SECTIONS.iter().map(|(section, _)| *section).chain(["sources"]).collect();
        assert_eq!(defaults.as_object().unwrap().len(), sections.len());
        for (section, keys) in SECTIONS {
            let found: Vec<&String> = defaults[section].as_object().unwrap().keys().collect();
            assert_eq!(found.len(), keys.len(), "{section}");
            assert!(keys.iter().all(|(key, _)| found.contains(&&(*key).to_owned())), "{section}: {found:?}");
        }
    }
}
