//! One child process: started with a promise that it does not outlive us, watched, signalled, and reaped.
//!
//! A supervisor thread per child spawns it, copies its output into a log file, notices the line that says it is ready, and
//! reaps it. The thread is the child's parent in the sense of `PR_SET_PDEATHSIG`, which follows threads, not processes: it lives
//! exactly as long as the child, and when this whole process is killed, the child is signalled by the kernel.

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

/// How much of a log an error message quotes.
const TAIL_LINES: usize = 15;

/// What to run, and how its readiness shows.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    pub service: &'static str,
    pub program: String,
    pub arguments: Vec<String>,
    /// Added to our own environment.
    pub environment: Vec<(String, String)>,
    pub log: PathBuf,
    /// A fragment of the output line that says the service takes clients; `None`: ready as soon as it runs.
    pub ready_line: Option<&'static str>,
    /// What the kernel sends the child when we die.
    pub orphan_signal: Signal,
    /// Run as this user instead (we are root, the program refuses to be).
    pub run_as: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Exited(Option<ExitStatus>),
}

/// A running child. Dropping it kills it and its children, and waits until they are gone.
#[derive(Debug)]
pub struct Child {
    service: &'static str,
    pid: Pid,
    log: PathBuf,
    state: watch::Receiver<State>,
    /// True while the process id is ours: from spawn to reaping. Signals are sent under this lock, never to a reused id.
    unreaped: Arc<std::sync::Mutex<bool>>,
    supervisor: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts the process; does not wait for its readiness.
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

    /// Waits until the ready line was seen. An earlier exit is an error, and so is a deadline passed.
    pub async fn wait_ready(&mut self, deadline: Duration) -> Result<(), EmbeddedError> {
        let state = tokio::time::timeout(deadline, self.state.wait_for(|state| *state != State::Starting)).await;
        match state.map(|result| result.map(|state| *state)) {
            Ok(Ok(State::Ready)) => Ok(()),
            Ok(Ok(State::Exited(Some(status)))) => Err(self.failed(format!("it ended early with {status}"))),
            Ok(_) => Err(self.failed("it ended early".to_owned())),
            Err(_) => Err(EmbeddedError::NotReady {
                service: self.service,
                waited: deadline,
                log: self.log.clone(),
                tail: tail(&self.log),
            }),
        }
    }

    /// Sends `signal`, waits for the exit; past the deadline, kills.
    pub async fn stop(mut self, signal: Signal, deadline: Duration) -> Result<(), EmbeddedError> {
        self.signal(Signal::SIGCONT);
        self.signal(signal);
        if tokio::time::timeout(deadline, self.exited()).await.is_err() {
            tracing::warn!(service = self.service, ?deadline, "did not stop in time, killing it");
            self.kill_tree();
            self.exited().await;
        }
        self.join();
        Ok(())
    }

    /// `kill -9` of the process and its children, as a crash would; returns when they are gone.
    pub async fn kill(mut self) {
        self.kill_tree();
        self.exited().await;
        self.join();
    }

    /// Stops the process and its children where they are (SIGSTOP); they keep their sockets and answer nothing.
    pub fn pause(&self) {
        self.signal_tree(Signal::SIGSTOP);
    }

    /// Undoes [`Child::pause`].
    pub fn resume(&self) {
        self.signal_tree(Signal::SIGCONT);
    }

    /// Waits until the process has ended by itself or by a signal; its status, where the kernel told us.
    pub async fn exited(&mut self) -> Option<ExitStatus> {
        // An error means that the supervisor is gone, which it is only after the child.
        match self.state.wait_for(|state| matches!(state, State::Exited(_))).await.as_deref() {
            Ok(State::Exited(status)) => *status,
            _ => None,
        }
    }

    pub fn is_running(&self) -> bool {
        !matches!(*self.state.borrow(), State::Exited(_))
    }

    /// The last lines it wrote, for an error message.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    fn signal(&self, signal: Signal) {
        let unreaped = self.unreaped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *unreaped && let Err(error) = kill(self.pid, signal) {
            tracing::warn!(service = self.service, %signal, %error, "signal not delivered");
        }
    }

    /// The main process first, so that it starts no more children while we reach for them.
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

    // Wait without reaping, so that nobody signals a process id that has a new owner.
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
    // A process group of its own: Ctrl-C at a terminal is ours to handle, in our order.
    command.process_group(0);
    let child = command.spawn().map_err(|source| EmbeddedError::Spawn { program: spec.program.clone(), source })?;
    Ok((child, log, reader))
}

fn copy_output(output: std::io::PipeReader, log: &mut File, on_ready: impl Fn(), ready_line: Option<&str>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    // Until end of file: then the child and all who inherited its output are gone.
    while let Ok(1..) = reader.read_until(b'\n', &mut line) {
        // A full disk must not block the child behind a full pipe: what cannot be logged is dropped.
        let _ = log.write_all(&line);
        if ready_line.is_some_and(|ready_line| String::from_utf8_lossy(&line).contains(ready_line)) {
            on_ready();
        }
        line.clear();
    }
}

/// A command that runs through `setpriv` (util-linux): it sets the parent-death signal and drops the user, with no unsafe
/// code between fork and exec here.
pub(crate) fn command(program: &str, run_as: Option<&str>, orphan_signal: Option<Signal>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(signal) = orphan_signal {
        command.args(["--pdeathsig", signal.as_str().trim_start_matches("SIG")]);
    }
    if let Some(user) = run_as {
        let group =
            nix::unistd::User::from_name(user).ok().flatten().map_or_else(|| user.to_owned(), |u| u.gid.to_string());
        command.args(["--reuid", user, "--regid", &group, "--clear-groups"]);
        // The one capability that is kept: to reach a data directory below parents that are closed to others, such as a
        // root-owned temporary folder of mode 0700. The data themselves belong to the user.
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
