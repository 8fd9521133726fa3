//! `make demo`.

use std::process::ExitCode;

use clap::Parser;
use clicktally_chaos_tests::demo::{self, DemoOptions};

#[allow(clippy::print_stderr)] // This is the program's face; it talks to a person.
fn main() -> ExitCode {
    let options = DemoOptions::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("demo: cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(demo::run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("demo: the numbers do not agree");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
