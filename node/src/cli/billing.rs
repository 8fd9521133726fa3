//! `clicktally billing`: the nightly batch and its results, for a day or for all days of the archive.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use clicktally_billing::archive::{self, ArchiveStore};
use clicktally_billing::batch::{self, BatchOptions};
use clicktally_billing::metrics::BillingMetrics;
use clicktally_billing::postgres::connect_and_migrate;
use clicktally_billing::{BillingError, Day, invoice, reconcile, statement};
use clicktally_proto::click_log::RAW_CLICKS;
use clicktally_proto::clock::SystemClock;
use clicktally_proto::shard_key::Partitioner;
use comfy_table::Table;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;

use super::{Output, say};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct BillingCommand {
    /// A node's configuration file: where the log, PostgreSQL and the archive are.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    action: BillingAction,
}

#[derive(Debug, Subcommand)]
enum BillingAction {
    /// Computes draft invoices from the archive; repeating it replaces them. On a finalised day it writes memos.
    Run {
        #[command(flatten)]
        days: Days,
        /// How long to wait for the archive to reach the log's present end.
        #[arg(long, default_value_t = 300)]
        wait_seconds: u64,
    },
    /// Runs, documents and lines of a day.
    Show {
        #[command(flatten)]
        days: Days,
    },
    /// Makes a day's documents final: they never change again.
    Finalize {
        #[command(flatten)]
        days: Days,
    },
    /// Compares stream and batch, and names the cause of every difference. Exits with 2 when too much is unexplained.
    Reconcile {
        #[command(flatten)]
        days: Days,
    },
}

#[derive(Debug, Args)]
struct Days {
    /// YYYY-MM-DD in UTC, or 'all' for every day the archive holds clicks of.
    #[arg(long)]
    day: String,
}

impl Days {
    async fn resolve(&self, pool: &PgPool) -> Result<Vec<Day>, BillingError> {
        if self.day == "all" { archive::archived_days(pool).await } else { Ok(vec![self.day.parse()?]) }
    }
}

/// Exit code of a reconciliation that pages.
const UNEXPLAINED: u8 = 2;

pub(super) async fn run(command: BillingCommand, output: Output) -> anyhow::Result<ExitCode> {
    let config = Config::load(command.config.as_deref())?;
    let pool = connect_and_migrate(&config.postgres.url).await?;
    let store = ArchiveStore::open(&config.archive_location())?;
    let options = BatchOptions::default();
    let clock = SystemClock;
    let mut code = ExitCode::SUCCESS;
    match command.action {
        BillingAction::Run { days, wait_seconds } => {
            let partitioner = Partitioner::new(config.cluster.groups);
            let ends = archive::log_end_offsets(&config.log.brokers, RAW_CLICKS, partitioner).await?;
            archive::wait_until_archived(&pool, &ends, Duration::from_secs(wait_seconds)).await?;
            for day in days.resolve(&pool).await? {
                show(&batch::run(&pool, &store, day, &options, &clock).await?, output)?;
            }
        }
        BillingAction::Show { days } => {
            for day in days.resolve(&pool).await? {
                show(&statement::statement(&pool, day).await?, output)?;
            }
        }
        BillingAction::Finalize { days } => {
            for day in days.resolve(&pool).await? {
                show(&invoice::finalize(&pool, day, &clock).await?, output)?;
            }
        }
        BillingAction::Reconcile { days } => {
            let metrics = BillingMetrics::register(prometheus::default_registry())?;
            for day in days.resolve(&pool).await? {
                let summary = reconcile::reconcile(&pool, &store, day, &options, &metrics).await?;
                show(&summary, output)?;
                if summary.pages() {
                    code = ExitCode::from(UNEXPLAINED);
                }
            }
        }
    }
    Ok(code)
}

/// One JSON line, or a table of its fields; a list becomes a table of its own.
fn show(result: &impl Serialize, output: Output) -> anyhow::Result<()> {
    let value = serde_json::to_value(result)?;
    if output == Output::Json {
        say(&value.to_string());
        return Ok(());
    }
    let mut fields = Table::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        match value.as_array().filter(|rows| rows.iter().any(Value::is_object)) {
            Some(rows) => say(&format!("{name}\n{}", table_of(rows))),
            None => {
                fields.add_row([name.clone(), plain(value)]);
            }
        }
    }
    say(&fields.to_string());
    Ok(())
}

fn table_of(rows: &[Value]) -> Table {
    let mut table = Table::new();
    if let Some(first) = rows.first().and_then(Value::as_object) {
        table.set_header(first.keys());
    }
    for row in rows.iter().filter_map(Value::as_object) {
        table.add_row(row.values().map(plain));
    }
    table
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
