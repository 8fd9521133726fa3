//! CPU time of this process (the broker is another one), whole or of threads by name, from procfs.

use std::fs;
use std::time::Duration;

/// What procfs counts in; fixed for user space on every Linux this runs on.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of all threads, ended ones included.
pub(super) fn of_process() -> Duration {
    fs::read_to_string("/proc/self/stat").ok().and_then(|stat| ticks(&stat)).map_or(Duration::ZERO, in_time)
}

/// The same, of the living threads whose names begin with `prefix` (15 bytes of a name are kept).
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

/// Fields 14 and 15 of proc(5) `stat`; the name before them may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(user + system)
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
