//! PID 1 of a local node: starts every service of a folder, restarts what ends, reaps orphans.
//!
//! A service is an executable file `NAME` in the folder; its output goes to `LOGS/NAME.log`. While a file
//! `NAME.down` exists the service is kept stopped. SIGHUP looks at the folder again, SIGTERM stops all.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A service that ended is started again after this long.
const RESTART_DELAY: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Options {
    /// Folder of service executables.
    #[arg(long)]
    services: PathBuf,
    /// Folder for their output.
    #[arg(long)]
    logs: PathBuf,
}

#[derive(Default)]
struct Service {
    pid: Option<Pid>,
    not_before: Option<Instant>,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    fs::create_dir_all(&options.logs).with_context(|| format!("making {}", options.logs.display()))?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    loop {
        let next = settle(options, &mut services)?;
        wait_readable(&fd, next)?;
        if signals_stop(&fd) {
            break;
        }
        for pid in reap() {
            for service in services.values_mut().filter(|s| s.pid == Some(pid)) {
                service.pid = None;
                service.not_before = Some(Instant::now() + RESTART_DELAY);
            }
        }
    }
    for pid in services.values().filter_map(|s| s.pid) {
        let _ = kill(pid, Signal::SIGTERM);
    }
    Ok(())
}

/// Reads every queued signal; true when one of them means stop.
fn signals_stop(fd: &SignalFd) -> bool {
    let mut stop = false;
    while wait_readable(fd, Some(Duration::ZERO)).unwrap_or(false) {
        let Ok(Some(info)) = fd.read_signal() else { break };
        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
        stop |= number == Signal::SIGTERM as i32 || number == Signal::SIGINT as i32;
    }
    stop
}

fn wait_readable(fd: &SignalFd, timeout: Option<Duration>) -> anyhow::Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let timeout = timeout.map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Brings the processes in line with the folder; returns how long until something is due.
fn settle(options: &Options, services: &mut BTreeMap<String, Service>) -> anyhow::Result<Option<Duration>> {
    let names = service_names(&options.services)?;
    let mut next: Option<Duration> = None;
    for name in &names {
        let service = services.entry(name.clone()).or_default();
        let down = options.services.join(format!("{name}.down")).exists();
        match (service.pid, down) {
            (Some(pid), true) => {
                let _ = kill(pid, Signal::SIGTERM);
            }
            (None, false) => {
                let wait = service
                    .not_before
                    .map_or(Duration::ZERO, |t| t.saturating_duration_since(Instant::now()));
                if wait.is_zero() {
                    service.pid = start(options, name);
                    service.not_before = Some(Instant::now() + RESTART_DELAY);
                }
                if service.pid.is_none() {
                    let due = if wait.is_zero() { RESTART_DELAY } else { wait };
                    next = Some(next.map_or(due, |n| n.min(due)));
                }
            }
            (Some(_), false) | (None, true) => {}
        }
    }
    Ok(next)
}

fn service_names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.contains('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn start(options: &Options, name: &str) -> Option<Pid> {
    let log =
        OpenOptions::new().create(true).append(true).open(options.logs.join(format!("{name}.log"))).ok()?;
    let mut command = Command::new(options.services.join(name));
    command.stdin(Stdio::null()).stdout(log.try_clone().ok()?).stderr(log);
    // SAFETY: only async-signal-safe calls between fork and exec: the signal mask is reset and a session made.
    unsafe {
        command.pre_exec(|| {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
            nix::unistd::setsid()?;
            Ok(())
        });
    }
    match command.spawn() {
        Ok(child) => i32::try_from(child.id()).ok().map(Pid::from_raw),
        Err(error) => {
            eprintln!("cannot start {name}: {error}");
            None
        }
    }
}

fn reap() -> Vec<Pid> {
    let mut ended = Vec::new();
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => ended.push(pid),
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}
