//! What happened, line by line. The last hundred lines are for people, and a hash of all lines compares two runs.
//!
//! A line must not depend on addresses, on the order of a hash map, or on the machine's clock.

use std::collections::VecDeque;
use std::fmt;

use super::random::{FNV_OFFSET, fnv1a};

/// Lines kept for a report.
pub const TAIL_LINES: usize = 100;

#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    tail: VecDeque<String>,
    /// Prints every line to the standard error stream as well: `CLICKTALLY_SIM_TRACE` is set.
    is_loud: bool,
}

impl Default for Trace {
    fn default() -> Trace {
        let is_loud = std::env::var_os("CLICKTALLY_SIM_TRACE").is_some();
        Trace { hash: FNV_OFFSET, lines: 0, tail: VecDeque::with_capacity(TAIL_LINES), is_loud }
    }
}

impl Trace {
    /// `at_ms`: simulated time since the start of the run.
    pub fn line(&mut self, at_ms: u64, what: fmt::Arguments<'_>) {
        // Reuses the memory of the oldest line.
        let mut line = if self.tail.len() == TAIL_LINES { self.tail.pop_front() } else { None }.unwrap_or_default();
        line.clear();
        let (seconds, millis) = (at_ms / 1_000, at_ms % 1_000);
        fmt::write(&mut line, format_args!("{seconds:>4}.{millis:03} {what}")).expect("a string takes everything");
        if self.is_loud {
            say(&line);
        }
        self.hash = fnv1a(fnv1a(self.hash, line.as_bytes()), b"\n");
        self.lines += 1;
        self.tail.push_back(line);
    }

    /// Two runs with different lines have equal hashes with a chance of one in 2⁶⁴.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn lines(&self) -> u64 {
        self.lines
    }

    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}

#[allow(clippy::print_stderr)] // `CLICKTALLY_SIM_TRACE` asks for it.
fn say(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_covers_every_line_and_the_tail_the_last_hundred() {
        let run = |odd: u64| {
            let mut trace = Trace::default();
            (0..250).for_each(|n| trace.line(n, format_args!("line {}", if n == 3 { odd } else { n })));
            trace
        };
        assert_eq!(run(3).hash(), run(3).hash());
        assert_ne!(run(3).hash(), run(4).hash());
        assert_eq!(run(3).tail(), run(4).tail());
        assert_eq!((run(3).tail().len(), run(3).tail()[0].as_str()), (TAIL_LINES, "   0.150 line 150"));
    }
}
