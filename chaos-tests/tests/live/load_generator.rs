//! The generator against the log itself, with no cluster in between: what it says it sent is what is there.

use clap::Parser;
use clicktally_chaos_tests::cluster::binary_beside_this_program;
use clicktally_chaos_tests::oracle::Recount;
use clicktally_embedded::{Kafka, KafkaOptions};
use clicktally_kafka::KafkaConnection;
use clicktally_node::tools::load::{LoadOptions, run};
use clicktally_proto::click_log::RAW_CLICKS;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};

#[derive(Parser)]
struct LoadArguments {
    #[command(flatten)]
    options: LoadOptions,
}

async fn kafka_with_raw_topic(dir: &std::path::Path) -> Kafka {
    let kafka = Kafka::start(KafkaOptions::for_tests(dir)).await.unwrap();
    let admin = KafkaConnection::plaintext(kafka.bootstrap()).admin().unwrap();
    let topic = NewTopic::new(RAW_CLICKS, 16, TopicReplication::Fixed(1));
    let made = admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    kafka
}

#[tokio::test]
async fn what_the_load_says_it_sent_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = kafka_with_raw_topic(dir.path()).await;
    let bootstrap = kafka.bootstrap();
    let expect = dir.path().join("expect.jsonl");
    let options = LoadArguments::parse_from([
        "load",
        "--quiet",
        "--rate=0",
        "--clicks=200000",
        "--steady-ads=2",
        "--duplicate-percent=5",
        "--late-percent=1",
        "--beyond-horizon-percent=1",
        "--invalid-percent=3",
        "--malformed-percent=0.1",
        &format!("--kafka={bootstrap}"),
        &format!("--expect={}", expect.display()),
    ])
    .options;
    let summary = run(options).await.unwrap();
    let recount = tokio::task::spawn_blocking(move || Recount::of_log(&bootstrap)).await.unwrap().unwrap();
    assert_eq!(recount.clicks_in_log + recount.malformed_records, summary.sent);
    assert_eq!(recount.malformed_records, summary.malformed);
    assert_eq!(recount.unique_valid() as u64, summary.unique_valid);
    assert_eq!(recount.unique() as u64, summary.unique_valid + summary.invalid);
    assert!(summary.late_beyond > 1_000 && summary.late_counted > 1_000, "{summary:?}");
    let written = clicktally_node::tools::load::tally::read_expected(&expect).unwrap();
    assert_eq!(written.iter().map(|line| line.clicks).sum::<u64>(), summary.counted);
}

#[tokio::test]
async fn the_verb_prints_what_it_did_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = kafka_with_raw_topic(dir.path()).await;
    let load = |form: &'static str| {
        let kafka = format!("--kafka={}", kafka.bootstrap());
        let arguments = ["load", "--quiet", "--rate=0", "--clicks=500", "--duplicate-percent=5", "--output", form];
        tokio::process::Command::new(binary_beside_this_program().unwrap()).args(arguments).arg(kafka).output()
    };
    let json: serde_json::Value = serde_json::from_slice(&load("json").await.unwrap().stdout).unwrap();
    assert_eq!(json["sent"], 500);
    let sum = ["unique_valid", "invalid", "duplicates", "malformed"].map(|name| json[name].as_u64().unwrap());
    assert_eq!(sum.iter().sum::<u64>(), 500, "{json}");
    let table = String::from_utf8(load("table").await.unwrap().stdout).unwrap();
    assert!(table.contains("unique_valid") && table.contains("500"), "{table}");
}
