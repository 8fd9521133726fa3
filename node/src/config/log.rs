//! `[log]`: the Kafka of the raw clicks.

use clicktally_kafka::{FetchBy, KafkaConnection};

use super::bound::{BROKERS, Bound};
use super::error::ConfigError;
use super::section::section;

/// More copies than any Kafka cluster keeps.
const REPLICATION_MAX: i32 = 32;

/// How shards read Kafka: its type has no other value.
struct Fetch;

impl Bound<FetchBy> for Fetch {
    fn allowed(&self) -> String {
        "direct or librdkafka".to_owned()
    }

    fn allows(&self, _: &FetchBy) -> bool {
        true
    }

    fn shown(&self, _: &FetchBy) -> Option<String> {
        None
    }
}

section! {
    #[derive(Debug)]
    ["log"] pub struct LogSection {
        /// Kafka bootstrap servers, `host:port,host:port`.
        pub brokers: String = "127.0.0.1:9092".into(), in BROKERS;
        /// Replication of the topics that this node creates.
        pub replication: i32 = 1, in 1..=REPLICATION_MAX;
        /// The reader of the log: `direct`, or `librdkafka` if `raw_clicks` has batches older than Kafka 0.11.
        pub fetch: FetchBy = FetchBy::default(), in Fetch;
    }
}

impl LogSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_keys()
    }

    pub fn connection(&self) -> KafkaConnection {
        KafkaConnection::plaintext(self.brokers.clone())
    }
}
