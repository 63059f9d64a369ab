//! Arguments to the command line's face, its result to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    filterdb::cli::main()
}
