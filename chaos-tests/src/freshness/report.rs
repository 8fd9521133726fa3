//! The measured values, as a row of a table or a line of JSON.

use std::time::Duration;

use comfy_table::Table;
use serde::Serialize;

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Measured {
    pub checkpoint_ms: u64,
    pub probes: usize,
    /// The rate that the load reached.
    pub clicks_per_s: f64,
    /// The CPU time of the three nodes together, with everything they do (archive, PostgreSQL writer, elections).
    pub cpu_s_per_million: f64,
    /// From the acknowledgement of a click to its being in `aggregated_count`.
    pub in_count: Percentiles,
    /// The same until it is in the answer of the budget check.
    pub in_spend: Percentiles,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    pub p50_ms: u64,
    pub p99_ms: u64,
    pub max_ms: u64,
}

/// By nearest rank. Needs at least one time.
pub(super) fn percentiles(mut times: Vec<Duration>) -> Percentiles {
    assert!(!times.is_empty());
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1);
        u64::try_from(times[rank - 1].as_millis()).unwrap_or(u64::MAX)
    };
    Percentiles { p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
}

impl Measured {
    pub fn table(rows: &[Measured]) -> Table {
        let mut table = Table::new();
        table.set_header([
            "checkpoint, ms",
            "probes",
            "clicks/s",
            "CPU-s/M, 3 nodes",
            "counted p50, ms",
            "p99",
            "max",
            "spent p50, ms",
            "p99",
            "max",
        ]);
        for row in rows {
            let Percentiles { p50_ms, p99_ms, max_ms } = row.in_count;
            let spend = row.in_spend;
            table.add_row([
                row.checkpoint_ms.to_string(),
                row.probes.to_string(),
                format!("{:.0}", row.clicks_per_s),
                format!("{:.1}", row.cpu_s_per_million),
                p50_ms.to_string(),
                p99_ms.to_string(),
                max_ms.to_string(),
                spend.p50_ms.to_string(),
                spend.p99_ms.to_string(),
                spend.max_ms.to_string(),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentiles(times), Percentiles { p50_ms: 100, p99_ms: 198, max_ms: 200 });
        let one = percentiles(vec![Duration::from_millis(7)]);
        assert_eq!((one.p50_ms, one.p99_ms), (7, 7));
    }
}
