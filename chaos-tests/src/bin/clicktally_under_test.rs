//! The `clicktally` binary, built along with the tests so that they always run the code they were compiled with.

fn main() -> std::process::ExitCode {
    clicktally_node::cli::main()
}
