//! Runs a single Apache Kafka broker (KRaft, combined with its controller) in a data directory.
//!
//! On restart: data, port and cluster id stay the same, so clients reconnect by themselves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::child::{Child, ChildSpec, tail};
use crate::error::EmbeddedError;
use crate::{kafka_jars, port};

/// The cluster id is fixed, so restarts need no bookkeeping. A foreign data directory has another id.
const CLUSTER_ID: &str = "Y2xpY2t0YWxseS1sb2ctMQ";
const READY_LINE: &str = "Kafka Server started";
const READY_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct KafkaOptions {
    pub data_dir: PathBuf,
    /// `None` means the port that this directory used last time if it is free, else any free port.
    pub port: Option<u16>,
    /// Size of the Java heap in MiB.
    pub heap_mb: u32,
    /// Starts fast and uses little memory (C1 compiler only) at half the throughput, which suits tests.
    pub is_short_lived: bool,
}

impl KafkaOptions {
    /// Options for a test: small heap, fast start, any free port.
    pub fn for_tests(data_dir: impl Into<PathBuf>) -> KafkaOptions {
        KafkaOptions { data_dir: data_dir.into(), port: None, heap_mb: 256, is_short_lived: true }
    }

    /// Options for a broker that carries load for a while.
    pub fn serving(data_dir: impl Into<PathBuf>) -> KafkaOptions {
        KafkaOptions { data_dir: data_dir.into(), port: None, heap_mb: 512, is_short_lived: false }
    }
}

/// A running or stopped broker. Dropping it kills the process; [`Kafka::stop`] ends it in order.
#[derive(Debug)]
pub struct Kafka {
    options: KafkaOptions,
    port: u16,
    child: Option<Child>,
}

impl Kafka {
    /// Formats the directory if it is empty, starts the broker, and returns once it accepts clients.
    pub async fn start(options: KafkaOptions) -> Result<Kafka, EmbeddedError> {
        let dir = &options.data_dir;
        std::fs::create_dir_all(dir).map_err(EmbeddedError::io("create", dir))?;
        let port = port::choose(options.port, &dir.join("port"))?;
        let mut kafka = Kafka { options, port, child: None };
        kafka.restart().await?;
        Ok(kafka)
    }

    /// The address as `host:port`, for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Starts the broker on the same data and port after [`Kafka::stop`] or [`Kafka::kill`]. Stops it first if it runs.
    pub async fn restart(&mut self) -> Result<(), EmbeddedError> {
        self.stop().await?;
        let jars = tokio::task::spawn_blocking(kafka_jars::ensure)
            .await
            .map_err(|_| EmbeddedError::NotRunning("the fetcher of Kafka's jars"))??;
        let dir = std::path::absolute(&self.options.data_dir)
            .map_err(EmbeddedError::io("resolve", &self.options.data_dir))?;
        let properties = self.write_properties(&dir)?;
        if !dir.join("log").join("meta.properties").is_file() {
            format(&jars, &properties, &dir).await?;
        }
        let mut arguments = self.java_arguments(&jars);
        arguments.extend(["kafka.Kafka".to_owned(), properties.display().to_string()]);
        let mut child = Child::spawn(ChildSpec {
            service: "Kafka",
            program: "java".to_owned(),
            arguments,
            environment: Vec::new(),
            log: dir.join("kafka.log"),
            ready_line: Some(READY_LINE),
            orphan_signal: Signal::SIGKILL,
            run_as: None,
        })
        .await?;
        child.wait_ready(READY_DEADLINE).await?;
        self.child = Some(child);
        Ok(())
    }

    /// Stops the broker in order. Does nothing if it does not run.
    pub async fn stop(&mut self) -> Result<(), EmbeddedError> {
        match self.child.take() {
            Some(child) => child.stop(Signal::SIGTERM, STOP_DEADLINE).await,
            None => Ok(()),
        }
    }

    /// Kills the broker (SIGKILL), as a crash would.
    pub async fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill().await;
        }
    }

    /// Freezes the broker (SIGSTOP). Its sockets stay open and answer nothing.
    pub fn pause(&self) {
        if let Some(child) = &self.child {
            child.pause();
        }
    }

    pub fn resume(&self) {
        if let Some(child) = &self.child {
            child.resume();
        }
    }

    /// A program of Kafka's own, such as `org.apache.kafka.tools.ConsoleProducer`.
    pub fn tool(class: &str) -> Result<tokio::process::Command, EmbeddedError> {
        Ok(java_program(&kafka_jars::ensure()?, class))
    }

    fn java_arguments(&self, jars: &Path) -> Vec<String> {
        let mut arguments = vec![
            format!("-Xmx{}m", self.options.heap_mb),
            "-XX:+UseSerialGC".to_owned(),
            "-Xshare:auto".to_owned(),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned(),
            "-Dorg.slf4j.simpleLogger.showDateTime=true".to_owned(),
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX".to_owned(),
            // This logger reports readiness.
            "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info".to_owned(),
        ];
        if self.options.is_short_lived {
            arguments.push("-XX:TieredStopAtLevel=1".to_owned());
        }
        arguments.extend(["-cp".to_owned(), format!("{}/*", jars.display())]);
        arguments
    }

    fn write_properties(&self, dir: &Path) -> Result<PathBuf, EmbeddedError> {
        let controller = port::choose(None, &dir.join("controller-port"))?;
        let (port, log) = (self.port, dir.join("log"));
        let log = log.display();
        let text = format!(
            "\
# Written at every start.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={log}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# A misspelt topic must be an error.
auto.create.topics.enable=false
# The broker sets the arrival time: quarantine rules compare event time with it.
log.message.timestamp.type=LogAppendTime
log.retention.hours=168
message.max.bytes=8388608
replica.fetch.max.bytes=8388608
# Sized for one small machine.
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=16777216
"
        );
        let path = dir.join("server.properties");
        std::fs::write(&path, text).map_err(EmbeddedError::io("write", &path))?;
        Ok(path)
    }
}

/// A short-lived program of Kafka's. It ends with its handle.
fn java_program(jars: &Path, class: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("java");
    command.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"]);
    command.arg(format!("{}/*", jars.display())).arg(class).kill_on_drop(true);
    command
}

async fn format(jars: &Path, properties: &Path, dir: &Path) -> Result<(), EmbeddedError> {
    let log = dir.join("format.log");
    let output = java_program(jars, "kafka.tools.StorageTool")
        .args(["format", "--ignore-formatted", "-t", CLUSTER_ID, "-c"])
        .arg(properties)
        .output()
        .await
        .map_err(|source| EmbeddedError::Spawn { program: "java".to_owned(), source })?;
    let text = [output.stdout, output.stderr].concat();
    std::fs::write(&log, text).map_err(EmbeddedError::io("write", &log))?;
    if output.status.success() {
        return Ok(());
    }
    let what = format!("formatting its storage ended with {}", output.status);
    Err(EmbeddedError::Failed { service: "Kafka", what, tail: tail(&log), log })
}
