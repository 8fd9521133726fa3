//! `[node]`: what one process is and where it listens.

use std::path::PathBuf;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::limits::NODE_ID_MAX;
use serde::{Deserialize, Serialize};

use super::bound::{ADVERTISED_ADDRESS, Bound, Folder, LISTEN_ADDRESS};
use super::error::{ConfigError, invalid};
use super::section::section;

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

/// What a node does.
struct Roles;

impl Bound<Vec<Role>> for Roles {
    fn allowed(&self) -> String {
        "one or more of capture, aggregate, serve, archive, each once".to_owned()
    }

    fn allows(&self, value: &Vec<Role>) -> bool {
        !value.is_empty() && value.iter().enumerate().all(|(at, role)| !value[..at].contains(role))
    }

    fn shown(&self, value: &Vec<Role>) -> Option<String> {
        Some(format!("{value:?}").to_lowercase())
    }
}

section! {
    #[derive(Debug)]
    ["node"] pub struct NodeSection {
        /// Unique, and never reused for another machine.
        pub id: NodeId = 1, in 1..=NODE_ID_MAX;
        /// What this node does: `capture`, `aggregate`, `serve`, `archive`.
        pub roles: Vec<Role> = vec![Role::Capture, Role::Aggregate, Role::Serve, Role::Archive], in Roles;
        /// The address of the HTTP interface, `IP:PORT`.
        pub http_listen: String = "127.0.0.1:8080".into(), in LISTEN_ADDRESS;
        /// The address that other nodes get; empty: `http_listen`.
        pub http_advertise: String = String::new(), in ADVERTISED_ADDRESS;
        /// The address of the interface for other nodes, `IP:PORT`.
        pub peer_listen: String = "127.0.0.1:7080".into(), in LISTEN_ADDRESS;
        /// The folder of everything that this node stores.
        pub data_dir: PathBuf = PathBuf::from("clicktally-data"), in Folder;
        /// Threads that host shard and budget actors.
        pub actor_threads: usize = 2, in 1..=64;
    }
}

impl NodeSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_keys()?;
        if self.http_listen == self.peer_listen {
            return invalid("node.http_listen and node.peer_listen must differ: each is an interface of its own");
        }
        Ok(())
    }
}
