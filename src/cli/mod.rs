//! Arguments as typed, and what they mean.

mod run;

use clap::{Parser, Subcommand};
pub use run::RunArguments;
use std::process::ExitCode;

/// Runs N copies of any server on one systemd socket and relieves them one at a time.
#[derive(Debug, Parser)]
#[command(name = "dogwatch", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run an app: hold its sockets and keep its workers, in the foreground
    Run(Box<RunArguments>),
    /// Run 4 built-in HTTP workers on 127.0.0.1:8080, to try things on
    Demo(DemoArguments),
    /// Serve HTTP on the passed sockets; what `demo` runs
    #[command(hide = true)]
    DemoWorker(crate::demo::WorkerArguments),
}

#[derive(Debug, clap::Args)]
struct DemoArguments {
    /// Where to listen
    #[arg(short, long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: crate::config::values::Address,
    /// How many workers
    #[arg(short = 'n', long, default_value = "4", value_name = "N")]
    workers: crate::config::values::Workers,
}

/// Does what the command line says and returns the exit code: 0 done, 1 failed, 2 usage or invalid configuration.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match arguments.verb {
        Verb::Run(arguments) => run::run(*arguments),
        Verb::Demo(arguments) => run::demo(arguments.listen, arguments.workers),
        Verb::DemoWorker(arguments) => crate::demo::serve(&arguments),
    }
}
