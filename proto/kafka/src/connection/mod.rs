//! How this system reaches Kafka, and every client that it makes for that.
//!
//! `clients` has one constructor for each role, with the settings of that role; no other module knows a setting of the
//! client library. `security` protects the connections. `durable_producer` replaces a producer that failed for good,
//! and `query_client` a client that answers no question any more.

mod acknowledgement;
mod clients;
mod durable_producer;
mod query_client;
mod security;

use tokio::net::TcpStream;

pub use acknowledgement::require_offset;
pub use durable_producer::DurableProducer;
pub use query_client::QueryClient;

use security::Security;

/// Where the brokers are, and how connections to them are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConnection {
    brokers: String,
    security: Security,
}

impl KafkaConnection {
    /// Connections that are neither encrypted nor authenticated. `brokers`: `host:port`, comma-separated.
    pub fn plaintext(brokers: impl Into<String>) -> KafkaConnection {
        KafkaConnection { brokers: brokers.into(), security: Security::Plaintext }
    }

    /// For messages to people: `host:port`, comma-separated.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The brokers to ask first, each `host:port`.
    pub(crate) fn bootstrap_addresses(&self) -> Vec<String> {
        self.brokers.split(',').map(|broker| broker.trim().to_owned()).collect()
    }

    /// A socket to one broker, for Kafka's protocol as `direct` speaks it. `address`: `host:port`.
    pub(crate) async fn open_stream(&self, address: &str) -> std::io::Result<TcpStream> {
        self.security.open_stream(address).await
    }
}
