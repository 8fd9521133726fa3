//! The log adapter on real Kafka, with both readers, and on brokers that misbehave by script.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

mod identity_claims;
mod log_claims;
mod reader_claims;
mod scripted_broker;
mod transaction_claims;
mod wire_faults;

use clicktally_embedded::{Kafka, KafkaOptions};
use clicktally_kafka::{FetchBy, KafkaConnection, KafkaLog, KafkaLogSettings};
use clicktally_proto::click_log::{ClickLog, LogError, RAW_CLICKS};
use clicktally_proto::identity::shard_key::Partitioner;
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::log_claims::{SHARD, a_write_without_an_answer_may_be_repeated, records};

fn settings(brokers: String, groups: u16, fetch: FetchBy) -> KafkaLogSettings {
    let connection = KafkaConnection::plaintext(brokers);
    KafkaLogSettings { connection, partitioner: Partitioner::new(groups), replication: None, fetch }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_topic_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(KafkaOptions::for_tests(dir.path())).await.unwrap();
    let log = KafkaLog::connect(settings(kafka.bootstrap(), 1, FetchBy::Direct)).unwrap();
    log.ensure_topics().await.unwrap();
    log.ensure_topics().await.expect("topics that exist are fine");
    another_number_of_partitions_is_refused_with_the_remedy(&kafka).await;
    a_setting_that_loses_clicks_is_refused_with_the_command_that_cures_it(&kafka).await;
}

async fn a_setting_that_loses_clicks_is_refused_with_the_command_that_cures_it(kafka: &Kafka) {
    let log = KafkaLog::connect(settings(kafka.bootstrap(), 1, FetchBy::Direct)).unwrap();
    let admin = KafkaConnection::plaintext(kafka.bootstrap()).admin().unwrap();
    let raw = ResourceSpecifier::Topic(RAW_CLICKS);
    let wrong = [
        ("message.timestamp.type", "CreateTime", "LogAppendTime"),
        ("cleanup.policy", "compact", "delete"),
        ("retention.ms", "60000", "604800000"),
        ("retention.bytes", "1000000", "-1"),
        ("max.message.bytes", "1000", "4259840"),
        ("min.insync.replicas", "2", ""),
    ];
    for (key, value, cure) in wrong {
        admin.alter_configs(&[AlterConfig::new(raw).set(key, value)], &AdminOptions::new()).await.unwrap();
        // The broker applies a new setting a moment later.
        let mut error = None;
        for _ in 0..100 {
            error =
                log.check_topics().await.err().filter(|error| error.to_string().contains(&format!("{key}={value}")));
            if error.is_some() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let error = error.unwrap_or_else(|| panic!("{key}={value} is not refused"));
        assert!(
            matches!(&error, LogError::Fatal(text) if cure.is_empty() || text.contains(&format!("--add-config {key}={cure}"))),
            "{error}"
        );
    }
}

async fn another_number_of_partitions_is_refused_with_the_remedy(kafka: &Kafka) {
    let log = KafkaLog::connect(settings(kafka.bootstrap(), 2, FetchBy::Direct)).unwrap();
    let error = log.ensure_topics().await.unwrap_err();
    assert!(matches!(&error, LogError::Fatal(text) if text.contains("cluster.groups")), "{error}");
}

/// The broker claims to hold a record that it has never seen, and the client library takes that for a success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_without_an_offset_does_not_count() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic(RAW_CLICKS, Partitioner::new(1).partitions(), 1).unwrap();
    let log = KafkaLog::connect(settings(broker.bootstrap_servers(), 1, FetchBy::Direct)).unwrap();
    log.publish(records(SHARD, 0..1)).await.unwrap();
    let lose_the_place = || {
        let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
        broker.request_errors(RDKafkaApiKey::Produce, &[error]);
    };
    lose_the_place();
    let published = log.publish(records(SHARD, 1..2)).await;
    assert!(matches!(published, Err(LogError::Unavailable(_))), "{published:?}");
    log.publish(records(SHARD, 1..2)).await.unwrap();
    assert_eq!(log.end_offset(SHARD).await.unwrap(), 2, "the repeat is in the log");
    lose_the_place();
    a_write_without_an_answer_may_be_repeated(&log, SHARD).await;
}

/// An idempotent producer fails for good when it is refused a producer id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_failed_for_good_is_replaced() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic(RAW_CLICKS, Partitioner::new(1).partitions(), 1).unwrap();
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    broker.request_errors(RDKafkaApiKey::InitProducerId, &[refusal]);
    let log = KafkaLog::connect(settings(broker.bootstrap_servers(), 1, FetchBy::Direct)).unwrap();
    let published = log.publish(records(SHARD, 0..1)).await;
    assert!(matches!(published, Err(LogError::Unavailable(_))), "{published:?}");
    log.publish(records(SHARD, 0..1)).await.expect("another producer has taken its place");
    assert_eq!(log.end_offset(SHARD).await.unwrap(), 1);
}
