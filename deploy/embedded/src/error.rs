//! The errors of starting and stopping a service. Each message tells an operator what to do.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum EmbeddedError {
    #[error("'{program}' was not found; {remedy}")]
    Missing { program: String, remedy: &'static str },

    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },

    #[error("cannot start '{program}': {source}")]
    Spawn { program: String, source: std::io::Error },

    #[error(
        "cannot fetch Apache Kafka from Maven Central; check the network and the proxy settings of mvn. Output of mvn:\n{output}"
    )]
    Fetch { output: String },

    #[error("{service} failed: {what}; see its log {log}. The last lines:\n{tail}")]
    Failed { service: &'static str, what: String, log: PathBuf, tail: String },

    #[error("{service} was not ready after {waited:?}; see its log {log}. The last lines:\n{tail}")]
    NotReady { service: &'static str, waited: Duration, log: PathBuf, tail: String },

    #[error(
        "{directory} was created by PostgreSQL {found}, but PostgreSQL {installed} is installed; install postgresql-{found} or choose another data directory"
    )]
    Version { directory: PathBuf, found: String, installed: String },

    #[error("{0} is not running")]
    NotRunning(&'static str),
}

impl EmbeddedError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> EmbeddedError {
        let path = path.into();
        move |source| EmbeddedError::Io { action, path, source }
    }
}
