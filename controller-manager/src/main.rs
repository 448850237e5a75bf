//! See README.md.

use std::process::ExitCode;

use controller_manager::config::Config;
use controller_manager::daemon::{self, DaemonError};
use controller_manager::flags::Flags;

fn main() -> ExitCode {
    let parsed = common::flags::parse::<Flags>();
    let log = parsed.flags.log.clone();
    common::process::run(&log, |stop| async move {
        let config = Config::from_flags(&parsed.flags)?;
        Ok::<_, DaemonError>(daemon::build(config, parsed.values, stop).await?.run().await)
    })
}
