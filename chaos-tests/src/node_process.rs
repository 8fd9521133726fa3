//! One `clicktally node` process: started, killed, frozen, restarted on the same configuration and data.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use clicktally_embedded::{Child, ChildSpec, child};
use clicktally_node::tools::bench::cpu_time;
use nix::sys::signal::Signal;

use crate::eventually::HANG_MAX;

#[derive(Debug)]
pub struct NodeProcess {
    pub id: u64,
    pub url: String,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl NodeProcess {
    pub fn new(id: u64, url: String, binary: PathBuf, config: PathBuf) -> NodeProcess {
        let log = config.with_extension("log");
        NodeProcess { id, url, binary, config, log, child: None }
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    pub fn is_running(&self) -> bool {
        self.child.as_ref().is_some_and(Child::is_running)
    }

    /// True from start until kill, stop, or a noticed exit.
    pub fn was_started(&self) -> bool {
        self.child.is_some()
    }

    /// Starts it with these additions to the environment (fail points, broken links); does not wait until it is ready.
    pub async fn start(&mut self, environment: &[(&str, &str)]) -> anyhow::Result<()> {
        let spec = ChildSpec {
            service: "clicktally node",
            program: self.binary.display().to_string(),
            arguments: vec!["node".to_owned(), "--config".to_owned(), self.config.display().to_string()],
            environment: environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            log: self.log.clone(),
            ready_line: None,
            orphan_signal: Signal::SIGKILL,
            run_as: None,
        };
        self.child = Some(Child::spawn(spec).await?);
        Ok(())
    }

    /// `kill -9`; returns when it is gone.
    pub async fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill().await;
        }
    }

    /// Orderly stop (SIGTERM).
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(child) = self.child.take() {
            child.stop(Signal::SIGTERM, HANG_MAX).await?;
        }
        Ok(())
    }

    /// SIGSTOP: it keeps its sockets and its beliefs, and wakes up later as a zombie.
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

    /// Waits until it ends by itself, as at a fail point.
    pub async fn exited(&mut self, deadline: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("the node was not started")?;
        let status = tokio::time::timeout(deadline, child.exited()).await;
        let status = status.with_context(|| format!("node {} still runs after {deadline:?}", self.id))?;
        self.child = None;
        Ok(status)
    }

    /// Whether this is anywhere in its log, of this life or an earlier one.
    pub fn has_logged(&self, text: &str) -> anyhow::Result<bool> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).contains(text))
    }

    /// User and system time of the process so far.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let pid = self.child.as_ref().context("the node was not started")?.pid();
        cpu_time::of(pid).with_context(|| format!("node {} has no CPU time in procfs", self.id))
    }

    /// For the message of a failed test; also of a node that has ended.
    pub fn log_tail(&self) -> String {
        child::tail(&self.log)
    }
}
