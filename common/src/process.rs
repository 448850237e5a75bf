//! What every daemon's `main` does: log, one crypto provider, a runtime, signals, an exit code.

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;

use crate::flags::LogFlags;
use crate::shutdown::{self, CancellationToken};

/// How a daemon ended that could start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was told to, and all of it left.
    Stopped,
    /// Why has been logged: a part failed, or another took the lease.
    Failed,
}

/// Runs a daemon until it ends. `daemon` gets the token that the first SIGTERM or SIGINT cancels; its error is why
/// it could not start, and is logged here with all its sources.
pub fn run<F, E>(log: &LogFlags, daemon: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = Result<Exit, E>>,
    E: Error + 'static,
{
    log.init();
    // Refused when a library has installed one already, which is then the same: there is one in the tree.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let stop = match shutdown::on_signals() {
            Ok(stop) => stop,
            Err(error) => {
                tracing::error!(%error, "cannot handle signals");
                return ExitCode::FAILURE;
            }
        };
        match daemon(stop).await {
            Ok(Exit::Stopped) => ExitCode::SUCCESS,
            Ok(Exit::Failed) => ExitCode::FAILURE,
            Err(error) => {
                tracing::error!(error = %crate::logs::chain(&error), "cannot start");
                ExitCode::FAILURE
            }
        }
    })
}

/// The machine's name as the kernel has it; `localhost` when it has none.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}
