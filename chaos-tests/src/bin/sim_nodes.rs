//! Seeds of whole simulated nodes, each in a process of its own.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use clicktally_chaos_tests::simulation::nodes::{run_seed, run_seed_apart};
use clicktally_chaos_tests::simulation::report::SeedReport;

/// One seed in so many runs twice, and has to tell the same story.
const TWICE_EVERY: u64 = 100;

#[derive(Debug, Parser)]
#[command(name = "sim_nodes")]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs seeds until one breaks an invariant.
    Run {
        /// How many.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Side by side.
        #[arg(long, default_value_t = 2)]
        processes: usize,
    },
    /// Runs one seed in this process, and prints its report as JSON.
    One { seed: u64 },
}

fn main() -> ExitCode {
    match Options::parse().what {
        What::One { seed } => one(seed),
        What::Run { seeds, seed, processes } => match run(seed, seeds, processes) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error),
        },
    }
}

#[allow(clippy::print_stdout)] // JSON for a program.
fn one(seed: u64) -> ExitCode {
    match serde_json::to_string(&run_seed(seed)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error.into()),
    }
}

#[derive(Debug, Default)]
struct Total {
    seeds: u64,
    simulated_ms: u64,
    clicks: u64,
    faults: BTreeMap<String, u64>,
    failed: Option<SeedReport>,
    error: Option<anyhow::Error>,
}

#[allow(clippy::print_stdout)] // It talks to a person.
fn run(first: u64, seeds: u64, processes: usize) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("where this program is")?;
    let (next, total) = (AtomicU64::new(first), Mutex::new(Total::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_over = total.lock().map_or(true, |total| total.failed.is_some() || total.error.is_some());
            if seed >= first.saturating_add(seeds) || is_over {
                return;
            }
            let ran = run_seed_apart(&program, seed).and_then(|report| {
                if seed.is_multiple_of(TWICE_EVERY) && run_seed_apart(&program, seed)?.trace_hash != report.trace_hash {
                    bail!("seed {seed} tells two stories: something random does not come from it");
                }
                Ok(report)
            });
            let Ok(mut total) = total.lock() else { return };
            match ran {
                Ok(report) => total.take(report),
                Err(error) => {
                    total.error.get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| (0..processes.max(1)).for_each(|_| drop(scope.spawn(work))));
    let total = total.into_inner().unwrap_or_default();
    let hours = total.simulated_ms as f64 / 3_600_000.0;
    println!("{} seeds, {hours:.2} simulated hours, {} clicks, faults: {:?}", total.seeds, total.clicks, total.faults);
    if let Some(error) = total.error {
        return Err(error);
    }
    match total.failed {
        Some(SeedReport { seed, violation: Some(violation), .. }) => {
            violation.trace_tail.iter().for_each(|line| println!("{line}"));
            bail!(
                "seed {seed} breaks {}: {}\nto see it again: sim_nodes one {seed}",
                violation.check,
                violation.message
            )
        }
        _ => Ok(()),
    }
}

impl Total {
    fn take(&mut self, report: SeedReport) {
        self.seeds += 1;
        self.simulated_ms += report.simulated_ms;
        self.clicks += report.clicks;
        for (kind, times) in &report.faults {
            *self.faults.entry(kind.clone()).or_default() += times;
        }
        if report.violation.is_some() {
            self.failed.get_or_insert(report);
        }
    }
}

#[allow(clippy::print_stderr)] // It talks to a person.
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("sim_nodes: {error:#}");
    ExitCode::FAILURE
}
