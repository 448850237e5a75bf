//! A command line, as the daemon's struct and as `/flagz` shows it.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};

/// A daemon's flags, and every flag's value by name.
#[derive(Debug, Clone)]
pub struct Parsed<F> {
    pub flags: F,
    /// Long name to value, as text; the empty text for a flag without one.
    pub values: BTreeMap<String, String>,
}

/// Parses a command line; prints help, the version or what is wrong, and ends the process, when that is asked for
/// or due.
pub fn parse<F: Parser>() -> Parsed<F> {
    from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

fn from<F: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<Parsed<F>, clap::Error> {
    let mut command = <F as CommandFactory>::command();
    let mut matches = command.try_get_matches_from_mut(args)?;
    let values = values(&command, &matches);
    let flags =
        <F as FromArgMatches>::from_arg_matches_mut(&mut matches).map_err(|e| e.format(&mut command))?;
    Ok(Parsed { flags, values })
}

fn values(command: &clap::Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let named = command.get_arguments().filter_map(|arg| Some((arg.get_id(), arg.get_long()?)));
    named
        .filter(|(_, name)| !matches!(*name, "help" | "version"))
        .map(|(id, name)| {
            let raw = matches.try_get_raw(id.as_str()).ok().flatten().into_iter().flatten();
            let texts: Vec<_> = raw.map(|value| value.to_string_lossy()).collect();
            (name.to_owned(), texts.join(","))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser)]
    struct Daemon {
        #[arg(long, default_value_t = 5)]
        workers: u8,
        #[arg(long, value_delimiter = ',')]
        names: Vec<String>,
        #[arg(long)]
        config: Option<String>,
        #[arg(long)]
        quiet: bool,
    }

    #[test]
    fn every_flag_has_its_value() {
        let args = ["x", "--names=a,b", "--names=c"].map(OsString::from);
        let parsed = from::<Daemon>(args).expect("flags");
        let Daemon { workers, names, config, quiet } = parsed.flags;
        assert_eq!((workers, names.len(), config, quiet), (5, 3, None, false));
        let shown: Vec<_> = parsed.values.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(shown, [("config", ""), ("names", "a,b,c"), ("quiet", "false"), ("workers", "5")]);
    }
}
