//! `kube-apiserver store`: what an operator does to a store while no server uses it.
//!
//! Upstream keeps such things in etcd's tools; the embedded store has none but these. `copy` carries
//! everything from one place to another, and so is backup, restore, the way into an etcd and back; `status`
//! reads all there is and says what it was. Both refuse what they cannot do whole.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};

use crate::storage::etcd::EtcdConfig;
use crate::storage::transfer::{self, Place, Progress, TransferError};

/// How often progress is shown.
const SHOWN_EVERY: Duration = Duration::from_secs(1);
/// What a restored backup leaves free for revisions that were handed out after it was taken, as etcd's
/// documentation proposes for its own restore.
const RESTORE_BUMP: u64 = 1_000_000_000;

/// The command line behind `kube-apiserver store`.
#[derive(Debug, Parser)]
#[command(
    name = "kube-apiserver store",
    about = "Copies, backs up, restores and checks a store that no server is using.",
    after_help = "A LOCATION is embedded:PATH, backup:PATH, or etcd (with the --etcd-* flags).\n\n\
        A running server's embedded store is backed up with: kubectl get --raw /store/backup > FILE",
    max_term_width = 110
)]
pub struct StoreCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Copies everything to a place that is empty. All resourceVersions there are later than every one the
    /// source has handed out.
    Copy {
        /// Where everything is.
        #[arg(long, value_name = "LOCATION")]
        from: String,
        /// Where everything shall be.
        #[arg(long, value_name = "LOCATION")]
        to: String,
        /// Revisions to leave out. A backup's store may have gone on after it was taken: from a backup into an
        /// embedded store 1000000000 unless given; into etcd it must be given, because etcd's revision can only be
        /// raised write by write.
        #[arg(long, value_name = "N")]
        bump_revision: Option<u64>,
        #[command(flatten)]
        etcd: Etcd,
    },
    /// Reads everything at a place and says what it is.
    Status {
        /// What to look at.
        #[arg(value_name = "LOCATION")]
        of: String,
        #[command(flatten)]
        etcd: Etcd,
    },
}

/// As the server has them.
#[derive(Debug, Clone, Args)]
struct Etcd {
    /// List of etcd servers (scheme://ip:port), comma separated.
    #[arg(long, value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// SSL Certificate Authority file used to secure etcd communication.
    #[arg(long)]
    etcd_cafile: Option<PathBuf>,
    /// SSL certification file used to secure etcd communication.
    #[arg(long)]
    etcd_certfile: Option<PathBuf>,
    /// SSL key file used to secure etcd communication.
    #[arg(long)]
    etcd_keyfile: Option<PathBuf>,
    /// The prefix of all keys in etcd.
    #[arg(long, default_value = "/registry")]
    etcd_prefix: String,
}

/// Why nothing was done, or not all.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{0:?} is no location: embedded:PATH, backup:PATH or etcd")]
    Location(String),
    #[error("--etcd-servers is required for a location in etcd")]
    NoServers,
    #[error("--from and --to are both in etcd; etcd's own tools copy that")]
    EtcdTwice,
    #[error(
        "--bump-revision is required from a backup into etcd: at least as many as there may have been writes since the backup was taken"
    )]
    NoBump,
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

impl StoreCommand {
    /// Runs it; progress goes to standard error, the outcome to standard output.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn run(self) -> Result<(), CommandError> {
        let mut shown = Shown::default();
        match self.action {
            Action::Copy { from, to, bump_revision, etcd } => {
                let (from, to) = (place(&from, &etcd)?, place(&to, &etcd)?);
                let bump = bump(&from, &to, bump_revision)?;
                let copied = transfer::copy(&from, &to, bump, &mut |progress| shown.tell(progress)).await?;
                println!(
                    "copied {} keys at revision {}; the newest revision there is {}",
                    copied.keys, copied.from, copied.to
                );
            }
            Action::Status { of, etcd } => {
                let of = place(&of, &etcd)?;
                let (revision, keys, bytes) =
                    transfer::survey(&of, &mut |progress| shown.tell(progress)).await?;
                println!("revision {revision}, {keys} keys, {bytes} bytes of values, all readable");
            }
        }
        Ok(())
    }
}

fn place(text: &str, etcd: &Etcd) -> Result<Place, CommandError> {
    match text.split_once(':') {
        Some(("embedded", path)) if !path.is_empty() => Ok(Place::Embedded(path.into())),
        Some(("backup", path)) if !path.is_empty() => Ok(Place::Backup(path.into())),
        None if text == "etcd" && etcd.etcd_servers.is_empty() => Err(CommandError::NoServers),
        None if text == "etcd" => Ok(Place::Etcd(Box::new(EtcdConfig {
            servers: etcd.etcd_servers.clone(),
            ca_file: etcd.etcd_cafile.clone(),
            cert_file: etcd.etcd_certfile.clone(),
            key_file: etcd.etcd_keyfile.clone(),
            prefix: format!("{}/", etcd.etcd_prefix.trim_end_matches('/')),
            compaction_interval: Duration::ZERO,
        }))),
        _ => Err(CommandError::Location(text.to_owned())),
    }
}

fn bump(from: &Place, to: &Place, given: Option<u64>) -> Result<u64, CommandError> {
    match (from, to, given) {
        (Place::Etcd(_), Place::Etcd(_), _) => Err(CommandError::EtcdTwice),
        (_, _, Some(bump)) => Ok(bump),
        (Place::Backup(_), Place::Etcd(_), None) => Err(CommandError::NoBump),
        (Place::Backup(_), Place::Embedded(_), None) => Ok(RESTORE_BUMP),
        _ => Ok(0),
    }
}

/// Shows progress now and then.
#[derive(Default)]
struct Shown {
    last: Option<Instant>,
}

impl Shown {
    fn tell(&mut self, progress: Progress) {
        if self.last.is_some_and(|last| last.elapsed() < SHOWN_EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        match progress {
            Progress::RaisingRevision { at, to } => eprintln!("raising etcd's revision: {at} of {to}"),
            Progress::Copied { keys, of } => eprintln!("{keys} of {of} keys"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<StoreCommand, clap::Error> {
        StoreCommand::try_parse_from(std::iter::once(&"kube-apiserver store").chain(args))
    }

    fn plan(args: &[&str]) -> Result<u64, String> {
        let command = parse(args).map_err(|error| error.to_string())?;
        let Action::Copy { from, to, bump_revision, etcd } = command.action else { panic!("a copy") };
        let places = place(&from, &etcd).and_then(|from| Ok((from, place(&to, &etcd)?)));
        let (from, to) = places.map_err(|error| error.to_string())?;
        bump(&from, &to, bump_revision).map_err(|error| error.to_string())
    }

    #[test]
    fn a_restore_leaves_room_for_what_the_backup_did_not_see() {
        assert_eq!(plan(&["copy", "--from=backup:/b", "--to=embedded:/s"]), Ok(RESTORE_BUMP));
        assert_eq!(plan(&["copy", "--from=backup:/b", "--to=embedded:/s", "--bump-revision=7"]), Ok(7));
        assert_eq!(plan(&["copy", "--from=embedded:/s", "--to=backup:/b"]), Ok(0));
        let etcd = "--etcd-servers=http://a:2379";
        assert_eq!(plan(&["copy", "--from=embedded:/s", "--to=etcd", etcd]), Ok(0));
        assert!(
            plan(&["copy", "--from=backup:/b", "--to=etcd", etcd]).unwrap_err().contains("--bump-revision")
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert!(plan(&["copy", "--from=/s", "--to=etcd"]).unwrap_err().contains("\"/s\" is no location"));
        assert!(plan(&["copy", "--from=embedded:", "--to=etcd"]).unwrap_err().contains("is no location"));
        assert!(plan(&["copy", "--from=embedded:/s", "--to=etcd"]).unwrap_err().contains("--etcd-servers"));
        assert!(parse(&["move"]).is_err());
        assert!(parse(&["status"]).is_err());
    }
}
