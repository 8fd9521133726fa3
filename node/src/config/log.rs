//! `[log]`: the Kafka of the raw clicks.

use clicktally_kafka::{FetchBy, KafkaConnection};

use super::section::section;

section! {
    #[derive(Debug)]
    pub struct LogSection {
        /// Kafka bootstrap servers, `host:port,host:port`.
        pub brokers: String = "127.0.0.1:9092".into(),
        /// Replication of the topics that this node creates.
        pub replication: i32 = 1,
        /// `direct`, or `librdkafka` if the raw topic holds batches older than Kafka 0.11.
        pub fetch: FetchBy = FetchBy::default(),
    }
}

impl LogSection {
    pub fn connection(&self) -> KafkaConnection {
        KafkaConnection::plaintext(self.brokers.clone())
    }
}
