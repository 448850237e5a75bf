//! `pintle-bench`: what an API server does per request, measured from outside.
//!
//! Any API server can be given, by kubeconfig. Given its pid as well, the report says what CPU time each request
//! costs it, which is the figure to trust on a machine where the load generator takes half of the cores. Given a
//! command behind `--`, the server is started, restarted full, and ended here, and its start is measured too.
//!
//! Rooms: `kubeconfig` and `client` reach the server, `objects` is what is written, `load` runs one shape of
//! requests, `shapes` is the sequence of them, `watching` counts events, `server` is the process under test,
//! `limits` is what the machine gives without a server between (etcd, fsync, TLS), `report` prints.
//!
//! Everything lives in two namespaces of its own, which are removed at the end and after an interrupt.

mod client;
mod kubeconfig;
mod limits;
mod load;
mod objects;
mod report;
mod server;
mod shapes;
mod watching;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use client::{Client, Protocol};
use report::Report;
use server::Server;

/// Measures an API server: create, get, list, watch, patch, lease renewals, delete.
#[derive(Parser, Debug, Clone)]
#[command(name = "pintle-bench")]
pub struct Options {
    /// How to reach the server: client certificate, token and authority are taken from its current context.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Names the run in the report.
    #[arg(long, default_value = "server")]
    name: String,
    /// The server's process, for its CPU time and memory.
    #[arg(long)]
    server_pid: Option<u32>,
    /// Pods to create, read, list and delete, of about 4 KB each as stored.
    #[arg(long, default_value_t = 5000)]
    objects: usize,
    /// Pods to have before memory is measured; with a server command it is then started again.
    #[arg(long, default_value_t = 10_000)]
    fill: usize,
    /// Requests of each small shape (get, lease patch).
    #[arg(long, default_value_t = 20_000)]
    requests: usize,
    /// Lists of each shape.
    #[arg(long, default_value_t = 20)]
    lists: usize,
    /// Patches while watchers look on.
    #[arg(long, default_value_t = 2000)]
    patches: usize,
    /// Watchers of all the pods.
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    /// Requests under way at a time.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// Connections the requests are spread over. HTTP/1.1 has one per request under way.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Speak HTTP/1.1.
    #[arg(long)]
    http1: bool,
    /// No shape lasts longer.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Only these shapes: create,get,list,watch,lease,delete.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Measure how fast files below this folder reach the disk, beside the creates.
    #[arg(long)]
    fsync_dir: Option<PathBuf>,
    /// Measure how fast this etcd takes values, beside the creates. Keys below /pintle-bench.
    #[arg(long)]
    etcd: Option<String>,
    #[arg(long, requires = "etcd")]
    etcd_cafile: Option<PathBuf>,
    #[arg(long, requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    #[arg(long, requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
    /// Where the started server's log goes; standard error otherwise.
    #[arg(long)]
    server_log: Option<PathBuf>,
    /// The server's command line.
    #[arg(last = true)]
    command: Vec<String>,
}

impl Options {
    fn wants(&self, shape: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == shape)
    }

    fn etcd(&self) -> Option<limits::Etcd> {
        let certificate_and_key = self.etcd_certfile.clone().zip(self.etcd_keyfile.clone());
        let endpoint = self.etcd.clone()?;
        Some(limits::Etcd { endpoint, ca: self.etcd_cafile.clone(), certificate_and_key })
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a crypto provider was installed already"))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    let target = kubeconfig::read(&options.kubeconfig)?;
    let protocol = if options.http1 { Protocol::Http1 } else { Protocol::Http2 };
    let client = Client::new(target, protocol, options.connections);
    let mut report = Report::new(&options.name);
    let mut server = Server::begin(&options, &client, &mut report).await?;
    let mut shapes = shapes::Shapes::new(&options, client.clone());
    let measured = tokio::select! {
        measured = shapes.run(&mut server, &mut report) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let cleaned = shapes.clean_up().await.context("removing what the benchmark made");
    server.end().await;
    report.print();
    measured.and(cleaned)
}
