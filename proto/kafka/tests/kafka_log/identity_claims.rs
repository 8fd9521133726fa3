//! A raw topic that is deleted and made again has another id, and its records are not those of the former one.

use clicktally_embedded::{Kafka, KafkaOptions};
use clicktally_kafka::{FetchBy, KafkaConnection, KafkaLog};
use clicktally_proto::click_log::{ClickLog, LogError, RAW_CLICKS};
use rdkafka::admin::AdminOptions;

use crate::log_claims::{SHARD, read, records};
use crate::settings;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_fails_when_its_topic_is_made_again_however_long_the_new_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(KafkaOptions::for_tests(dir.path())).await.unwrap();
    let connect = || KafkaLog::connect(settings(kafka.bootstrap(), 1, FetchBy::Direct)).unwrap();
    let log = connect();
    log.ensure_topics().await.unwrap();
    let counted = log.log_id().await.unwrap().expect("this broker gives ids");
    assert_eq!(log.log_id().await, Ok(Some(counted)));
    log.publish(records(SHARD, 0..10)).await.unwrap();
    let mut reader = log.open(SHARD, 0).unwrap();
    read(&mut *reader, 10).await.unwrap();

    let admin = KafkaConnection::plaintext(kafka.bootstrap()).admin().unwrap();
    admin.delete_topics(&[RAW_CLICKS], &AdminOptions::new()).await.unwrap();
    // The reader's position, 10, lies within the new topic.
    let other = connect();
    other.ensure_topics().await.unwrap();
    other.publish(records(SHARD, 0..30)).await.unwrap();
    let found = other.log_id().await.unwrap().unwrap();
    let error = read(&mut *reader, 1).await.unwrap_err();
    assert_eq!(error, LogError::OtherLog { counted, found });
    drop(reader);
    let mut reader = log.open(SHARD, 10).unwrap();
    assert_eq!(read(&mut *reader, 1).await.unwrap_err(), error, "also a reader that is opened later");
}
