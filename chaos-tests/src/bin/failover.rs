//! `make bench-failover`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use clicktally_chaos_tests::failover::{self, FailoverOptions};

fn main() -> ExitCode {
    match measure(&FailoverOptions::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

#[allow(clippy::print_stdout)] // The table is what the program is for.
fn measure(options: &FailoverOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting a runtime")?;
    let report = runtime.block_on(failover::run(options))?;
    println!("{}", report.table());
    if let Some(path) = &options.report {
        report.write(path)?;
    }
    Ok(())
}

#[allow(clippy::print_stderr)] // It talks to a person.
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("failover: {error:#}");
    ExitCode::FAILURE
}
