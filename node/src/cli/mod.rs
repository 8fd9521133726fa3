//! The command line: one binary, and one file for each verb that needs one.

mod billing;
mod cluster;
mod load;
mod result;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::cluster::cluster_node::ClusterNode;
use crate::config::Config;
use crate::tools::up;

/// Ad clicks, counted twice: exactly once for dashboards and budgets, and again from the raw log for invoices.
#[derive(Debug, Parser)]
#[command(name = "clicktally", version, propagate_version = true)]
struct Cli {
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // Made once, from the command line.
enum Verb {
    /// A whole local system with the embedded defaults, until Ctrl-C.
    Up(up::UpOptions),
    /// One cluster member.
    Node {
        /// Configuration file (TOML). The environment can set every key, as CLICKTALLY_SECTION__KEY.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Generates clicks, or plays a real log, with an exact tally of what must be counted.
    Load(crate::tools::load::LoadOptions),
    /// Measures clicks per second and CPU per million clicks, against the raw reading ceiling of the same run.
    Bench(crate::tools::bench::BenchOptions),
    /// The state of the cluster, and its members.
    Cluster(cluster::ClusterCommand),
    /// The nightly batch and its results.
    Billing(billing::BillingCommand),
    /// Checks or shows a configuration.
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigAction {
    /// Checks a file, and reports what is wrong with it.
    Check { file: PathBuf },
    /// Prints the settings in force: defaults, file, environment; secrets are masked.
    Show { file: Option<PathBuf> },
}

/// Runs the program: this is the binary's whole `main`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_tracing();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let done = runtime.block_on(async {
        match cli.verb {
            Verb::Up(options) => up::run(options, say).await?,
            Verb::Node { config } => run_node(&Config::load(config.as_deref())?).await?,
            Verb::Load(options) => return load::run(options, cli.output).await,
            Verb::Bench(options) => {
                let form = match cli.output {
                    Output::Table => crate::tools::bench::OutputForm::Table,
                    Output::Json => crate::tools::bench::OutputForm::Json,
                };
                crate::tools::bench::run(options, form).await?;
            }
            Verb::Cluster(command) => cluster::run(command, cli.output).await?,
            Verb::Billing(command) => return billing::run(command, cli.output).await,
            Verb::Config { action: ConfigAction::Check { file } } => {
                Config::load(Some(&file))?;
                say(&format!("{} is valid", file.display()));
            }
            Verb::Config { action: ConfigAction::Show { file } } => {
                say(&toml::to_string(&Config::load(file.as_deref())?.masked())?);
            }
        }
        Ok(ExitCode::SUCCESS)
    });
    // A blocked thread (a dead broker, a dead disk) must not delay the exit.
    runtime.shutdown_background();
    done
}

async fn run_node(config: &Config) -> anyhow::Result<()> {
    let node = ClusterNode::start(config.clone()).await?;
    tracing::info!(node = config.node.id, http = config.node.http_listen, "{}", up::READY_LINE);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!(node = config.node.id, "stopping");
    node.stop().await;
    Ok(())
}

fn start_tracing() {
    let filter = EnvFilter::try_from_env("CLICKTALLY_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

#[allow(clippy::print_stdout)] // The command line talks to a person.
pub(crate) fn say(text: &str) {
    println!("{text}");
}

#[allow(clippy::print_stderr)] // The command line talks to a person.
fn complain(error: &anyhow::Error) {
    eprintln!("clicktally: {error:#}");
}
