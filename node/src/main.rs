//! The `clicktally` binary.

fn main() -> std::process::ExitCode {
    clicktally_node::cli::main()
}
