//! The log adapter on real Kafka, read both ways, and on brokers that misbehave as they are told.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

mod reader_claims;
mod scripted_broker;
mod wire_faults;

use std::time::Duration;

use clicktally_embedded::{Kafka, KafkaOptions};
use clicktally_node::log::{FetchBy, KafkaLog, KafkaLogSettings};
use clicktally_proto::click_log::{ClickLog, LogError, LogRecord, OutRecord, RAW_CLICKS, ShardReader};
use clicktally_proto::shard_key::{Partitioner, ShardId};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

const SHARD: ShardId = ShardId(5);

fn settings(brokers: String, groups: u16, fetch: FetchBy) -> KafkaLogSettings {
    KafkaLogSettings { brokers, partitioner: Partitioner::new(groups), replication: None, fetch }
}

/// A reader that has nothing to hand over for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Drains until `count` records are here or the reader fails. Waiting is the test's only way to see records that are on their way.
async fn read(reader: &mut dyn ShardReader, count: usize) -> Result<Vec<(u64, Vec<u8>)>, LogError> {
    let mut seen = Vec::new();
    let reading = async {
        while seen.len() < count {
            let missing = (count - seen.len()).min(100);
            let mut take = |record: LogRecord<'_>| {
                assert!(record.arrival_ms > 1_700_000_000_000);
                seen.push((record.offset, record.value.to_vec()));
            };
            if reader.drain(missing, &mut take)? == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("records, or an error")?;
    Ok(seen)
}

fn records(shard: ShardId, range: std::ops::Range<u64>) -> Vec<OutRecord> {
    let record = |n: u64| OutRecord {
        topic: RAW_CLICKS,
        partition: Some(shard.partition()),
        key: n.to_be_bytes().to_vec(),
        value: n.to_string().into_bytes(),
    };
    range.map(record).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_topic_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(KafkaOptions::for_tests(dir.path())).await.unwrap();
    let log = KafkaLog::connect(settings(kafka.bootstrap(), 1, FetchBy::Direct)).unwrap();
    log.ensure_topics().await.unwrap();
    log.ensure_topics().await.expect("topics that exist are fine");
    another_number_of_partitions_is_refused_with_the_remedy(&kafka).await;
}

async fn another_number_of_partitions_is_refused_with_the_remedy(kafka: &Kafka) {
    let log = KafkaLog::connect(settings(kafka.bootstrap(), 2, FetchBy::Direct)).unwrap();
    let error = log.ensure_topics().await.unwrap_err();
    assert!(matches!(&error, LogError::Fatal(text) if text.contains("cluster.groups")), "{error}");
}

/// The broker claims to hold already what it has never seen; the client library calls that a success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_does_not_say_where_the_record_lies_is_none() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic(RAW_CLICKS, Partitioner::new(1).partitions(), 1).unwrap();
    let log = KafkaLog::connect(settings(broker.bootstrap_servers(), 1, FetchBy::Direct)).unwrap();
    log.publish(records(SHARD, 0..1)).await.unwrap();
    broker.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER]);
    let published = log.publish(records(SHARD, 1..2)).await;
    assert!(matches!(published, Err(LogError::Unavailable(_))), "{published:?}");
    log.publish(records(SHARD, 1..2)).await.unwrap();
    assert_eq!(log.end_offset(SHARD).await.unwrap(), 2, "the repeat is in the log");
}
