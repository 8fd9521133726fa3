//! Runs one child process: starts, watches, signals and reaps it, and guarantees that it does not outlive us.
//!
//! Each child has a supervisor thread. The thread spawns the child, copies its output into a log file, recognises the
//! line that reports readiness, and reaps the child. `PR_SET_PDEATHSIG` follows the parent thread, not the parent
//! process, so the supervisor lives exactly as long as its child. If this process is killed, the kernel signals the
//! child.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::error::EmbeddedError;

/// An error message quotes at most this many lines of a log.
const TAIL_LINES: usize = 15;

/// The program to run, and how to recognise that it is ready.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    pub service: &'static str,
    pub program: String,
    pub arguments: Vec<String>,
    /// Variables added to the environment that the child inherits.
    pub environment: Vec<(String, String)>,
    pub log: PathBuf,
    /// Part of the output line that reports readiness for clients; with `None` the service is ready once it runs.
    pub ready_line: Option<&'static str>,
    /// The signal that the kernel sends the child when this process dies.
    pub orphan_signal: Signal,
    /// Run the program as this user, because we are root and the program refuses to be.
    pub run_as: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Exited(Option<ExitStatus>),
}

/// A running child. Dropping it kills the process and its children, and waits until they have ended.
#[derive(Debug)]
pub struct Child {
    service: &'static str,
    pid: Pid,
    log: PathBuf,
    state: watch::Receiver<State>,
    /// True from spawn to reaping, while the process id belongs to our child. Signals are sent under this lock, so
    /// that they never reach a process that reuses the id.
    unreaped: Arc<std::sync::Mutex<bool>>,
    supervisor: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts the process. Does not wait until it is ready.
    pub async fn spawn(spec: ChildSpec) -> Result<Child, EmbeddedError> {
        let begins = if spec.ready_line.is_some() { State::Starting } else { State::Ready };
        let (state_in, state) = watch::channel(begins);
        let (pid_in, pid) = tokio::sync::oneshot::channel();
        let unreaped = Arc::new(std::sync::Mutex::new(true));
        let (service, log) = (spec.service, spec.log.clone());
        let still_unreaped = unreaped.clone();
        let supervisor = std::thread::Builder::new()
            .name(format!("{service} supervisor"))
            .spawn(move || supervise(&spec, pid_in, &state_in, &still_unreaped))
            .map_err(|source| EmbeddedError::Spawn { program: service.to_owned(), source })?;
        let pid = pid.await.map_err(|_| EmbeddedError::NotRunning(service))??;
        Ok(Child { service, pid, log, state, unreaped, supervisor: Some(supervisor) })
    }

    /// The operating system's process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Waits until the child has printed its ready line. Fails if it exits first or if the deadline passes.
    pub async fn wait_ready(&mut self, deadline: Duration) -> Result<(), EmbeddedError> {
        let state = tokio::time::timeout(deadline, self.state.wait_for(|state| *state != State::Starting)).await;
        match state.map(|result| result.map(|state| *state)) {
            Ok(Ok(State::Ready)) => Ok(()),
            Ok(Ok(State::Exited(Some(status)))) => {
                Err(self.failed(format!("it ended before it was ready, with {status}")))
            }
            Ok(_) => Err(self.failed("it ended before it was ready".to_owned())),
            Err(_) => Err(EmbeddedError::NotReady {
                service: self.service,
                waited: deadline,
                log: self.log.clone(),
                tail: tail(&self.log),
            }),
        }
    }

    /// Sends `signal` and waits for the exit. Kills the process and its children if the deadline passes.
    pub async fn stop(mut self, signal: Signal, deadline: Duration) -> Result<(), EmbeddedError> {
        self.signal(Signal::SIGCONT);
        self.signal(signal);
        if tokio::time::timeout(deadline, self.exited()).await.is_err() {
            tracing::warn!(service = self.service, ?deadline, "the service did not stop in time and is killed");
            self.kill_tree();
            self.exited().await;
        }
        self.join();
        Ok(())
    }

    /// Kills the process and its children (SIGKILL), as a crash would. Returns when they have ended.
    pub async fn kill(mut self) {
        self.kill_tree();
        self.exited().await;
        self.join();
    }

    /// Freezes the process and its children (SIGSTOP). They keep their sockets and answer nothing.
    pub fn pause(&self) {
        self.signal_tree(Signal::SIGSTOP);
    }

    /// Undoes [`Child::pause`].
    pub fn resume(&self) {
        self.signal_tree(Signal::SIGCONT);
    }

    /// Waits until the process has ended by itself or by a signal. Returns its status if the kernel reported one.
    pub async fn exited(&mut self) -> Option<ExitStatus> {
        // An error means that the supervisor has ended, and it ends only after its child.
        match self.state.wait_for(|state| matches!(state, State::Exited(_))).await.as_deref() {
            Ok(State::Exited(status)) => *status,
            _ => None,
        }
    }

    pub fn is_running(&self) -> bool {
        !matches!(*self.state.borrow(), State::Exited(_))
    }

    /// The last lines of the child's log, for an error message.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    fn signal(&self, signal: Signal) {
        let unreaped = self.unreaped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *unreaped && let Err(error) = kill(self.pid, signal) {
            tracing::warn!(service = self.service, %signal, %error, "the signal could not be delivered");
        }
    }

    /// Signals the main process first, so that it starts no more children while we signal those it has.
    fn signal_tree(&self, signal: Signal) {
        let children = children_of(self.pid);
        self.signal(signal);
        for child in children {
            let _ = kill(child, signal);
        }
    }

    fn kill_tree(&self) {
        self.signal_tree(Signal::SIGKILL);
    }

    fn join(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }

    fn failed(&self, what: String) -> EmbeddedError {
        EmbeddedError::Failed { service: self.service, what, log: self.log.clone(), tail: tail(&self.log) }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.supervisor.is_some() {
            self.kill_tree();
            self.join();
        }
    }
}

fn supervise(
    spec: &ChildSpec,
    pid_in: tokio::sync::oneshot::Sender<Result<Pid, EmbeddedError>>,
    state: &watch::Sender<State>,
    unreaped: &std::sync::Mutex<bool>,
) {
    let (mut child, mut log, output) = match start(spec) {
        Ok(started) => started,
        Err(error) => {
            let _ = pid_in.send(Err(error));
            return;
        }
    };
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let _ = pid_in.send(Ok(pid));

    copy_output(
        output,
        &mut log,
        || {
            state.send_if_modified(|state| {
                let is_first = *state == State::Starting;
                *state = State::Ready;
                is_first
            });
        },
        spec.ready_line,
    );

    // Wait without reaping: the process id stays ours until the lock is held, so no signal can reach a new owner of it.
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let mut unreaped = unreaped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let status = child.wait().ok();
    *unreaped = false;
    state.send_replace(State::Exited(status));
}

fn start(spec: &ChildSpec) -> Result<(std::process::Child, File, std::io::PipeReader), EmbeddedError> {
    let log =
        File::options().create(true).append(true).open(&spec.log).map_err(EmbeddedError::io("open", &spec.log))?;
    let pipe = std::io::pipe().and_then(|(reader, writer)| Ok((reader, writer.try_clone()?, writer)));
    let (reader, out, err) = pipe.map_err(EmbeddedError::io("make a pipe for", &spec.log))?;
    let mut command = command(&spec.program, spec.run_as.as_deref(), Some(spec.orphan_signal));
    command.args(&spec.arguments).envs(spec.environment.iter().cloned()).stdin(Stdio::null()).stdout(out).stderr(err);
    // The child gets its own process group: on Ctrl-C at a terminal, this process stops its children in its own order.
    command.process_group(0);
    let child = command.spawn().map_err(|source| EmbeddedError::Spawn { program: spec.program.clone(), source })?;
    Ok((child, log, reader))
}

fn copy_output(output: std::io::PipeReader, log: &mut File, on_ready: impl Fn(), ready_line: Option<&str>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    // The pipe ends when the child and every process that inherited its output have ended.
    while let Ok(1..) = reader.read_until(b'\n', &mut line) {
        // A full disk must not block the child behind a full pipe, so output that cannot be written is dropped.
        let _ = log.write_all(&line);
        if ready_line.is_some_and(|ready_line| String::from_utf8_lossy(&line).contains(ready_line)) {
            on_ready();
        }
        line.clear();
    }
}

/// A command that runs through `setpriv` (util-linux). `setpriv` sets the parent-death signal and changes the user, so
/// we need no unsafe code between fork and exec.
pub(crate) fn command(program: &str, run_as: Option<&str>, orphan_signal: Option<Signal>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(signal) = orphan_signal {
        command.args(["--pdeathsig", signal.as_str().trim_start_matches("SIG")]);
    }
    if let Some(user) = run_as {
        let group =
            nix::unistd::User::from_name(user).ok().flatten().map_or_else(|| user.to_owned(), |u| u.gid.to_string());
        command.args(["--reuid", user, "--regid", &group, "--clear-groups"]);
        // Keep one capability, because the data directory may have parents that this user cannot enter, such as a
        // temporary folder of root with mode 0700. The data themselves belong to the user.
        command.args(["--inh-caps", "-all,+dac_override", "--ambient-caps", "-all,+dac_override"]);
    }
    command.arg("--").arg(program);
    command
}

fn children_of(pid: Pid) -> Vec<Pid> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|text| text.parse().ok().map(Pid::from_raw))
        .collect()
}

/// The last lines of a log, for an error message.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
