//! See README.md.

use std::process::ExitCode;

use controller_manager::config::Config;
use controller_manager::daemon::{self, DaemonError};
use controller_manager::flags::Flags;

fn main() -> ExitCode {
    let parsed = common::flags::parse::<Flags>();
    common::process::run(&parsed.flags.log, |stop| async {
        let config = Config::from_flags(&parsed.flags)?;
        Ok::<_, DaemonError>(daemon::build(config, stop).await?.run().await)
    })
}
