//! `make sim` and `make sim-mutants`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use clicktally_chaos_tests::simulation::campaign::{Campaign, CampaignReport, explain};
use clicktally_chaos_tests::simulation::edition::{Edition, Story};
use clicktally_chaos_tests::simulation::mutants::{Hunt, seeds_max, table, with_table};
use clicktally_chaos_tests::simulation::nodes::{ONE_SEED, run_story};
use clicktally_chaos_tests::simulation::random::Seed;
use clicktally_chaos_tests::simulation::tier::Tier;
use clicktally_proto::fault::Mutant;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// The cluster in a deterministic simulation: thousands of schedules, each named by a number.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs seeds until one breaks an invariant.
    Run(Run),
    /// The same for programs: prints the report as JSON.
    #[command(hide = true)]
    Hunt(Run),
    /// Runs one seed of tier 1 in this process, and prints its report as JSON.
    #[command(hide = true, name = ONE_SEED)]
    One {
        seed: u64,
        #[arg(long, default_value_t, value_parser = parse_edition)]
        edition: Edition,
    },
    /// Plants each known mistake in a process of its own, and fails if one is not found.
    Mutants {
        /// Only these mutants.
        names: Vec<String>,
        /// The document whose table of mutants is replaced.
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// 0: the pure rules of counting. 1: whole nodes. 2: the rules of what is owed.
    #[arg(long, default_value = "0", value_parser = parse_tier)]
    tier: Tier,
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The edition of the stories: a seed that failed once is replayed in the edition it failed in.
    #[arg(long, default_value_t, value_parser = parse_edition)]
    edition: Edition,
    /// Begins no seed after this many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// How many seeds run side by side.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Prints the logs of the nodes and of openraft, as `RUST_LOG` asks. `CLICKTALLY_SIM_TRACE` asks for the trace.
fn narrate() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
}

fn parse_tier(text: &str) -> Result<Tier, String> {
    text.parse().ok().and_then(Tier::of).ok_or_else(|| format!("there is no tier {text}"))
}

fn parse_edition(text: &str) -> Result<Edition, String> {
    text.parse().ok().and_then(Edition::of).ok_or_else(|| format!("there is no edition {text}"))
}

fn main() -> ExitCode {
    let what = Options::parse().what;
    if !matches!(what, What::One { .. }) {
        // A panic is a finding with a seed, and the report contains it.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let done = match what {
        What::Run(run) => simulate(&run),
        What::Hunt(run) => hunt(&run),
        What::One { seed, edition } => {
            narrate();
            print_json(&run_story(Story { seed: Seed(seed), edition }))
        }
        What::Mutants { names, document } => hunt_all(&names, document),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

impl Run {
    fn campaign(&self) -> anyhow::Result<Campaign> {
        Ok(Campaign {
            tier: self.tier,
            edition: self.edition,
            simulator: std::env::current_exe().context("where this program is")?,
            first_seed: self.seed,
            seeds: self.seeds,
            time_max: self.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
            threads: self.threads,
        })
    }
}

#[allow(clippy::print_stdout)] // It talks to a person.
fn simulate(run: &Run) -> anyhow::Result<()> {
    let report = run.campaign()?.run(&|so_far: &CampaignReport| println!("{}", so_far.summary()));
    println!("{}", report.summary());
    let faults: Vec<String> = report.faults.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
    println!("faults: {}", faults.join(", "));
    match &report.failed {
        Some(failed) => bail!("{}", explain(failed, run.tier)),
        None => Ok(()),
    }
}

fn hunt(run: &Run) -> anyhow::Result<()> {
    print_json(&Campaign { threads: 1, ..run.campaign()? }.run(&|_| {}))
}

#[allow(clippy::print_stdout)] // For a program.
fn print_json(report: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

#[allow(clippy::print_stdout)] // It talks to a person.
fn hunt_all(names: &[String], document: Option<PathBuf>) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("where this program is")?;
    let mut hunts = Vec::new();
    let is_wanted = |mutant: &Mutant| names.is_empty() || names.iter().any(|name| name == mutant.name());
    for mutant in Mutant::ALL.iter().copied().filter(is_wanted) {
        let hunt = Hunt::run(mutant, &program)?;
        println!(
            "{}: {}",
            mutant.name(),
            match &hunt.killed {
                Some((check, seed)) => format!("killed by {check} in seed {seed}"),
                None => format!("SURVIVED {} seeds", seeds_max(mutant)),
            }
        );
        hunts.push(hunt);
    }
    if let Some(path) = document {
        let before = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        std::fs::write(&path, with_table(&before, &table(&hunts))?)?;
    }
    let survivors: Vec<&str> =
        hunts.iter().filter(|hunt| hunt.killed.is_none()).map(|hunt| hunt.mutant.name()).collect();
    println!("{} of {} mutants killed", hunts.len() - survivors.len(), hunts.len());
    if !survivors.is_empty() {
        bail!("a check or a schedule is missing: {} survived", survivors.join(", "));
    }
    Ok(())
}

#[allow(clippy::print_stderr)] // It talks to a person.
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("sim: {error:#}");
    ExitCode::FAILURE
}
