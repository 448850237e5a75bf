//! One loopback port of the host, forwarded into a network namespace.
//!
//! A socket belongs to the namespace it was made in: the listener is made on the host, then the process moves
//! into the namespace, and every connection it makes from there on starts inside.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use nix::sched::{CloneFlags, setns};

/// Connections at one time; more wait in the backlog.
const CONNECTIONS_MAX: usize = 512;

#[derive(Args)]
pub struct Options {
    /// Address on the host; must be a loopback address.
    #[arg(long)]
    listen: SocketAddr,
    /// The namespace file, /run/netns/NAME.
    #[arg(long)]
    netns: PathBuf,
    /// Where to connect inside the namespace.
    #[arg(long)]
    to: SocketAddr,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.listen.ip().is_loopback(), "--listen must be a loopback address, not {}", options.listen);
    let listener =
        TcpListener::bind(options.listen).with_context(|| format!("listening on {}", options.listen))?;
    listener.set_nonblocking(true)?;
    let namespace =
        File::open(&options.netns).with_context(|| format!("opening {}", options.netns.display()))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the network namespace")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(listener, options.to))
}

async fn serve(listener: TcpListener, to: SocketAddr) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = slots.clone().acquire_owned().await?;
        let (mut outside, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Ok(mut inside) = tokio::net::TcpStream::connect(to).await {
                // Either side may break off at any time; that is how these connections end.
                let _ = inside.set_nodelay(true);
                let _ = outside.set_nodelay(true);
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            }
            drop(slot);
        });
    }
}
