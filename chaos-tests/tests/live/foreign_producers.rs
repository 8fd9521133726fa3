//! Programs of other makes write to `raw_clicks`, beside the load: Kafka's Java producer in transactions and with zstd,
//! JSON lines from a script, librdkafka without idempotence, and a program that dies in its transaction. Most of their
//! records are in the wrong partition, and many of them are repeated.

use std::path::Path;
use std::process::Stdio;

use clicktally_chaos_tests::eventually::HANG_MAX;
use clicktally_chaos_tests::trial::Trial;
use clicktally_embedded::Kafka;
use clicktally_kafka::KafkaConnection;
use clicktally_node::tools::load::LoadSummary;
use clicktally_node::tools::load::plan::Fate;
use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::click_log::RAW_CLICKS;
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::identity::ids::ClickId;
use clicktally_proto::identity::shard_key::Partitioner;
use rdkafka::producer::FutureRecord;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

const CLICKS: u64 = 300;
/// The tool draws lines, so each is sent several times, and the chance that one is left out is 300 · e⁻²⁰.
const JAVA_RECORDS: u64 = 20 * CLICKS;
/// As old as the clicks of the load.
const BEHIND_MS: u64 = 150_000;

fn clicks(source: &str) -> Vec<Click> {
    let now_ms = SystemClock.now_ms();
    let click = |n: u64| {
        let (campaign_id, event_id) = (1 + n % 20, format!("{source}-{n}"));
        Click {
            click_id: ClickId::foreign(source, campaign_id, &event_id).0,
            campaign_id,
            ad_id: 1 + n % 50,
            event_time_ms: now_ms - BEHIND_MS + n * 10,
            event_id,
            source: source.to_owned(),
            user_id: format!("user-{}", n % 17),
            cost_per_click_micros: 30_000,
            ..Click::default()
        }
    };
    (0..CLICKS).map(click).collect()
}

fn json_lines(clicks: &[Click]) -> String {
    clicks.iter().map(|click| serde_json::to_string(click).unwrap() + "\n").collect()
}

/// Kafka's own load tool, which writes lines of a file in transactions.
fn java_producer(trial: &Trial, lines: &Path, transaction: &str, more: &[&str]) -> tokio::process::Command {
    let mut tool = Kafka::tool("org.apache.kafka.tools.ProducerPerformance").unwrap();
    tool.args(["--topic", RAW_CLICKS, "--transactional-id", transaction, "--payload-file"]).arg(lines).args(more);
    tool.args(["--producer-props", "compression.type=zstd", "transaction.timeout.ms=15000"]);
    tool.arg(format!("bootstrap.servers={}", trial.services.kafka.bootstrap()));
    tool.stdout(Stdio::piped()).stderr(Stdio::piped());
    tool
}

async fn write_in_transactions(trial: &Trial, clicks: &[Click]) {
    let lines = trial.folder().join("java.jsonl");
    std::fs::write(&lines, json_lines(clicks)).unwrap();
    let records = format!("--num-records={JAVA_RECORDS}");
    let more = [&records, "--throughput=2000", "--transaction-duration-ms=200"];
    let output = timeout(HANG_MAX, java_producer(trial, &lines, "steady", &more).output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Its clicks are in the log, and their transaction never ends by itself: the broker aborts it.
async fn die_in_a_transaction(trial: &Trial) {
    let lines = trial.folder().join("dying.jsonl");
    std::fs::write(&lines, json_lines(&clicks("dying"))).unwrap();
    let more = ["--num-records=10000000", "--throughput=200", "--transaction-duration-ms=3600000"];
    let mut tool = java_producer(trial, &lines, "dying", &more).spawn().unwrap();
    // The tool reports what the broker has taken.
    let mut said = BufReader::new(tool.stdout.take().unwrap()).lines();
    let has_written = async {
        while let Some(line) = said.next_line().await.unwrap() {
            if line.contains("records sent") {
                return true;
            }
        }
        false
    };
    assert!(timeout(HANG_MAX, has_written).await.unwrap(), "the tool ended before it reported");
    tool.kill().await.unwrap();
}

async fn write_from_a_script(trial: &Trial, clicks: &[Click]) {
    let mut tool = Kafka::tool("org.apache.kafka.tools.ConsoleProducer").unwrap();
    tool.args(["--topic", RAW_CLICKS, "--compression-codec", "gzip", "--bootstrap-server"]);
    let mut tool = tool.arg(trial.services.kafka.bootstrap()).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = tool.stdin.take().unwrap();
    input.write_all(json_lines(clicks).as_bytes()).await.unwrap();
    drop(input);
    assert!(timeout(HANG_MAX, tool.wait()).await.unwrap().unwrap().success());
}

/// Sends every record twice, as a producer does that did not hear the answer.
async fn write_without_idempotence(trial: &Trial, clicks: &[Click]) {
    let producer = KafkaConnection::plaintext(trial.services.kafka.bootstrap()).probe_producer().unwrap();
    let partitioner = Partitioner::new(trial.cluster.options.groups);
    for click in clicks {
        let partition = partitioner.shard(click.campaign_id, click.id()).partition();
        let value = encode_record(std::slice::from_ref(click));
        for _ in 0..2 {
            let record = FutureRecord::<(), _>::to(RAW_CLICKS).partition(partition).payload(&value);
            producer.send(record, HANG_MAX).await.unwrap();
        }
    }
}

fn expect(summary: &mut LoadSummary, clicks: Vec<Click>) {
    for click in clicks {
        summary.tally.add_click(Fate::Counted, click.campaign_id, &click.event_id, click.ad_id, click.event_time_ms);
        summary.counted += 1;
        summary.unique_valid += 1;
    }
}

#[tokio::test]
async fn clicks_of_other_makes_are_counted_archived_and_billed_like_our_own() {
    let trial = Trial::start().await.unwrap();
    let load = trial.start_load(&[]).unwrap();
    let [java, script, plain] = ["java", "script", "librdkafka"].map(clicks);
    write_in_transactions(&trial, &java).await;
    die_in_a_transaction(&trial).await;
    write_from_a_script(&trial, &script).await;
    write_without_idempotence(&trial, &plain).await;
    let mut summary = load.end().await.unwrap();
    for clicks in [java, script, plain] {
        expect(&mut summary, clicks);
    }
    trial.settle_and_check(&summary).await.unwrap();
    trial.check_archive().await.unwrap();
    for day in trial.database.archived_days().await.unwrap() {
        for verb in ["run", "reconcile"] {
            trial.cluster.bill(verb, &day, &[]).await.unwrap();
        }
    }
    let causes = trial.database.reconciliation().await.unwrap();
    assert_eq!(causes.get("unexplained").copied().unwrap_or(0), 0, "{causes:?}");
}
