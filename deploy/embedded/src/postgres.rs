//! Runs a private PostgreSQL server in a data directory. It has its own user, password and port, and shares nothing
//! with the system's cluster.
//!
//! On restart: data, port and URL stay the same.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};

use crate::child::{self, Child, ChildSpec, tail};
use crate::error::EmbeddedError;
use crate::port;

const READY_LINE: &str = "database system is ready to accept connections";
const READY_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// An orphaned predecessor takes a moment to leave the data directory, so a start is tried this many times.
const START_ATTEMPTS_MAX: u32 = 20;
/// The pause between two such attempts.
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(250);
const USER: &str = "clicktally";
const DATABASE: &str = "clicktally";
const REMEDY: &str = "install PostgreSQL 15 or newer (Debian: apt-get install postgresql), or set CLICKTALLY_PG_BIN to the folder \
                      that holds initdb and postgres";

#[derive(Debug, Clone)]
pub struct PostgresOptions {
    pub data_dir: PathBuf,
    /// `None` means the port that this directory used last time if it is free, else any free port.
    pub port: Option<u16>,
    /// Tests switch this off, because they may lose their data when the machine loses power.
    pub fsync: bool,
}

impl PostgresOptions {
    pub fn for_tests(data_dir: impl Into<PathBuf>) -> PostgresOptions {
        PostgresOptions { data_dir: data_dir.into(), port: None, fsync: false }
    }

    pub fn serving(data_dir: impl Into<PathBuf>) -> PostgresOptions {
        PostgresOptions { data_dir: data_dir.into(), port: None, fsync: true }
    }
}

/// A running or stopped server. Dropping it kills the process; [`Postgres::stop`] ends it in order.
#[derive(Debug)]
pub struct Postgres {
    options: PostgresOptions,
    binaries: PathBuf,
    port: u16,
    password: String,
    child: Option<Child>,
}

impl Postgres {
    /// Creates the database cluster if the directory is empty, starts the server, and returns once it accepts clients.
    pub async fn start(options: PostgresOptions) -> Result<Postgres, EmbeddedError> {
        let dir = std::path::absolute(&options.data_dir).map_err(EmbeddedError::io("resolve", &options.data_dir))?;
        let binaries = find_binaries(std::fs::read_to_string(dir.join("cluster/PG_VERSION")).ok().as_deref())?;
        let options = PostgresOptions { data_dir: dir.clone(), ..options };
        std::fs::create_dir_all(&dir).map_err(EmbeddedError::io("create", &dir))?;
        let port = port::choose(options.port, &dir.join("port"))?;
        let password = password(&dir.join("password"))?;
        let mut postgres = Postgres { options, binaries, port, password, child: None };
        postgres.restart().await?;
        Ok(postgres)
    }

    /// The value for `DATABASE_URL`. It contains the password of this private server.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{DATABASE}", self.password, self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Starts the server on the same data and port after [`Postgres::stop`] or [`Postgres::kill`]. Stops it first if it
    /// runs.
    pub async fn restart(&mut self) -> Result<(), EmbeddedError> {
        self.stop().await?;
        let dir = self.options.data_dir.clone();
        self.ensure_cluster(&dir).await?;
        let mut attempt = 1;
        loop {
            match self.spawn(&dir).await {
                Ok(child) => {
                    self.child = Some(child);
                    return Ok(());
                }
                Err(EmbeddedError::Failed { tail, .. }) if attempt < START_ATTEMPTS_MAX && has_predecessor(&tail) => {
                    attempt += 1;
                    tokio::time::sleep(PREDECESSOR_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Stops the server in order: ends sessions and writes everything. Does nothing if it does not run.
    pub async fn stop(&mut self) -> Result<(), EmbeddedError> {
        match self.child.take() {
            // SIGINT is PostgreSQL's "fast" shutdown. SIGTERM would wait until every client has disconnected.
            Some(child) => child.stop(Signal::SIGINT, STOP_DEADLINE).await,
            None => Ok(()),
        }
    }

    /// Kills the server and its backends at once, as a crash would. The next start recovers from the write-ahead log.
    pub async fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill().await;
        }
    }

    /// Freezes the server and its backends (SIGSTOP). Connections stay open and answer nothing.
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

    async fn spawn(&self, dir: &Path) -> Result<Child, EmbeddedError> {
        let fsync = if self.options.fsync { "on" } else { "off" };
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            // TCP only: the path of a socket below a long data directory would not fit in a socket address.
            "unix_socket_directories=".to_owned(),
            format!("fsync={fsync}"),
            format!("full_page_writes={fsync}"),
            "synchronous_commit=on".to_owned(),
            "timezone=UTC".to_owned(),
            "logging_collector=off".to_owned(),
            "max_connections=200".to_owned(),
        ];
        let mut arguments = vec!["-D".to_owned(), dir.join("cluster").display().to_string()];
        arguments.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let mut child = Child::spawn(ChildSpec {
            service: "PostgreSQL",
            program: self.binaries.join("postgres").display().to_string(),
            arguments,
            environment: Vec::new(),
            log: dir.join("postgres.log"),
            ready_line: Some(READY_LINE),
            // If this process is killed, SIGINT (fast shutdown) lets the server close its files in order.
            orphan_signal: Signal::SIGINT,
            run_as: unprivileged_user()?,
        })
        .await?;
        child.wait_ready(READY_DEADLINE).await?;
        Ok(child)
    }

    async fn ensure_cluster(&self, dir: &Path) -> Result<(), EmbeddedError> {
        let cluster = dir.join("cluster");
        let log = dir.join("initdb.log");
        if let Ok(found) = std::fs::read_to_string(cluster.join("PG_VERSION")) {
            return self.check_version(&cluster, found.trim()).await;
        }
        // Build the cluster beside its final place and rename it last, so that an incomplete one is never used.
        let partial = dir.join("cluster.partial");
        let _ = std::fs::remove_dir_all(&partial);
        std::fs::create_dir_all(&partial).map_err(EmbeddedError::io("create", &partial))?;
        let password_file = partial.with_extension("password");
        std::fs::write(&password_file, &self.password).map_err(EmbeddedError::io("write", &password_file))?;
        if let Some(name) = unprivileged_user()?
            && let Ok(Some(user)) = User::from_name(&name)
        {
            for path in [&partial, &password_file] {
                std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                    .map_err(EmbeddedError::io("change the owner of", path))?;
            }
        }
        std::fs::set_permissions(&partial, PermissionsExt::from_mode(0o700))
            .map_err(EmbeddedError::io("set the permissions of", &partial))?;
        let place = partial.display().to_string();
        let password_option = format!("--pwfile={}", password_file.display());
        let mut arguments =
            vec!["-D", &place, "-U", USER, "--auth=scram-sha-256", &password_option, "--encoding=UTF8", "--locale=C"];
        if !self.options.fsync {
            arguments.push("--no-sync");
        }
        let made = self.run("initdb", &arguments, "", &log).await;
        let _ = std::fs::remove_file(&password_file);
        made?;
        self.run("postgres", &["--single", "-D", &place, "postgres"], &format!("CREATE DATABASE {DATABASE}\n"), &log)
            .await?;
        std::fs::rename(&partial, &cluster).map_err(EmbeddedError::io("rename into place", &cluster))
    }

    async fn check_version(&self, cluster: &Path, found: &str) -> Result<(), EmbeddedError> {
        let output = tokio::process::Command::new(self.binaries.join("postgres"))
            .arg("--version")
            .output()
            .await
            .map_err(|source| EmbeddedError::Spawn { program: "postgres".to_owned(), source })?;
        // "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let installed = text.split_whitespace().nth(2).and_then(|v| v.split('.').next()).unwrap_or("?");
        if installed == found {
            return Ok(());
        }
        let (found, installed) = (found.to_owned(), installed.to_owned());
        Err(EmbeddedError::Version { directory: cluster.to_owned(), found, installed })
    }

    /// Runs one of PostgreSQL's programs to its end. Passes `input` on standard input and writes its output to `log`.
    async fn run(&self, program: &str, arguments: &[&str], input: &str, log: &Path) -> Result<(), EmbeddedError> {
        let path = self.binaries.join(program).display().to_string();
        let user = unprivileged_user()?;
        let spawn_error = |source| EmbeddedError::Spawn { program: path.clone(), source };
        let mut child = tokio::process::Command::from(child::command(&path, user.as_deref(), None))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(spawn_error)?;
        if let Some(mut stdin) = child.stdin.take() {
            use tokio::io::AsyncWriteExt;
            // One line fits into the pipe. If the program ends early, its exit status reports the failure.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(spawn_error)?;
        let text = [output.stdout, output.stderr].concat();
        std::fs::write(log, text).map_err(EmbeddedError::io("write", log))?;
        if output.status.success() {
            return Ok(());
        }
        let what = format!("{program} ended with {}", output.status);
        Err(EmbeddedError::Failed { service: "PostgreSQL", what, tail: tail(log), log: log.to_owned() })
    }
}

/// PostgreSQL refuses to run as root. We prefer the user of its package; the user `nobody` also works.
fn unprivileged_user() -> Result<Option<String>, EmbeddedError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let known = |name: &&str| matches!(User::from_name(name), Ok(Some(_)));
    let name = ["postgres", "nobody"].into_iter().find(known);
    let remedy = "PostgreSQL does not run as root; create a user named postgres";
    name.map(|name| Some(name.to_owned()))
        .ok_or_else(|| EmbeddedError::Missing { program: "an unprivileged user".to_owned(), remedy })
}

fn has_predecessor(tail: &str) -> bool {
    tail.contains("postmaster.pid") || tail.contains("shared memory block") || tail.contains("Address already in use")
}

/// Finds the folder of PostgreSQL's programs. Looks at `$CLICKTALLY_PG_BIN` alone if it is set. Otherwise tries
/// Debian's folder of the version that created the cluster, then Debian's newest version, then `$PATH`.
fn find_binaries(cluster_version: Option<&str>) -> Result<PathBuf, EmbeddedError> {
    let holds_all = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let missing = || EmbeddedError::Missing { program: "initdb".to_owned(), remedy: REMEDY };
    if let Some(folder) = std::env::var_os("CLICKTALLY_PG_BIN").map(PathBuf::from) {
        return Some(folder).filter(holds_all).ok_or_else(missing);
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let same = cluster_version.map(|version| Path::new("/usr/lib/postgresql").join(version.trim()).join("bin"));
    let newest_first = versions.into_iter().rev().map(|(_, folder)| folder);
    same.into_iter().chain(newest_first).chain(std::env::split_paths(&path)).find(holds_all).ok_or_else(missing)
}

/// Reads the password from `file`, or creates one from the kernel's randomness. Only our user may read the file.
fn password(file: &Path) -> Result<String, EmbeddedError> {
    if let Ok(password) = std::fs::read_to_string(file)
        && !password.is_empty()
    {
        return Ok(password);
    }
    let mut random = [0_u8; 16];
    let source = Path::new("/dev/urandom");
    std::fs::File::open(source)
        .and_then(|mut device| device.read_exact(&mut random))
        .map_err(EmbeddedError::io("read", source))?;
    let password = hex::encode(random);
    std::fs::write(file, "").map_err(EmbeddedError::io("write", file))?;
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o600))
        .map_err(EmbeddedError::io("set the permissions of", file))?;
    std::fs::write(file, &password).map_err(EmbeddedError::io("write", file))?;
    Ok(password)
}
