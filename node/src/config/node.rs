//! `[node]`: what one process is and where it listens.

use std::path::PathBuf;

use clicktally_proto::identity::ids::NodeId;
use serde::{Deserialize, Serialize};

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

section! {
    #[derive(Debug)]
    pub struct NodeSection {
        /// Unique, never 0, never reused for another machine.
        pub id: NodeId = 1,
        /// What this node does: `capture`, `aggregate`, `serve`, `archive`.
        pub roles: Vec<Role> = vec![Role::Capture, Role::Aggregate, Role::Serve, Role::Archive],
        /// The address of the HTTP interface, `IP:PORT`.
        pub http_listen: String = "127.0.0.1:8080".into(),
        /// The address that other nodes get; empty: `http_listen`.
        pub http_advertise: String = String::new(),
        /// The address of the interface for other nodes, `IP:PORT`.
        pub peer_listen: String = "127.0.0.1:7080".into(),
        /// The folder of everything that this node stores.
        pub data_dir: PathBuf = PathBuf::from("clicktally-data"),
        /// Threads that host shard and budget actors, 1 to 64.
        pub actor_threads: usize = 2,
    }
}

impl NodeSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.id == 0 {
            return invalid("node.id must not be 0");
        }
        if self.roles.is_empty() {
            return invalid("node.roles is empty: name at least one of capture, aggregate, serve, archive");
        }
        if !(1..=64).contains(&self.actor_threads) {
            return invalid(format!("node.actor_threads must be 1..=64, is {}", self.actor_threads));
        }
        for (name, address) in [("node.http_listen", &self.http_listen), ("node.peer_listen", &self.peer_listen)] {
            if address.parse::<std::net::SocketAddr>().is_err() {
                return invalid(format!("{name} must be IP:PORT, is '{address}'"));
            }
        }
        Ok(())
    }
}
