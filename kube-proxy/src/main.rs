//! See README.md.

use std::process::ExitCode;

use kube_proxy::daemon;
use kube_proxy::flags::Flags;

fn main() -> ExitCode {
    let parsed = common::flags::parse::<Flags>();
    common::process::run(&parsed.flags.log, |stop| async {
        if parsed.flags.cleanup {
            return daemon::cleanup(&parsed.flags, stop).await;
        }
        Ok(daemon::build(&parsed, stop).await?.run().await)
    })
}
