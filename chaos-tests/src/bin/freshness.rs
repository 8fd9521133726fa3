//! `make bench-freshness`.

use std::process::ExitCode;

use clap::Parser;
use clicktally_chaos_tests::freshness::{self, FreshnessOptions, Measured};

#[allow(clippy::print_stdout, clippy::print_stderr)] // This is the program's face; it talks to a person.
#[tokio::main]
async fn main() -> ExitCode {
    let options = FreshnessOptions::parse();
    match freshness::run(&options).await {
        Ok(rows) if options.json => {
            for row in &rows {
                match serde_json::to_string(row) {
                    Ok(line) => println!("{line}"),
                    Err(error) => eprintln!("freshness: {error}"),
                }
            }
            ExitCode::SUCCESS
        }
        Ok(rows) => {
            println!("{}", Measured::table(&rows));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("freshness: {error:#}");
            ExitCode::FAILURE
        }
    }
}
