//! See README.md.

use std::process::ExitCode;

use common::flags::Parsed;
use kubelet::config::ConfigError;
use kubelet::daemon::{self, Settings, StartError};
use kubelet::flags::Flags;

fn main() -> ExitCode {
    let parsed = common::flags::parse::<Flags>();
    common::process::run(&parsed.flags.log, |stop| async {
        let settings = settings(&parsed).map_err(StartError::from)?;
        daemon::run(settings, stop).await
    })
}

fn settings(parsed: &Parsed<Flags>) -> Result<Settings, ConfigError> {
    let flags = &parsed.flags;
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
        flag_values: parsed.values.clone(),
    })
}
