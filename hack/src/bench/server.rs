//! The process under test: its CPU time and memory from /proc (proc(5)), and its start when it is ours.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use super::Options;
use super::client::{Call, Client};
use super::report::Report;

/// How long a start may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it is left alone before its idle memory is taken.
const SETTLE: Duration = Duration::from_secs(3);

pub struct Server {
    pid: Option<u32>,
    child: Option<Child>,
    command: Vec<String>,
    log: Option<PathBuf>,
}

impl Server {
    /// Starts the command, if there is one, and waits until the server is ready.
    ///
    /// # Errors
    /// When it cannot be started or does not become ready.
    pub async fn begin(options: &Options, client: &Client, report: &mut Report) -> anyhow::Result<Self> {
        let mut server = Self {
            pid: options.server_pid,
            child: None,
            command: options.command.clone(),
            log: options.server_log.clone(),
        };
        if server.command.is_empty() {
            ready(client, Instant::now(), None).await?;
            return Ok(server);
        }
        if let Some(bytes) = server.binary_bytes() {
            report.fact("binary", format!("{:.1} MB", bytes as f64 / 1e6));
        }
        let took = server.start(client).await?;
        report.fact("start to ready, empty", format!("{:.3} s", took.as_secs_f64()));
        server.settled(report, "idle").await;
        Ok(server)
    }

    pub fn is_ours(&self) -> bool {
        self.child.is_some()
    }

    /// Ends it and starts it again.
    ///
    /// # Errors
    /// When it does not become ready again.
    pub async fn restart(&mut self, client: &Client) -> anyhow::Result<Duration> {
        self.end().await;
        self.start(client).await
    }

    async fn start(&mut self, client: &Client) -> anyhow::Result<Duration> {
        let (program, arguments) = self.command.split_first().context("no server command")?;
        let log = match &self.log {
            Some(path) => {
                let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
                Stdio::from(file.with_context(|| format!("writing {}", path.display()))?)
            }
            None => Stdio::inherit(),
        };
        let begun = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        self.pid = child.id();
        let took = ready(client, begun, Some(&mut child)).await;
        self.child = Some(child);
        took
    }

    /// Leaves it alone for a while, then notes its memory.
    pub async fn settled(&self, report: &mut Report, when: &str) {
        if self.pid.is_none() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
        if let Some(bytes) = self.resident_bytes() {
            report.fact(&format!("RSS {when}"), format!("{:.1} MB", bytes as f64 / 1e6));
        }
    }

    /// Asks it to end and waits; nothing for a server that is not ours.
    pub async fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = child.id() {
            let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
            eprintln!("the server did not end; killing it");
            let _ = child.kill().await;
        }
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid?)).ok()?;
        // The name, the second field, may hold spaces; utime and stime are the 14th and 15th.
        let rest = stat.rsplit_once(") ")?.1;
        let mut fields = rest.split(' ').skip(11).map(|field| field.parse::<u64>().unwrap_or(0));
        let ticks = fields.next()? + fields.next()?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        Some(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    pub fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    }

    fn binary_bytes(&self) -> Option<u64> {
        Some(std::fs::metadata(self.command.first()?).ok()?.len())
    }
}

/// Asks /readyz until it says ok; returns how long after `begun` that was.
async fn ready(client: &Client, begun: Instant, mut child: Option<&mut Child>) -> anyhow::Result<Duration> {
    loop {
        let asked = async {
            let mut sender = client.connect().await?;
            client.call(&mut sender, Call::get("/readyz")).await?.ok()
        };
        match asked.await {
            Ok(_) => return Ok(begun.elapsed()),
            Err(error) if begun.elapsed() > START_TIMEOUT => {
                return Err(error.context("the server is not ready"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
        if let Some(status) = child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            bail!("the server ended: {status}");
        }
    }
}
