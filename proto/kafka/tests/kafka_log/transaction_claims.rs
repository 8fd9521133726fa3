//! Transactions of other producers in the raw log, read from real Kafka: what was committed is read, what was aborted
//! is not, and a reader comes to the log's end whatever lies there.

use std::time::Duration;

use clicktally_embedded::Kafka;
use clicktally_kafka::KafkaLog;
use clicktally_proto::click_log::{ClickLog, RAW_CLICKS, ShardReader};
use clicktally_proto::identity::shard_key::ShardId;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::log_claims::{PATIENCE, read, records};

pub(crate) const SHARD: ShardId = ShardId(13);

/// A producer of another make: Flink's and Kafka Connect's exactly-once sinks write like this.
struct Transactional(FutureProducer);

impl Transactional {
    fn new(kafka: &Kafka, id: &str) -> Transactional {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("transactional.id", id)
            .set("compression.codec", "gzip")
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        Transactional(producer)
    }

    fn begin(&self) {
        self.0.begin_transaction().unwrap();
    }

    /// Returns once the records are in the log.
    async fn write(&self, values: &[&str]) {
        for value in values {
            let record = FutureRecord::<(), _>::to(RAW_CLICKS).partition(SHARD.partition()).payload(*value);
            self.0.send(record, Duration::ZERO).await.unwrap();
        }
    }

    fn commit(&self) {
        self.0.commit_transaction(PATIENCE).unwrap();
    }

    fn abort(&self) {
        self.0.abort_transaction(PATIENCE).unwrap();
    }
}

/// A broker writes the markers of a transaction after it has answered its producer.
async fn until_readable_to(log: &KafkaLog, end: u64) {
    let waiting = async {
        while log.end_offset(SHARD).await.unwrap() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the markers are written");
    assert_eq!(log.end_offset(SHARD).await.unwrap(), end);
}

pub(crate) async fn read_to(reader: &mut dyn ShardReader, end: u64) -> Vec<(u64, String)> {
    let mut seen = Vec::new();
    let reading = async {
        while reader.position() < end {
            let before = reader.position();
            let mut take = |record: clicktally_proto::click_log::LogRecord<'_>| {
                seen.push((record.offset, String::from_utf8(record.value.to_vec()).unwrap()));
            };
            reader.drain(2, &mut take).unwrap();
            assert!(reader.position() >= before, "a position never goes back");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("a reader comes to the end of the log");
    assert_eq!(reader.position(), end);
    seen
}

pub(crate) async fn what_was_committed_is_read_and_a_reader_comes_to_the_end(kafka: &Kafka, log: &KafkaLog) {
    let (sink, other) = (Transactional::new(kafka, "sink"), Transactional::new(kafka, "other"));
    log.publish(records(SHARD, 0..1)).await.unwrap();
    sink.begin();
    sink.write(&["committed 1", "committed 2"]).await;
    sink.commit();
    until_readable_to(log, 4).await;
    // Two transactions at once, of which one is aborted.
    sink.begin();
    other.begin();
    sink.write(&["aborted 4"]).await;
    other.write(&["committed 5"]).await;
    sink.write(&["aborted 6"]).await;
    sink.abort();
    other.commit();
    until_readable_to(log, 9).await;
    log.publish(records(SHARD, 9..10)).await.unwrap();
    sink.begin();
    sink.write(&["aborted 10"]).await;
    sink.abort();
    // The last offset is the marker of an aborted transaction.
    until_readable_to(log, 12).await;
    let all: Vec<(u64, String)> = [(0, "0"), (1, "committed 1"), (2, "committed 2"), (5, "committed 5"), (9, "9")]
        .map(|(offset, value)| (offset, value.to_owned()))
        .into();
    for from in 0..=12 {
        let mut reader = log.open(SHARD, from).unwrap();
        let seen = read_to(&mut *reader, 12).await;
        assert!(seen.iter().eq(all.iter().filter(|(offset, _)| *offset >= from)), "from {from}: {seen:?}");
    }
    an_open_transaction_is_not_readable_and_does_not_belong_to_the_log_yet(&sink, log).await;
}

async fn an_open_transaction_is_not_readable_and_does_not_belong_to_the_log_yet(sink: &Transactional, log: &KafkaLog) {
    sink.begin();
    sink.write(&["open"]).await;
    log.publish(records(SHARD, 13..14)).await.unwrap();
    assert_eq!(log.end_offset(SHARD).await.unwrap(), 12, "readable is what precedes the transaction");
    let mut reader = log.open(SHARD, 11).unwrap();
    assert!(read_to(&mut *reader, 12).await.is_empty());
    sink.commit();
    let seen = read(&mut *reader, 2).await.unwrap();
    assert!(seen.iter().map(|(offset, _)| *offset).eq([12, 13]));
    until_readable_to(log, 15).await;
    assert!(read_to(&mut *reader, 15).await.is_empty());
}
