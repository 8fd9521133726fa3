//! CPU time of a process, or of this process's threads by name, from procfs.

use std::fs;
use std::time::Duration;

use serde::Serialize;

/// The thread names of the replicas' runtime and of the shard host.
pub(super) const RAFT_THREADS: &str = "bench-raft";
const COUNTING_THREADS: &str = "shards";
/// The thread names of our fetcher, and below those of the client library.
const FETCHER_THREAD: &str = "log-fetch";
const CLIENT_THREADS: &str = "rdk:";

/// The unit of procfs, which is fixed for user space on every Linux this runs on.
const TICK: Duration = Duration::from_millis(10);

/// Returns user and system time of all threads of this process, including those that have ended.
pub(super) fn of_process() -> Duration {
    of(std::process::id()).unwrap_or_default()
}

/// Returns the same for any process; `None` if there is no such process.
pub fn of(pid: u32) -> Option<Duration> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| ticks(&stat)).map(in_time)
}

/// Returns the same for the living threads whose names begin with `prefix` (procfs keeps 15 bytes of a name).
pub(super) fn of_threads(prefix: &str) -> Duration {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let ticks = threads.flatten().filter_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        let name = stat.split_once('(')?.1.rsplit_once(')')?.0;
        if name.starts_with(prefix) { ticks(&stat) } else { None }
    });
    in_time(ticks.sum())
}

fn in_time(ticks: u32) -> Duration {
    TICK * ticks
}

/// Parses fields 14 and 15 of proc(5) `stat`; the name before them may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// CPU of a whole run, by the task of its threads.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Shares {
    /// Fetching the log's bytes. The client library also decompresses them and cuts them into records. Our fetcher
    /// leaves that to the counting threads.
    pub(super) fetch: f64,
    /// The counting threads: decompressing if our fetcher fetches, decoding, deduplication, aggregation, packing
    /// checkpoints.
    pub(super) count: f64,
    /// All three replicas: network, log, apply.
    pub(super) raft: f64,
    pub(super) other: f64,
}

/// The readings of one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    process: Duration,
    fetch: Duration,
    count: Duration,
    raft: Duration,
}

impl Reading {
    pub(super) fn now() -> Reading {
        Reading {
            process: of_process(),
            fetch: of_threads(FETCHER_THREAD) + of_threads(CLIENT_THREADS),
            count: of_threads(COUNTING_THREADS),
            raft: of_threads(RAFT_THREADS) + of_threads("raft-log-writer"),
        }
    }

    pub(super) fn process_since(&self, before: &Reading) -> Duration {
        self.process.saturating_sub(before.process)
    }

    /// Returns seconds per million events since `before`.
    pub(super) fn shares_since(&self, before: &Reading, events: u64) -> Shares {
        let per_million =
            |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() * 1e6 / (events.max(1) as f64);
        let (fetch, count) = (per_million(self.fetch, before.fetch), per_million(self.count, before.count));
        let raft = per_million(self.raft, before.raft);
        let whole = per_million(self.process, before.process);
        Shares { fetch, count, raft, other: (whole - fetch - count - raft).max(0.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_any_name() {
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 17 4 0 0 20";
        assert_eq!(ticks(stat), Some(21));
        assert!(of_process() >= of_threads("no thread is named like this"));
    }
}
