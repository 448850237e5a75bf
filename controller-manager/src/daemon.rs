//! The daemon: built from a configuration, it serves health and metrics at once, waits for the leader's lease,
//! then starts the controllers and runs until it is stopped or the lease is lost.

use std::sync::Arc;
use std::time::Duration;

use common::leaderelection::{Ended, LeaderElection, Renewals};
use common::events::Recorder;
use common::serving::{Check, Delegated, Endpoints};
use common::shutdown::{CancellationToken, Tasks};
use kube::Client;
use prometheus::Registry;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::{Config, Election};
use crate::controller::{Informers, Queue, Reconcile, Rest, Workers};
use crate::identity::Identities;
use crate::metrics::Metrics;
use crate::registry;

const COMPONENT: &str = "kube-controller-manager";
/// How long tasks get to end after a stop.
const PATIENCE: Duration = Duration::from_millis(500);
/// A leader is unhealthy when its lease has been over for longer than this.
const EXPIRED_LEASE_TOLERATED: Duration = Duration::from_secs(20);

/// Why the daemon could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("no client for the API server")]
    Client(#[source] common::client::ClientError),
    #[error("no client for {server}")]
    Build { server: String, source: Box<kube::Error> },
    #[error("--master: \"{0}\" is not a URL")]
    Master(String),
    #[error("cannot serve TLS")]
    Tls(#[source] common::tls::TlsError),
    #[error("cannot make a serving certificate: {0}")]
    SelfSigned(String),
    #[error("cannot listen on {address}")]
    Bind { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot register metrics")]
    Metrics(#[source] prometheus::Error),
}

/// What a controller's `start` gets: everything it may use, and nothing global.
pub struct Context {
    pub config: Arc<Config>,
    /// The daemon's own, for watches.
    pub client: Client,
    /// Writes as the controller that is being started.
    pub rest: Rest,
    pub informers: Informers,
    pub workers: Workers,
    deferred: Vec<Box<dyn FnOnce(&Workers) + Send + Sync>>,
}

impl Context {
    /// A recorder whose events come from `component`.
    pub fn recorder(&self, component: &str) -> Recorder {
        Recorder::counted(self.rest.client().clone(), component, "", self.workers.tasks())
    }

    /// Runs workers on a queue once all stores hold their first list.
    pub fn run<R: Reconcile>(&mut self, queue: Arc<Queue>, reconciler: Arc<R>, count: usize) {
        self.deferred.push(Box::new(move |workers| workers.run(&queue, &reconciler, count)));
    }

    /// Runs a long-lived task once all stores hold their first list. It must end when the daemon stops.
    pub fn run_task<F>(&mut self, name: &'static str, task: impl FnOnce() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.deferred.push(Box::new(move |workers| workers.tasks().spawn_essential(name, task())));
    }
}

pub struct Daemon {
    config: Arc<Config>,
    kube: kube::Config,
    client: Client,
    metrics: Metrics,
    tasks: Tasks,
    renewals: Renewals,
    stop: CancellationToken,
}

/// Connects nothing yet, but binds the port, so that a wrong setting is an error at start.
///
/// # Errors
/// See [`DaemonError`].
pub async fn build(config: Config, stop: CancellationToken) -> Result<Daemon, DaemonError> {
    let mut kube =
        common::client::config(config.kubeconfig.as_deref(), COMPONENT).await.map_err(DaemonError::Client)?;
    if let Some(master) = &config.master {
        kube.cluster_url = master.parse().map_err(|_| DaemonError::Master(master.clone()))?;
    }
    let server = kube.cluster_url.to_string();
    let client = Client::try_from(kube.clone())
        .map_err(|source| DaemonError::Build { server, source: Box::new(source) })?;
    let metrics = Metrics::register(Registry::new()).map_err(DaemonError::Metrics)?;
    let tasks = Tasks::new(stop.clone());
    let renewals = Renewals::default();
    if let Some(address) = config.serve {
        let reviewer = match &config.authentication_kubeconfig {
            Some(path) => common::client::load(Some(path), COMPONENT).await.map_err(DaemonError::Client)?,
            None => client.clone(),
        };
        let endpoints = Endpoints {
            metrics: metrics.registry.clone(),
            checks: config.election.iter().map(|election| election_check(election, &renewals)).collect(),
            configz: None,
            delegated: Some(Delegated::new(reviewer)),
        };
        let tls = match &config.tls {
            Some((certificate, key)) => common::tls::server_config(certificate, key, &[b"h2", b"http/1.1"])
                .map_err(DaemonError::Tls)?,
            None => self_signed()?,
        };
        common::serving::serve("serving", address, Some(tls), endpoints, &tasks)
            .await
            .map_err(|source| DaemonError::Bind { address, source })?;
    }
    Ok(Daemon { config: Arc::new(config), kube, client, metrics, tasks, renewals, stop })
}

fn election_check(election: &Election, renewals: &Renewals) -> Check {
    let (lease, renewals) = (election.name.clone(), renewals.clone());
    let tolerated = election.lease_duration + EXPIRED_LEASE_TOLERATED;
    Check::new("leaderElection", move || renewals.check(&lease, tolerated))
}

/// A certificate made up for this run and kept in memory, as upstream does without `--cert-dir`.
fn self_signed() -> Result<rustls::ServerConfig, DaemonError> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made =
        rcgen::generate_simple_self_signed(names).map_err(|e| DaemonError::SelfSigned(e.to_string()))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
        .map_err(|e| DaemonError::SelfSigned(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

impl Daemon {
    /// Runs until stopped. False when it ended for another reason than being told to.
    pub async fn run(self) -> bool {
        let ended = match self.config.election.clone() {
            None => {
                self.lead().await;
                self.stop.cancelled().await;
                Ended::Stopped
            }
            Some(election) => {
                let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                let identity = format!("{}_{:032x}", host.trim(), rand::random::<u128>());
                let elector = LeaderElection {
                    namespace: election.namespace,
                    name: election.name.clone(),
                    identity,
                    lease_duration: election.lease_duration,
                    renew_deadline: election.renew_deadline,
                    retry_period: election.retry_period,
                };
                let leader = self.metrics.leader.with_label_values(&[election.name.as_str()]);
                leader.set(0.0);
                elector
                    .run_observed(self.client.clone(), self.stop.clone(), &self.renewals, || async {
                        leader.set(1.0);
                        self.lead().await;
                    })
                    .await
            }
        };
        if ended == Ended::Lost {
            // Another leads already: nothing of ours may write any more, not even to say goodbye.
            tracing::error!("leader election lost");
            std::process::exit(1);
        }
        self.stop.cancel();
        self.tasks.join(PATIENCE).await;
        !self.tasks.failed()
    }

    /// Starts the controllers in a task of their own, so that the lease is kept while they start.
    async fn lead(&self) {
        let (config, kube, client) = (self.config.clone(), self.kube.clone(), self.client.clone());
        let (queues, tasks) = (self.metrics.queues.clone(), self.tasks.clone());
        self.tasks.spawn("controllers", async move {
            start_controllers(config, kube, client, queues, tasks).await;
        });
    }
}

async fn start_controllers(
    config: Arc<Config>,
    kube: kube::Config,
    client: Client,
    queues: crate::controller::QueueMetrics,
    tasks: Tasks,
) {
    let individual = config.use_service_account_credentials;
    let mut identities = Identities::new(kube, client.clone(), individual, tasks.clone());
    let mut context = Context {
        client: client.clone(),
        rest: Rest::new(client.clone()),
        informers: Informers::default(),
        workers: Workers::new(tasks.clone(), Some(queues)),
        deferred: Vec::new(),
        config: config.clone(),
    };
    for row in registry::CONTROLLERS {
        if !registry::is_enabled(row, &config.controllers) {
            tracing::info!(controller = row.name, "controller is disabled");
            continue;
        }
        let Some(own) = identities.client(row.service_account).await else { return };
        context.rest = Rest::new(own);
        (row.start)(&mut context);
        tracing::info!(controller = row.name, "controller started");
    }
    let stop = tasks.stop_token();
    context.informers.start(&client, &tasks);
    if !context.informers.wait_synced(&stop).await {
        return;
    }
    tracing::info!("caches are synced");
    for start in std::mem::take(&mut context.deferred) {
        start(&context.workers);
    }
    // The gauges about running work are refreshed as seldom as anyone scrapes them.
    let workers = context.workers;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(15)) => workers.observe(),
        }
    }
}
