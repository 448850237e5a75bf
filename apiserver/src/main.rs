//! kube-apiserver.

use std::process::ExitCode;

use apiserver::config::Config;
use apiserver::daemon;
use apiserver::flags::Flags;
use apiserver::store_command::StoreCommand;
use clap::Parser;

/// Requests are trees of small strings that are made on one thread and dropped on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|arg| arg == "store") {
        return store_command();
    }
    let flags = match Flags::parse_args(std::env::args()) {
        Ok(flags) => flags,
        Err(error) => error.exit(),
    };
    if flags.version {
        println!("{}", common::version::version_line());
        return ExitCode::SUCCESS;
    }
    common::logs::init(flags.v, flags.logging_format == "json");
    // Huge pages would keep twice the memory that is in use. A kernel that cannot turn them off has none.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let Some(runtime) = runtime() else { return ExitCode::FAILURE };
    match runtime.block_on(serve(flags)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `kube-apiserver store ...`: no server, a tool.
fn store_command() -> ExitCode {
    let args = std::iter::once("kube-apiserver store".to_owned()).chain(std::env::args().skip(2));
    let command = match StoreCommand::try_parse_from(args) {
        Ok(command) => command,
        Err(error) => error.exit(),
    };
    common::logs::init(0, false);
    let Some(runtime) = runtime() else { return ExitCode::FAILURE };
    match runtime.block_on(command.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {}", common::logs::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The runtime and the one crypto provider; tells why there is none.
fn runtime() -> Option<tokio::runtime::Runtime> {
    // Fails only when a provider is installed already, which is then the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.inspect_err(|error| eprintln!("cannot start the runtime: {error}")).ok()
}

async fn serve(flags: Flags) -> Result<bool, Box<dyn std::error::Error>> {
    let config = Config::new(flags)?;
    let shutdown = common::shutdown::on_signals()?;
    let daemon = daemon::build(config).await?;
    Ok(daemon.run(shutdown).await)
}
