//! Logging: `tracing-subscriber` to standard error, with upstream's `-v` levels.

use tracing_subscriber::EnvFilter;

/// Installs the process's subscriber. `verbosity` is upstream's `-v`: 0-1 info, 2-4 debug, 5 and up trace
/// of this product's own crates; libraries stay at `warn`. `PINTLE_LOG` overrides with a `tracing` filter.
///
/// Called once, first thing in `main`; a second call (tests) is ignored.
pub fn init(verbosity: u8, json: bool) {
    let own = match verbosity {
        0..=2 => "info",
        3..=5 => "debug",
        _ => "trace",
    };
    let crates = ["common", "apiserver", "scheduler", "controller_manager", "kubelet", "kube_proxy"];
    let bins = ["kube_apiserver", "kube_scheduler", "kube_controller_manager"];
    let default = crates
        .iter()
        .chain(&bins)
        .fold(String::from("warn"), |filter, name| format!("{filter},{name}={own}"));
    let filter = EnvFilter::try_from_env("PINTLE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let result = if json { builder.json().try_init() } else { builder.try_init() };
    drop(result);
}

/// An error with all its sources on one line, for the one place that handles and logs it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
