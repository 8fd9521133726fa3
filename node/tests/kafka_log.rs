//! The log adapter on real Kafka.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

use std::time::Duration;

use clicktally_embedded::{Kafka, KafkaOptions};
use clicktally_node::log::{KafkaLog, KafkaLogSettings};
use clicktally_proto::click_log::{ClickLog, LogError, OutRecord, RAW_CLICKS, ShardReader};
use clicktally_proto::shard_key::{Partitioner, ShardId};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

const SHARD: ShardId = ShardId(5);

fn settings(kafka: &Kafka, groups: u16) -> KafkaLogSettings {
    KafkaLogSettings { brokers: kafka.bootstrap(), partitioner: Partitioner::new(groups), replication: None }
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

/// Drains until `count` records are here or the reader fails. Waiting is the test's only way to see records that are on their way.
async fn read(reader: &mut dyn ShardReader, count: usize) -> Result<Vec<(u64, String)>, LogError> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let mut take = |record: clicktally_proto::click_log::LogRecord<'_>| {
            assert!(record.arrival_ms > 1_700_000_000_000);
            seen.push((record.offset, String::from_utf8(record.value.to_vec()).unwrap()));
        };
        if reader.drain(100, &mut take)? == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_hands_over_every_offset_in_order_or_says_what_it_lost() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(KafkaOptions::for_tests(dir.path())).await.unwrap();
    let log = KafkaLog::connect(settings(&kafka, 1)).unwrap();
    log.ensure_topics().await.unwrap();
    log.ensure_topics().await.expect("topics that exist are fine");

    every_offset_in_order_from_where_it_was_opened(&log).await;
    shards_do_not_see_each_other_and_a_shard_can_be_opened_again(&log).await;
    a_lost_offset_is_an_error_not_a_skip(&kafka, &log).await;
    another_number_of_partitions_is_refused_with_the_remedy(&kafka).await;
}

async fn every_offset_in_order_from_where_it_was_opened(log: &KafkaLog) {
    assert_eq!(log.end_offset(SHARD).await.unwrap(), 0);
    for from in (0..2_500).step_by(500) {
        log.publish(records(SHARD, from..from + 500)).await.unwrap();
    }
    assert_eq!(log.end_offset(SHARD).await.unwrap(), 2_500);
    for from in [0, 1_234] {
        let mut reader = log.open(SHARD, from).unwrap();
        let seen = read(&mut *reader, usize::try_from(2_500 - from).unwrap()).await.unwrap();
        assert!(seen.iter().map(|(offset, _)| *offset).eq(from..2_500));
        assert!(seen.iter().map(|(_, value)| value.parse::<u64>().unwrap()).eq(from..2_500));
    }
}

async fn shards_do_not_see_each_other_and_a_shard_can_be_opened_again(log: &KafkaLog) {
    let other = ShardId(6);
    let mut readers = [log.open(SHARD, 2_500).unwrap(), log.open(other, 0).unwrap()];
    assert!(log.open(SHARD, 2_500).is_err(), "one reader a shard");
    log.publish(records(other, 0..10)).await.unwrap();
    log.publish(records(SHARD, 2_500..2_510)).await.unwrap();
    assert_eq!(read(&mut *readers[0], 10).await.unwrap().first().unwrap().0, 2_500);
    assert_eq!(read(&mut *readers[1], 10).await.unwrap().first().unwrap().0, 0);
    drop(readers);
    let mut reader = log.open(SHARD, 2_505).unwrap();
    assert_eq!(read(&mut *reader, 5).await.unwrap().first().unwrap().0, 2_505);
}

async fn a_lost_offset_is_an_error_not_a_skip(kafka: &Kafka, log: &KafkaLog) {
    // Beyond the end: the log was cut, or is another one.
    let mut reader = log.open(ShardId(7), 99).unwrap();
    let error = read(&mut *reader, 1).await.unwrap_err();
    assert!(matches!(error, LogError::OffsetLost { shard: ShardId(7), offset: 99, .. }), "{error}");
    // Before the beginning: retention took it.
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let mut cut = TopicPartitionList::new();
    cut.add_partition_offset(RAW_CLICKS, SHARD.partition(), Offset::Offset(1_000)).unwrap();
    admin.delete_records(&cut, &AdminOptions::new()).await.unwrap();
    let mut reader = log.open(SHARD, 10).unwrap();
    let error = read(&mut *reader, 1).await.unwrap_err();
    assert!(matches!(error, LogError::OffsetLost { shard: SHARD, offset: 10, .. }), "{error}");
    // The first that is left is there.
    drop(reader);
    let mut reader = log.open(SHARD, 1_000).unwrap();
    assert_eq!(read(&mut *reader, 1).await.unwrap()[0].0, 1_000);
}

async fn another_number_of_partitions_is_refused_with_the_remedy(kafka: &Kafka) {
    let log = KafkaLog::connect(settings(kafka, 2)).unwrap();
    let error = log.ensure_topics().await.unwrap_err();
    assert!(matches!(&error, LogError::Fatal(text) if text.contains("cluster.groups")), "{error}");
}

/// The broker claims to hold already what it has never seen; the client library calls that a success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_does_not_say_where_the_record_lies_is_none() {
    let broker = MockCluster::new(1).unwrap();
    let partitioner = Partitioner::new(1);
    broker.create_topic(RAW_CLICKS, partitioner.partitions(), 1).unwrap();
    let brokers = broker.bootstrap_servers();
    let log = KafkaLog::connect(KafkaLogSettings { brokers, partitioner, replication: None }).unwrap();
    log.publish(records(SHARD, 0..1)).await.unwrap();
    broker.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER]);
    let published = log.publish(records(SHARD, 1..2)).await;
    assert!(matches!(published, Err(LogError::Unavailable(_))), "{published:?}");
    log.publish(records(SHARD, 1..2)).await.unwrap();
    assert_eq!(log.end_offset(SHARD).await.unwrap(), 2, "the repeat is in the log");
}
