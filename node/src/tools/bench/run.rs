//! The run: start a broker, and for each form of the topic fill it, read it, count it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use clicktally_embedded::{Kafka, KafkaOptions};
use clicktally_kafka::{FetchBy, KafkaConnection, KafkaLog, KafkaLogSettings};
use clicktally_proto::click_log::ClickLog;
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::identity::shard_key::{GroupId, Partitioner, ShardId};

use super::fill::{FillPlan, fill};
use super::report::{Rate, ShardPath, TopicReport, table};
use super::{cpu_time, peers, raw_consume, shard_path};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TopicForm {
    /// One click per record.
    Single,
    /// Many clicks per record, as capture and the log watcher write under load.
    Packed,
}

/// [`FetchBy`] as it is typed: the crate of the log knows no command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FetchName {
    /// Our own fetcher, the cheaper one (`docs/performance.md`). Plain TCP, record batches of format 2 (Kafka
    /// 0.11 and newer).
    Direct,
    /// The client library, for what the fetcher cannot read.
    Librdkafka,
}

impl From<FetchName> for FetchBy {
    fn from(name: FetchName) -> FetchBy {
        match name {
            FetchName::Direct => FetchBy::Direct,
            FetchName::Librdkafka => FetchBy::Librdkafka,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputForm {
    Table,
    /// Prints one line per topic, as each is done.
    Json,
}

#[derive(Debug, Clone, Args)]
pub struct BenchOptions {
    /// Clicks per topic. A much smaller number is counted before the second checkpoint, a second after the first, so
    /// its rate means little.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub clicks: u64,
    /// Which forms of the topic to measure; both by default.
    #[arg(long)]
    pub topic: Vec<TopicForm>,
    /// Clicks per record of the packed form.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    pub pack: u64,
    /// Distinct ads, skewed.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub ads: u64,
    /// Distinct users, counted for each ad and minute. 0: clicks name no user, because the compared systems count no
    /// users.
    #[arg(long, default_value_t = 0)]
    pub users: u64,
    /// Counting threads, as many as a node has by default.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub threads: u64,
    /// The reader of the log for the counting run.
    #[arg(long, value_enum, default_value_t = FetchName::Direct)]
    pub fetch: FetchName,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A Kafka to use (`host:port`) with an empty raw topic, for one form; by default the bench starts one and discards
    /// it.
    #[arg(long)]
    pub kafka: Option<String>,
    /// A program to run on each filled topic after our own measurement (`bench/run-peers`). It finds CLICKTALLY_KAFKA
    /// and BENCH_DISTINCT in its environment, and prints a line of JSON for each system it has measured.
    #[arg(long, value_name = "PROGRAM")]
    pub peers: Option<PathBuf>,
}

/// Measures and prints. Each form gets a log of its own: the embedded broker is started afresh.
pub async fn run(options: BenchOptions, output: OutputForm) -> anyhow::Result<()> {
    let forms =
        if options.topic.is_empty() { vec![TopicForm::Single, TopicForm::Packed] } else { options.topic.clone() };
    anyhow::ensure!(
        options.kafka.is_none() || forms.len() == 1,
        "a given Kafka holds one raw topic: choose --topic single or --topic packed"
    );
    let mut reports = Vec::new();
    for form in forms {
        let folder = tempfile::tempdir()?;
        let report = match &options.kafka {
            Some(brokers) => measure(&options, form, brokers, folder.path()).await?,
            None => {
                let mut kafka = Kafka::start(KafkaOptions::serving(folder.path().join("kafka"))).await?;
                let report = measure(&options, form, &kafka.bootstrap(), folder.path()).await;
                kafka.stop().await?;
                report?
            }
        };
        if output == OutputForm::Json {
            writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
        }
        reports.push(report);
    }
    if output == OutputForm::Table {
        writeln!(std::io::stdout(), "{}", table(&reports))?;
    }
    Ok(())
}

async fn measure(options: &BenchOptions, form: TopicForm, brokers: &str, folder: &Path) -> anyhow::Result<TopicReport> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let connect = |fetch| {
        let (connection, partitioner) = (KafkaConnection::plaintext(brokers), Partitioner::new(1));
        KafkaLog::connect(KafkaLogSettings { connection, partitioner, replication: None, fetch })
    };
    let log = connect(FetchBy::Librdkafka)?;
    log.ensure_topics().await?;
    for shard in ShardId::of_group(GroupId(0)) {
        anyhow::ensure!(log.end_offset(shard).await? == 0, "the raw topic holds records already: give an empty one");
    }
    let clicks_per_record = match form {
        TopicForm::Single => 1,
        TopicForm::Packed => usize::try_from(options.pack)?,
    };
    let plan = FillPlan {
        clicks: options.clicks,
        clicks_per_record,
        ads: options.ads,
        users: options.users,
        seed: options.seed,
    };
    let filled = fill(&log, &*clock, &plan).await?;
    // Each reading uses new clients, so that no reading profits from records that another one has fetched.
    drop(log);

    let throw_away = async |fetch| {
        let log = connect(fetch)?;
        let (started, cpu_before) = (clock.monotonic(), cpu_time::of_process());
        let bytes = raw_consume::consume(&log, filled.records).await?;
        let rate = Rate::of(filled.clicks, clock.monotonic() - started, cpu_time::of_process() - cpu_before);
        anyhow::Ok((rate, bytes))
    };
    // The goal names the bare client library. The ceiling of our own fetcher is reported beside it.
    let (raw, bytes) = throw_away(FetchBy::Librdkafka).await?;
    let (raw_direct, _) = throw_away(FetchBy::Direct).await?;

    let log: Arc<dyn ClickLog> = Arc::new(connect(options.fetch.into())?);
    let counted =
        shard_path::count(&folder.join("raft"), log, clock, &filled, usize::try_from(options.threads)?).await?;
    let peers = match &options.peers {
        Some(program) => peers::measure(program, brokers, filled.distinct).await?,
        None => Vec::new(),
    };
    Ok(TopicReport {
        topic: match form {
            TopicForm::Single => "single",
            TopicForm::Packed => "packed",
        },
        events: filled.clicks,
        records: filled.records,
        bytes,
        raw_consume: raw,
        raw_direct,
        ratio: counted.rate.events_per_s / raw.events_per_s,
        shard_path: ShardPath {
            rate: counted.rate,
            duplicates: counted.duplicates,
            cells: counted.cells,
            raft_cpu_s_per_million: counted.shares.raft,
            cpu_s_per_million_by: counted.shares,
        },
        peers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_typed_as_the_configuration_writes_it() {
        for name in FetchName::value_variants() {
            let typed = name.to_possible_value().expect("no reader is hidden").get_name().to_owned();
            let written = serde_json::to_value(FetchBy::from(*name)).expect("a reader has a name");
            assert_eq!(written, serde_json::Value::String(typed));
        }
    }
}
