//! The kubelet's entry: flags, logging, configuration, run.

use std::process::ExitCode;

use clap::Parser as _;
use kubelet::config::ConfigError;
use kubelet::daemon::{self, Settings};
use kubelet::flags::Flags;

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.version {
        println!("{}", common::version::version_line());
        return ExitCode::SUCCESS;
    }
    common::logs::init(flags.v, flags.logging_format == "json");
    let settings = match settings(&flags) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!(%error, "command failed");
            return ExitCode::FAILURE;
        }
    };
    // Another library may have installed it already; either way it is ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads to run on");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let stop = common::shutdown::on_signals().map_err(|e| e.to_string())?;
        daemon::run(settings, stop).await.map_err(|e| e.to_string())
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!(error, "kubelet cannot run");
            ExitCode::FAILURE
        }
    }
}

fn settings(flags: &Flags) -> Result<Settings, ConfigError> {
    let config = flags.configuration()?;
    let name = match &flags.hostname_override {
        Some(name) => name.clone(),
        None => nix::unistd::gethostname()
            .map(|n| n.to_string_lossy().into_owned())
            .map_err(|e| ConfigError::Invalid(format!("the machine has no host name: {e}")))?,
    };
    let node_name = name.trim().to_lowercase();
    if node_name.is_empty() {
        return Err(ConfigError::Invalid("--hostname-override: must not be empty".into()));
    }
    Ok(Settings {
        config,
        kubeconfig: flags.kubeconfig.clone(),
        bootstrap_kubeconfig: flags.bootstrap_kubeconfig.clone(),
        node_name,
        node_ips: flags.node_ip.clone(),
        root_dir: flags.root_dir.clone(),
        cert_dir: flags.cert_dir.clone(),
        labels: flags.labels()?,
    })
}
