//! Tests the real Kafka that the product and every other test use.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

use std::time::Duration;

use clicktally_embedded::{Kafka, KafkaOptions};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};

/// Bounds a hang only: a busy machine takes many times what an idle one does.
const TIMEOUT: Duration = Duration::from_secs(300);

fn end_offset(bootstrap: &str) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    consumer.fetch_watermarks("kept", 0, TIMEOUT).unwrap().1
}

async fn produce(bootstrap: &str, value: &str) {
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("acks", "all").create().unwrap();
    producer.send(FutureRecord::<(), str>::to("kept").payload(value), TIMEOUT).await.unwrap();
}

#[tokio::test]
async fn records_survive_an_orderly_stop_and_a_kill_and_the_address_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::start(KafkaOptions::for_tests(dir.path())).await.unwrap();
    let bootstrap = kafka.bootstrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &bootstrap).create().unwrap();
    let made = admin
        .create_topics(&[NewTopic::new("kept", 1, TopicReplication::Fixed(1))], &AdminOptions::new())
        .await
        .unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");

    produce(&bootstrap, "before the stop").await;
    kafka.stop().await.unwrap();
    assert!(kafka.pid().is_none());
    kafka.restart().await.unwrap();
    assert_eq!(kafka.bootstrap(), bootstrap);
    assert_eq!(end_offset(&bootstrap), 1);

    produce(&bootstrap, "before the kill").await;
    kafka.kill().await;
    drop(kafka);

    // Another process would open the same directory like this.
    let kafka = Kafka::start(KafkaOptions::for_tests(dir.path())).await.unwrap();
    assert_eq!(kafka.bootstrap(), bootstrap);
    assert_eq!(end_offset(&bootstrap), 2);
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = Some(taken.local_addr().unwrap().port());
    let error = Kafka::start(KafkaOptions { port, ..KafkaOptions::for_tests(dir.path()) }).await.unwrap_err();
    assert!(error.to_string().contains("Address already in use"), "{error}");
}
