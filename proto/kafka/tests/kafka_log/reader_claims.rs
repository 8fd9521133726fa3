//! What every reader of the raw log promises, checked for both readers on real Kafka.

use clicktally_embedded::{Kafka, KafkaOptions};
use clicktally_kafka::{FetchBy, KafkaConnection, KafkaLog};
use clicktally_proto::click::record::RECORD_BYTES_MAX;
use clicktally_proto::click_log::{ClickLog, LogError, OutRecord, RAW_CLICKS};
use clicktally_proto::identity::shard_key::ShardId;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::Consumer;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, Message};

use crate::log_claims::{
    PATIENCE, SHARD, an_offset_that_the_log_never_held_is_an_error, every_offset_in_order_from_where_it_was_opened,
    read, records, shards_do_not_see_each_other_and_a_shard_can_be_opened_again,
};
use crate::settings;
use crate::transaction_claims::{self, read_to, what_was_committed_is_read_and_a_reader_comes_to_the_end};

/// Every codec of Kafka. The readers take the same ones, however a producer or a broker compresses.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_direct_reader_keeps_its_promises() {
    every_claim(FetchBy::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_librarys_reader_keeps_its_promises() {
    every_claim(FetchBy::Librdkafka).await;
}

async fn every_claim(fetch: FetchBy) {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::start(KafkaOptions::for_tests(dir.path())).await.unwrap();
    let log = KafkaLog::connect(settings(kafka.bootstrap(), 1, fetch)).unwrap();
    log.ensure_topics().await.unwrap();

    every_offset_in_order_from_where_it_was_opened(&log).await;
    shards_do_not_see_each_other_and_a_shard_can_be_opened_again(&log).await;
    every_codec_is_read(&kafka, &log).await;
    large_records_come_through_in_every_shard(&log).await;
    // The library refuses such a batch, and says so.
    if fetch == FetchBy::Direct {
        a_batch_and_records_beyond_all_limits_are_passed(&kafka, &log).await;
    }
    what_was_committed_is_read_and_a_reader_comes_to_the_end(&kafka, &log).await;
    the_window_writers_client_finds_what_the_shards_find(&kafka, &log).await;
    reading_continues_at_its_offset_when_the_broker_is_back(&mut kafka, &log).await;
    drop(log.open(ShardId(7), 99).expect("this log reports the loss through its reader"));
    an_offset_that_the_log_never_held_is_an_error(&log).await;
    an_offset_that_retention_removed_is_an_error_not_a_skip(&kafka, &log).await;
}

async fn every_codec_is_read(kafka: &Kafka, log: &KafkaLog) {
    for (codec, shard) in CODECS.into_iter().zip((0..).map(ShardId)) {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("compression.codec", codec)
            .set("linger.ms", "50")
            .create()
            .unwrap();
        let texts: Vec<_> = (0..500).map(|n| format!("{n} in {codec}, {}", "again and ".repeat(20))).collect();
        let sent = texts.iter().map(|text| {
            let record = FutureRecord::<(), _>::to(RAW_CLICKS).partition(shard.partition()).payload(text);
            producer.send_result(record).unwrap()
        });
        for delivery in futures::future::join_all(sent.collect::<Vec<_>>()).await {
            delivery.unwrap().unwrap();
        }
        let from = if shard == SHARD { 2_510 } else { 0 };
        // Also from the middle of a batch.
        for skip in [0, 17] {
            let mut reader = log.open(shard, from + skip).unwrap();
            let seen = read(&mut *reader, 500 - usize::try_from(skip).unwrap()).await.unwrap();
            let texts = texts.iter().map(String::as_bytes).skip(usize::try_from(skip).unwrap());
            assert!(seen.iter().map(|(_, value)| value.as_slice()).eq(texts), "{codec} from {skip}");
        }
    }
}

/// The window writer reads its topics with the client library, whatever the shards read with: each codec, and between
/// aborted records what was committed.
async fn the_window_writers_client_finds_what_the_shards_find(kafka: &Kafka, log: &KafkaLog) {
    for shard in (0..CODECS.len() as u16).map(ShardId).chain([transaction_claims::SHARD]) {
        let mut reader = log.open(shard, 0).unwrap();
        let due = read_to(&mut *reader, log.end_offset(shard).await.unwrap()).await;
        let consumer = KafkaConnection::plaintext(kafka.bootstrap()).out_topics_reader().unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(RAW_CLICKS, shard.partition(), Offset::Beginning).unwrap();
        consumer.assign(&assignment).unwrap();
        for (offset, text) in due {
            let record = tokio::task::block_in_place(|| consumer.poll(PATIENCE)).expect("a record").unwrap();
            let value = record.payload().unwrap();
            assert_eq!((record.offset().cast_unsigned(), value), (offset, text.as_bytes()), "shard {}", shard.0);
        }
    }
}

/// Little on the wire, and a lot in memory. Readers hand over as much of a record as makes it too long for every
/// decoder.
async fn a_batch_and_records_beyond_all_limits_are_passed(kafka: &Kafka, log: &KafkaLog) {
    let shard = ShardId(14);
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("compression.codec", "zstd")
        .set("message.max.bytes", "200000000")
        .set("batch.size", "200000000")
        .set("linger.ms", "1000")
        .create()
        .unwrap();
    let values = [b"first".to_vec(), vec![b'x'; 20 << 20], vec![b'y'; 60 << 20], b"last".to_vec()];
    let sent = values.iter().map(|value| {
        let record = FutureRecord::<(), _>::to(RAW_CLICKS).partition(shard.partition()).payload(value);
        producer.send_result(record).unwrap()
    });
    for delivery in futures::future::join_all(sent.collect::<Vec<_>>()).await {
        delivery.unwrap().unwrap();
    }
    let mut reader = log.open(shard, 0).unwrap();
    let seen = read(&mut *reader, 4).await.unwrap();
    for ((offset, value), sent) in seen.iter().zip(&values) {
        let due = &sent[..sent.len().min(RECORD_BYTES_MAX + 1)];
        assert!(value == due, "the record at {offset}: {} bytes for {}", value.len(), due.len());
    }
    assert_eq!(reader.position(), 4);
}

/// Records larger than what a reader asks for at once, between small ones, in several shards read at the same time.
async fn large_records_come_through_in_every_shard(log: &KafkaLog) {
    let shards = [ShardId(10), ShardId(11), ShardId(12)];
    // Incompressible, so that it is as large on the wire as in memory.
    let large: Vec<u8> = {
        let mut state = 1_u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(3_900_000)
        .collect()
    };
    for shard in shards {
        log.publish(records(shard, 0..3)).await.unwrap();
        let record =
            OutRecord { topic: RAW_CLICKS, partition: Some(shard.partition()), key: Vec::new(), value: large.clone() };
        log.publish(vec![record]).await.unwrap();
        log.publish(records(shard, 4..6)).await.unwrap();
    }
    let mut readers = shards.map(|shard| log.open(shard, 0).unwrap());
    for reader in &mut readers {
        let seen = read(&mut **reader, 6).await.unwrap();
        assert!(seen.iter().map(|(offset, _)| *offset).eq(0..6));
        assert!(seen[3].1 == large);
    }
}

async fn reading_continues_at_its_offset_when_the_broker_is_back(kafka: &mut Kafka, log: &KafkaLog) {
    let shard = ShardId(8);
    let mut reader = log.open(shard, 0).unwrap();
    log.publish(records(shard, 0..100)).await.unwrap();
    read(&mut *reader, 100).await.unwrap();
    for from in [100, 200] {
        kafka.stop().await.unwrap();
        assert_eq!(reader.drain(10, &mut |_| {}).unwrap_or(0), 0, "there is nothing to read");
        kafka.restart().await.unwrap();
        while let Err(error) = log.publish(records(shard, from..from + 100)).await {
            assert!(matches!(error, LogError::Unavailable(_)), "{error}");
        }
        let seen = read(&mut *reader, 100).await.unwrap();
        assert!(seen.iter().map(|(offset, _)| *offset).eq(from..from + 100));
    }
}

async fn an_offset_that_retention_removed_is_an_error_not_a_skip(kafka: &Kafka, log: &KafkaLog) {
    let admin = KafkaConnection::plaintext(kafka.bootstrap()).admin().unwrap();
    let mut cut = TopicPartitionList::new();
    cut.add_partition_offset(RAW_CLICKS, SHARD.partition(), Offset::Offset(1_000)).unwrap();
    admin.delete_records(&cut, &AdminOptions::new()).await.unwrap();
    let mut reader = log.open(SHARD, 10).unwrap();
    let error = read(&mut *reader, 1).await.unwrap_err();
    assert!(matches!(error, LogError::OffsetLost { shard: SHARD, offset: 10, .. }), "{error}");
    // The first record that is left is readable.
    drop(reader);
    let mut reader = log.open(SHARD, 1_000).unwrap();
    assert_eq!(read(&mut *reader, 1).await.unwrap()[0].0, 1_000);
}
