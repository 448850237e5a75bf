//! Running the `nft` tool: one transaction through standard input.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::table::Existing;
use super::{TABLE, ip_word};
use crate::model::Family;

/// A transaction that takes longer is given up.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot run nft (is the package nftables installed?)")]
    Spawn(#[source] std::io::Error),
    #[error("nft took longer than {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("nft refused the rules: {0}")]
    Refused(String),
    #[error("nft's listing could not be read")]
    Listing(#[source] serde_json::Error),
}

/// The tool; a fake program can be given in tests.
#[derive(Debug, Clone)]
pub struct Nft {
    program: String,
}

impl Default for Nft {
    fn default() -> Self {
        Self { program: "nft".into() }
    }
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    chain: Option<Named>,
    set: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    family: String,
    table: String,
    name: String,
}

impl Nft {
    /// All commands or none.
    ///
    /// # Errors
    /// When the tool cannot be run or refuses.
    pub async fn run(&self, commands: &[String]) -> Result<(), ApplyError> {
        if commands.is_empty() {
            return Ok(());
        }
        let mut text = commands.join("\n");
        text.push('\n');
        self.call(&["-f", "-"], &text).await.map(drop)
    }

    /// Chains and sets of our table; none when it does not exist.
    ///
    /// # Errors
    /// When the tool cannot be run or its answer cannot be read.
    pub async fn existing(&self, family: Family) -> Result<Existing, ApplyError> {
        let mut out = Existing::default();
        let word = ip_word(family);
        for what in ["chains", "sets"] {
            // The family's whole listing: naming an absent table would be an error.
            let text = self.call(&["-j", "-t", "list", what, word], "").await?;
            let listing: Listing = serde_json::from_str(&text).map_err(ApplyError::Listing)?;
            let ours = |n: &Named| n.family == word && n.table == TABLE;
            for item in listing.nftables {
                out.chains.extend(item.chain.filter(ours).map(|n| n.name));
                out.sets.extend(item.set.filter(ours).map(|n| n.name));
            }
        }
        Ok(out)
    }

    /// Deletes our table if it is there.
    ///
    /// # Errors
    /// When the tool cannot be run or refuses.
    pub async fn cleanup(&self, family: Family) -> Result<(), ApplyError> {
        let table = format!("{} {TABLE}", ip_word(family));
        self.run(&[format!("add table {table}"), format!("delete table {table}")]).await
    }

    async fn call(&self, arguments: &[&str], input: &str) -> Result<String, ApplyError> {
        let mut child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(ApplyError::Spawn)?;
        let stdin = child.stdin.take();
        let input = input.as_bytes().to_vec();
        let work = async move {
            let write = async move {
                if let Some(mut stdin) = stdin {
                    // A tool that stops reading says why on its standard error.
                    drop(stdin.write_all(&input).await);
                }
            };
            let ((), output) = tokio::join!(write, child.wait_with_output());
            output
        };
        let output = tokio::time::timeout(TIMEOUT, work)
            .await
            .map_err(|_| ApplyError::Timeout)?
            .map_err(ApplyError::Spawn)?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let few: Vec<&str> = text.lines().take(6).collect();
            return Err(ApplyError::Refused(few.join(" | ")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
