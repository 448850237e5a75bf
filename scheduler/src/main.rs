//! See README.md.

use std::process::ExitCode;

use scheduler::daemon;
use scheduler::flags::Flags;

fn main() -> ExitCode {
    let parsed = common::flags::parse::<Flags>();
    common::process::run(&parsed.flags.log, |stop| async {
        let daemon = daemon::build(&parsed, stop).await?;
        Ok::<_, daemon::StartError>(daemon.run().await)
    })
}
