//! Building and running: everything is made and bound in `build`, so that wrong settings fail at once.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::client::{self, ClientError};
use common::flags::Parsed;
use common::process::Exit;
use common::serving::{self, Endpoints, PATHS};
use common::shutdown::{CancellationToken, Tasks};
use common::zpages::ZPages;
use parking_lot::RwLock;
use prometheus::Registry;
use rtnetlink::Handle;
use tokio::sync::mpsc;

use crate::config::{Config, ConfigError, DnsConfig};
use crate::dns::address::{self, AddressError};
use crate::dns::{DnsServer, Forwarder, ServeError, Zone};
use crate::flags::Flags;
use crate::health::{self, Answer, Health, ServiceHealth};
use crate::informers;
use crate::metrics::Metrics;
use crate::model::Family;
use crate::nftables::Nft;
use crate::routes;
use crate::state::{Input, State};
use crate::sync::Sync;

const NAME: &str = "kube-proxy";
/// Inputs that wait for the sync loop; watches pause beyond it.
const INPUTS_MAX: usize = 4096;
/// How long tasks have to end at shutdown.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Dns(#[from] ServeError),
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot talk to the kernel over netlink")]
    Netlink(#[source] std::io::Error),
    #[error("{what}: cannot serve on {address}")]
    Serve { what: &'static str, address: SocketAddr, source: std::io::Error },
}

pub struct Daemon {
    client: kube::Client,
    sync: Sync,
    tasks: Tasks,
    netlink: Handle,
    /// The DNS address that was added and goes at the end.
    added: Option<std::net::IpAddr>,
}

/// IPv6 rules only where the kernel has the family.
fn families() -> Vec<Family> {
    let has_v6 = Path::new("/proc/net/if_inet6").exists();
    Family::ALL.into_iter().filter(|f| *f == Family::V4 || has_v6).collect()
}

/// # Errors
/// Whatever keeps the proxy from starting.
pub async fn build(parsed: &Parsed<Flags>, stop: CancellationToken) -> Result<Daemon, StartError> {
    let config = Config::load(&parsed.flags)?;
    let registry = Registry::new();
    let metrics = Arc::new(Metrics::register(&registry)?);
    let client = client::load(config.kubeconfig.as_deref(), NAME).await?;
    let tasks = Tasks::new(stop);
    let netlink = netlink(&tasks)?;
    let state = Arc::new(RwLock::new(State::default()));
    let health = Arc::new(Health::default());
    let families = families();
    for family in &families {
        health.updated(*family);
    }
    let pages = ZPages::new(NAME, parsed.values.clone(), &PATHS, None);
    serve(&config, registry, pages, &health, &metrics, &tasks).await?;
    let added = match &config.dns {
        None => None,
        Some(dns) => dns_server(dns, &state, &netlink, &tasks).await?,
    };
    let service_health = ServiceHealth::new(health.clone(), tasks.clone());
    let sync = Sync::new(config, state, netlink.clone(), health, service_health, metrics, &families);
    Ok(Daemon { client, sync, tasks, netlink, added })
}

fn netlink(tasks: &Tasks) -> Result<Handle, StartError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(StartError::Netlink)?;
    tasks.spawn("netlink", async move {
        // Ends with the last handle.
        connection.await;
    });
    Ok(handle)
}

/// The address we added, if any.
async fn dns_server(
    dns: &DnsConfig,
    state: &Arc<RwLock<State>>,
    netlink: &Handle,
    tasks: &Tasks,
) -> Result<Option<std::net::IpAddr>, StartError> {
    let ip = dns.bind.ip();
    let added = address::ensure(netlink, ip).await?.then_some(ip);
    let Some(zone) = Zone::new(&dns.domain) else {
        return Err(ConfigError::Invalid { field: "--cluster-domain", why: "not a DNS name".into() }.into());
    };
    if dns.upstreams.is_empty() {
        tracing::info!("names outside the cluster's domain are refused: no other DNS server is configured");
    }
    let server = DnsServer { zone, state: state.clone(), forwarder: Forwarder::new(dns.upstreams.clone()) };
    server.serve(dns.bind, tasks).await?;
    tracing::info!(address = %dns.bind, domain = dns.domain, "answering cluster DNS");
    Ok(added)
}

async fn serve(
    config: &Config,
    registry: Registry,
    pages: ZPages,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
) -> Result<(), StartError> {
    if let Some(address) = config.healthz {
        let (health, metrics) = (health.clone(), metrics.clone());
        let handler: health::Handler = Arc::new(move |path| health_answer(&health, &metrics, path));
        let result = health::serve("healthz", address, handler, tasks.stop_token(), tasks).await;
        bound("healthz", address, result, config.bind_hard_fail)?;
    }
    if let Some(address) = config.metrics {
        let endpoints = Endpoints { metrics: registry, checks: Vec::new(), pages, delegated: None };
        let result = serving::serve("metrics", address, None, endpoints, tasks).await;
        bound("metrics", address, result.map(drop), config.bind_hard_fail)?;
    }
    Ok(())
}

/// A taken port is fatal only when the configuration says so, as upstream's.
fn bound(
    what: &'static str,
    address: SocketAddr,
    result: std::io::Result<()>,
    hard: bool,
) -> Result<(), StartError> {
    match result {
        Ok(()) => Ok(()),
        Err(source) if hard => Err(StartError::Serve { what, address, source }),
        Err(error) => {
            tracing::error!(%address, %error, "{what} is not served");
            Ok(())
        }
    }
}

fn health_answer(health: &Health, metrics: &Metrics, path: &str) -> Answer {
    let live = path == "/livez";
    if !live && path != "/healthz" {
        return Answer { status: 404, headers: Vec::new(), body: "404 page not found\n".into() };
    }
    let (status, document) = health.document(!live, Instant::now());
    metrics.health_answered(live, status);
    Answer {
        status,
        headers: vec![
            ("Content-Type", "application/json".into()),
            ("X-Content-Type-Options", "nosniff".into()),
        ],
        body: document.to_string(),
    }
}

impl Daemon {
    /// Proxies until told to stop. Rules and routes stay, so that traffic flows on while the proxy is replaced;
    /// the DNS address goes, because nobody answers on it.
    pub async fn run(self) -> Exit {
        let Self { client, sync, tasks, netlink, added } = self;
        let stop = tasks.stop_token();
        let (sender, receiver) = mpsc::channel::<Input>(INPUTS_MAX);
        informers::start(&client, &sender, &tasks);
        drop(sender);
        tasks.spawn_essential("sync", sync.run(receiver, stop.clone()));
        stop.cancelled().await;
        if let Some(ip) = added
            && let Err(error) = address::remove(&netlink, ip).await
        {
            tracing::warn!(%error, "the DNS address stays");
        }
        drop(netlink);
        tasks.join(PATIENCE).await;
        if tasks.failed() { Exit::Failed } else { Exit::Stopped }
    }
}

/// `--cleanup`: removes rules, our routes and the DNS address; fails when something stayed.
///
/// # Errors
/// When the configuration is wrong or the kernel cannot be asked.
pub async fn cleanup(flags: &Flags, stop: CancellationToken) -> Result<Exit, StartError> {
    let config = Config::load(flags)?;
    let tasks = Tasks::new(stop);
    let netlink = netlink(&tasks)?;
    let mut clean = true;
    for family in families() {
        if let Err(error) = Nft::default().cleanup(family).await {
            tracing::error!(family = family.name(), %error, "rules stay");
            clean = false;
        }
    }
    for error in routes::reconcile(&netlink, &routes::Routes::new()).await {
        tracing::error!(%error, "a route stays");
        clean = false;
    }
    if let Some(dns) = &config.dns
        && let Err(error) = address::remove(&netlink, dns.bind.ip()).await
    {
        tracing::error!(%error, "the DNS address stays");
        clean = false;
    }
    Ok(if clean { Exit::Stopped } else { Exit::Failed })
}
