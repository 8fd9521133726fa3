//! `clicktally billing`: the nightly batch and its results, for a day or for all days of the archive.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use clicktally_billing::archive::{self, ArchiveStore};
use clicktally_billing::batch::{self, BatchOptions};
use clicktally_billing::invoice::{FinalizedDay, Override};
use clicktally_billing::{BillingError, Day, invoice, reconcile};
use clicktally_database::Database;
use clicktally_database::billing::{archived_days, statement};
use clicktally_proto::click_log::RAW_CLICKS;
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::identity::shard_key::Partitioner;

use super::Output;
use super::result::show;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct BillingCommand {
    /// A node's configuration file, which names the log, PostgreSQL and the archive.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    action: BillingAction,
}

#[derive(Debug, Subcommand)]
enum BillingAction {
    /// Computes draft invoices from the archive; a repeat replaces them. On a finalised day it writes memos.
    Run {
        #[command(flatten)]
        days: Days,
        /// How long to wait for the archive to reach the log's present end, and for the terms of all campaigns.
        #[arg(long, default_value_t = 300)]
        wait_seconds: u64,
    },
    /// Runs, documents and lines of a day.
    Show {
        #[command(flatten)]
        days: Days,
    },
    /// Finalises a day's documents and posts them to the ledger: they never change again. The day and its allowed
    /// lateness must be over, and its newest run reconciled. With 'all', days that are not ready are named and skipped.
    Finalize {
        #[command(flatten)]
        days: Days,
        #[command(flatten)]
        overriding: OverrideArguments,
    },
    /// Compares stream and batch, and names the cause of every difference. Exits with 2 if too much is unexplained.
    Reconcile {
        #[command(flatten)]
        days: Days,
    },
}

#[derive(Debug, Args)]
struct Days {
    /// YYYY-MM-DD in UTC, or 'all' for every day with clicks in the archive.
    #[arg(long)]
    day: String,
}

#[derive(Debug, Args)]
struct OverrideArguments {
    /// Finalises one day although it is not ready. Who did so, and why, is recorded.
    #[arg(long = "override", requires = "by", requires = "reason")]
    is_given: bool,
    /// Who overrides the checks.
    #[arg(long, value_name = "WHO", requires = "is_given", value_parser = NonEmptyStringValueParser::new())]
    by: Option<String>,
    /// Why the checks are overridden.
    #[arg(long, value_name = "TEXT", requires = "is_given", value_parser = NonEmptyStringValueParser::new())]
    reason: Option<String>,
}

impl OverrideArguments {
    fn into_override(self) -> Option<Override> {
        self.by.zip(self.reason).filter(|_| self.is_given).map(|(by, reason)| Override { by, reason })
    }
}

impl Days {
    fn are_all(&self) -> bool {
        self.day == "all"
    }

    async fn resolve(&self, database: &Database) -> Result<Vec<Day>, BillingError> {
        if self.are_all() { Ok(archived_days(database).await?) } else { Ok(vec![self.day.parse()?]) }
    }
}

/// Exit code of a reconciliation that should page an operator.
const UNEXPLAINED: u8 = 2;

pub(super) async fn run(command: BillingCommand, output: Output) -> anyhow::Result<ExitCode> {
    let config = Config::load(command.config.as_deref())?;
    let database = Database::connect_and_migrate(&config.postgres.url).await?;
    let store = ArchiveStore::open(&config.archive_location())?;
    let mut options = BatchOptions::default();
    let clock = SystemClock;
    let mut code = ExitCode::SUCCESS;
    match command.action {
        BillingAction::Run { days, wait_seconds } => {
            let partitioner = Partitioner::new(config.cluster.groups);
            let ends = archive::log_end_offsets(&config.log.connection(), RAW_CLICKS, partitioner).await?;
            let asked_at_ms = clock.now_ms();
            archive::wait_until_archived(&database, &ends, Duration::from_secs(wait_seconds)).await?;
            let days = days.resolve(&database).await?;
            let deadline = Duration::from_secs(wait_seconds);
            options.max_ahead_ms =
                batch::wait_until_terms_exported(&database, config.cluster.groups, asked_at_ms, deadline)
                    .await?
                    .max_ahead_ms;
            for day in days {
                show(&batch::run(&database, &store, day, &options, &clock).await?, output)?;
            }
        }
        BillingAction::Show { days } => {
            for day in days.resolve(&database).await? {
                show(&statement(&database, day).await?, output)?;
            }
        }
        BillingAction::Finalize { days, overriding } => {
            let overriding = overriding.into_override();
            anyhow::ensure!(
                overriding.is_none() || !days.are_all(),
                "--override is for one day, and 'all' includes days that still run: name the day"
            );
            let lateness_ms =
                config.event_time.allowed_lateness_ms.saturating_add(config.event_time.out_of_orderness_ms);
            for day in days.resolve(&database).await? {
                let finalized = match invoice::finalize(&database, day, lateness_ms, overriding.as_ref(), &clock).await
                {
                    Err(reason @ (BillingError::NotReady { .. } | BillingError::NotRun(_))) if days.are_all() => {
                        FinalizedDay::skipped(day, &reason)
                    }
                    outcome => outcome?,
                };
                show(&finalized, output)?;
            }
        }
        BillingAction::Reconcile { days } => {
            if let Some(terms) = batch::exported_terms(&database, config.cluster.groups).await? {
                options.max_ahead_ms = terms.max_ahead_ms;
            }
            let partitioner = Partitioner::new(config.cluster.groups);
            for day in days.resolve(&database).await? {
                let summary = reconcile::reconcile(&database, &store, day, &options, partitioner).await?;
                show(&summary, output)?;
                if summary.pages() {
                    code = ExitCode::from(UNEXPLAINED);
                }
            }
        }
    }
    Ok(code)
}
