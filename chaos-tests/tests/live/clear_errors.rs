//! What an operator gets wrong, or what is not there: a clear error that names the remedy, in bounded time, and never
//! a panic.

use std::path::Path;
use std::process::Stdio;

use clicktally_chaos_tests::cluster::binary_beside_this_program;
use clicktally_chaos_tests::eventually::HANG_MAX;
use clicktally_embedded::{Kafka, KafkaOptions, port};
use clicktally_kafka::KafkaConnection;
use clicktally_proto::click_log::RAW_CLICKS;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};

/// Runs the program to its end; what it said on standard error. It must fail, and must not panic.
async fn complaint(arguments: &[&str]) -> String {
    let child = tokio::process::Command::new(binary_beside_this_program().unwrap())
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let output = tokio::time::timeout(HANG_MAX, child.wait_with_output()).await.expect("it runs on").unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it must fail, but said: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn write_config(dir: &Path, text: &str) -> String {
    let path = dir.join("node.toml");
    let free = || format!("127.0.0.1:{}", port::choose_free().unwrap());
    let node = format!(
        "[node]\nid = 1\nhttp_listen = \"{}\"\npeer_listen = \"{}\"\ndata_dir = {:?}\n{text}",
        free(),
        free(),
        dir.join("data").display().to_string()
    );
    std::fs::write(&path, node).unwrap();
    path.display().to_string()
}

fn assert_says(said: &str, expected: &[&str]) {
    for fragment in expected {
        assert!(said.contains(fragment), "'{fragment}' is not in: {said}");
    }
}

#[tokio::test]
async fn an_unknown_key_names_the_nearest_known_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), "[log]\nbroker = \"127.0.0.1:9092\"\n");
    assert_says(&complaint(&["node", "--config", &config]).await, &["broker", "did you mean 'brokers'"]);
    assert_says(&complaint(&["config", "check", &config]).await, &["did you mean 'brokers'"]);
}

#[tokio::test]
async fn a_configuration_that_is_not_there_is_named() {
    assert_says(&complaint(&["node", "--config", "nowhere.toml"]).await, &["nowhere.toml"]);
}

#[tokio::test]
async fn a_log_that_does_not_answer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), "[log]\nbrokers = \"127.0.0.1:1\"\n");
    assert_says(&complaint(&["node", "--config", &config]).await, &["127.0.0.1:1"]);
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_named_without_its_password() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), "[postgres]\nurl = \"postgres://me:hunter2@127.0.0.1:1/x\"\n");
    let said = complaint(&["billing", "show", "--day", "2026-01-01", "--config", &config]).await;
    assert_says(&said, &["PostgreSQL"]);
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn a_topic_with_the_wrong_number_of_partitions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(KafkaOptions::for_tests(dir.path().join("kafka"))).await.unwrap();
    let admin = KafkaConnection::plaintext(kafka.bootstrap()).admin().unwrap();
    let topic = NewTopic::new(RAW_CLICKS, 3, TopicReplication::Fixed(1));
    admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap();
    let config = write_config(dir.path(), &format!("[log]\nbrokers = \"{}\"\n", kafka.bootstrap()));
    assert_says(&complaint(&["node", "--config", &config]).await, &[RAW_CLICKS, "partitions", "3", "16"]);
}
