//! kube-apiserver.

use std::process::ExitCode;

use apiserver::config::Config;
use apiserver::daemon;
use apiserver::flags::Flags;

fn main() -> ExitCode {
    let flags = match Flags::parse_args(std::env::args()) {
        Ok(flags) => flags,
        Err(error) => error.exit(),
    };
    if flags.version {
        println!("{}", common::version::version_line());
        return ExitCode::SUCCESS;
    }
    common::logs::init(flags.v, flags.logging_format == "json");
    // Fails only when a provider is installed already, which is then the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(flags)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(flags: Flags) -> Result<bool, Box<dyn std::error::Error>> {
    let config = Config::new(flags)?;
    let shutdown = common::shutdown::on_signals()?;
    let daemon = daemon::build(config).await?;
    Ok(daemon.run(shutdown).await)
}
