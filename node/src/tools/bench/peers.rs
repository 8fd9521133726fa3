//! Measures other systems on the same topic in the same run. A separate program measures them, so that they do not
//! share our process.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

/// One line of the program's output. It has the CPU of the peer's whole process, including its start, and from its
/// first record to its last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PeerRate {
    pub(super) who: String,
    pub(super) events: u64,
    pub(super) events_per_s: f64,
    pub(super) cpu_s_per_million: f64,
    pub(super) steady_cpu_s_per_million: f64,
    pub(super) counted: u64,
    pub(super) duplicates: u64,
}

/// Fails if the program fails: the program checks the peers' counts.
pub(super) async fn measure(program: &Path, brokers: &str, distinct: u64) -> anyhow::Result<Vec<PeerRate>> {
    let output = tokio::process::Command::new(program)
        .env("CLICKTALLY_KAFKA", brokers)
        .env("BENCH_DISTINCT", distinct.to_string())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "{} ended with {}", program.display(), output.status);
    let read = |line: &str| serde_json::from_str(line).with_context(|| format!("not a peer's result: {line}"));
    String::from_utf8(output.stdout)?.lines().filter(|line| !line.trim().is_empty()).map(read).collect()
}
