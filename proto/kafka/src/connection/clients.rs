//! Every client of the client library, one constructor for each role.
//!
//! What all readers share: offsets are ours, so a reader joins no consumer group and stores no offset at the broker,
//! and an offset that the log does not hold is an error. The isolation level is `read_committed`, also where a reader
//! asks for the end of a partition.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::FutureProducer;

use super::{DurableProducer, KafkaConnection, QueryClient};
use crate::topics::{ENVELOPE_BYTES_MAX, WRITTEN_RECORD_BYTES_MAX};

/// How long a record of the durable producer may wait for its acknowledgement.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Fetched for one partition of the raw log and not yet drained.
const PARTITION_QUEUE_KIB_MAX: usize = 8 * 1024;
/// A reader may take nothing for this long.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest record of the load generator.
const LOAD_RECORD_BYTES_MAX: usize = 4_000_000;

const _: () = assert!(LOAD_RECORD_BYTES_MAX <= WRITTEN_RECORD_BYTES_MAX);

impl KafkaConnection {
    /// Makes and deletes topics.
    pub fn admin(&self) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
        self.client().create()
    }

    /// Asks for metadata and for the ends of partitions. Reads no records.
    pub fn metadata_reader(&self) -> Result<BaseConsumer, KafkaError> {
        self.client().set("isolation.level", "read_committed").create()
    }

    /// Asks the same for as long as a node lives.
    pub fn query_client(&self) -> Result<QueryClient, KafkaError> {
        QueryClient::new(self)
    }

    /// Writes the records whose loss would be a lost click or a lost count.
    pub fn durable_producer(&self) -> Result<DurableProducer, KafkaError> {
        DurableProducer::new(self)
    }

    pub(super) fn new_durable_producer(&self) -> Result<FutureProducer, KafkaError> {
        let record_bytes_max = WRITTEN_RECORD_BYTES_MAX + ENVELOPE_BYTES_MAX;
        self.idempotent_producer(Duration::from_millis(2), record_bytes_max, DELIVERY_TIMEOUT).create()
    }

    /// Writes the load generator's clicks. `give_up`: how long a record may wait for its acknowledgement.
    pub fn load_producer(&self, give_up: Duration) -> Result<FutureProducer, KafkaError> {
        self.idempotent_producer(Duration::from_millis(5), LOAD_RECORD_BYTES_MAX, give_up).create()
    }

    /// Writes the single clicks of a probe, each as soon as it is there.
    pub fn probe_producer(&self) -> Result<FutureProducer, KafkaError> {
        self.client().set("acks", "all").create()
    }

    /// Reads partitions of the raw log, where the direct fetcher cannot.
    pub fn partition_reader(&self) -> Result<BaseConsumer, KafkaError> {
        self.reader("clicktally-shards")
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", PARTITION_QUEUE_KIB_MAX.to_string())
            .set("coordinator.query.interval.ms", "600000")
            // The archive may wait for its object store. No group could miss the reader.
            .set("max.poll.interval.ms", POLL_INTERVAL_MAX.as_millis().to_string())
            // Tells how far a partition is read where its end holds no readable record.
            .set("enable.partition.eof", "true")
            .create()
    }

    /// Reads the outbound topics for PostgreSQL.
    pub fn out_topics_reader(&self) -> Result<BaseConsumer, KafkaError> {
        self.reader("clicktally-window-writer").create()
    }

    /// Reads whole topics for the checks of `chaos-tests`.
    pub fn recount_reader(&self) -> Result<BaseConsumer, KafkaError> {
        self.reader("clicktally-oracle").set("enable.partition.eof", "true").create()
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "clicktally")
            // Reconnects within a second of the broker's return. By default the pause grows to ten seconds.
            .set("reconnect.backoff.max.ms", "1000");
        for (key, value) in self.security.settings() {
            config.set(*key, *value);
        }
        config
    }

    /// `group`: the client library requires one for any assignment. It is never joined.
    fn reader(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            // A damaged batch is an error. By default the library hands over what it finds in it.
            .set("check.crcs", "true")
            // An offset that is gone is a loss to report, not a reason to jump.
            .set("auto.offset.reset", "error")
            // By default a partition whose queue was full is not fetched for a second, which cuts catch-up to a
            // quarter.
            .set("fetch.queue.backoff.ms", "10");
        config
    }

    fn idempotent_producer(&self, linger: Duration, record_bytes_max: usize, give_up: Duration) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.codec", "lz4")
            .set("linger.ms", linger.as_millis().to_string())
            .set("message.max.bytes", record_bytes_max.to_string())
            .set("delivery.timeout.ms", give_up.as_millis().to_string());
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client library refuses a setting that it does not know, or that contradicts another one.
    #[test]
    fn every_role_has_settings_that_the_client_library_takes() {
        let connection = KafkaConnection::plaintext("127.0.0.1:1");
        connection.admin().unwrap();
        connection.metadata_reader().unwrap();
        connection.durable_producer().unwrap();
        drop(connection.load_producer(Duration::from_secs(60)).unwrap());
        drop(connection.probe_producer().unwrap());
        connection.partition_reader().unwrap();
        connection.out_topics_reader().unwrap();
        connection.recount_reader().unwrap();
    }

    #[test]
    fn no_reader_jumps_or_leaves_offsets_at_the_broker() {
        let reader = KafkaConnection::plaintext("127.0.0.1:1").reader("group");
        assert_eq!(reader.get("auto.offset.reset"), Some("error"));
        assert_eq!(reader.get("enable.auto.commit"), Some("false"));
        assert_eq!(reader.get("enable.auto.offset.store"), Some("false"));
    }
}
