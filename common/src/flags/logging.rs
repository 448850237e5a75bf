//! How much is logged, and how.

use clap::Args;

/// `-v` and `--logging-format`.
#[derive(Debug, Clone, Args)]
pub struct LogFlags {
    /// Number for the log level verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
    /// Sets the log format: "text" or "json".
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub logging_format: String,
}

impl LogFlags {
    /// Installs the process's log.
    pub fn init(&self) {
        crate::logs::init(self.verbosity, self.logging_format == "json");
    }
}
