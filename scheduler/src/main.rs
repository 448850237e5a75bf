//! kube-scheduler's process: flags, logs, build, run.

use std::process::ExitCode;

use clap::Parser;
use scheduler::daemon::{self, Exit};
use scheduler::flags::Flags;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    common::logs::init(flags.verbosity, flags.logging_format == "json");
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::error!("a crypto provider is installed already");
        return ExitCode::FAILURE;
    }
    let stop = match common::shutdown::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            tracing::error!(%error, "cannot handle signals");
            return ExitCode::FAILURE;
        }
    };
    match daemon::build(&flags, stop).await {
        Ok(daemon) => match daemon.run().await {
            Exit::Stopped => ExitCode::SUCCESS,
            Exit::LostLease | Exit::Failed => ExitCode::FAILURE,
        },
        Err(error) => {
            let source = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
            eprintln!("kube-scheduler: {error}{source}");
            ExitCode::FAILURE
        }
    }
}
