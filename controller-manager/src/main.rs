//! See README.md.

use std::process::ExitCode;

use clap::Parser;
use controller_manager::config::Config;
use controller_manager::daemon;
use controller_manager::flags::Flags;

fn main() -> ExitCode {
    let flags = Flags::parse();
    common::logs::init(flags.verbosity, flags.json_logs());
    // One provider for the whole process; a second installation is refused and harmless.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let config = match Config::from_flags(&flags) {
            Ok(config) => config,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        };
        let stop = match common::shutdown::on_signals() {
            Ok(stop) => stop,
            Err(error) => {
                tracing::error!(%error, "cannot install signal handlers");
                return ExitCode::FAILURE;
            }
        };
        let daemon = match daemon::build(config, stop).await {
            Ok(daemon) => daemon,
            Err(error) => {
                tracing::error!(error = %common::logs::chain(&error), "cannot start");
                return ExitCode::FAILURE;
            }
        };
        if daemon.run().await { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
}
