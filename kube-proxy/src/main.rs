//! kube-proxy's process: flags, logs, build, run.

use std::process::ExitCode;

use clap::Parser;
use kube_proxy::daemon::{self, Exit, StartError};
use kube_proxy::flags::Flags;

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
    if flags.cleanup {
        return match daemon::cleanup(&flags, stop).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => fail(&error),
        };
    }
    match daemon::build(&flags, stop).await {
        Ok(daemon) => match daemon.run().await {
            Exit::Stopped => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::FAILURE,
        },
        Err(error) => fail(&error),
    }
}

fn fail(error: &StartError) -> ExitCode {
    let source = std::error::Error::source(error).map(|s| format!(": {s}")).unwrap_or_default();
    eprintln!("kube-proxy: {error}{source}");
    ExitCode::FAILURE
}
