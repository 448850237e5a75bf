//! The daemon: built from a configuration, it serves health and metrics at once, waits for the leader's lease,
//! then starts the controllers and runs until it is stopped or the lease is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::client::ClientError;
use common::events::Recorder;
use common::flags::ServingError;
use common::leaderelection::{Ended, LeaderElection, Renewals};
use common::process::Exit;
use common::serving::{Check, Delegated, Endpoints, PATHS};
use common::shutdown::{CancellationToken, Tasks};
use common::zpages::ZPages;
use kube::Client;
use prometheus::Registry;

use crate::config::{COMPONENT, Config, ConfigError};
use crate::controller::{Informers, Queue, Reconcile, Rest, Workers};
use crate::identity::Identities;
use crate::metrics::Metrics;
use crate::registry;

/// How long tasks get to end after a stop.
const PATIENCE: Duration = Duration::from_millis(500);
/// A leader is unhealthy when its lease has been over for longer than this.
const EXPIRED_LEASE_TOLERATED: Duration = Duration::from_secs(20);

/// Why the daemon could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no client for the API server")]
    Client(#[from] ClientError),
    #[error(transparent)]
    Serving(#[from] ServingError),
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
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
    client: Client,
    /// Reaches the same server without credentials.
    transport: Client,
    metrics: Metrics,
    tasks: Tasks,
    renewals: Renewals,
    stop: CancellationToken,
}

/// Connects nothing yet, but binds the port (`flag_values` are what `/flagz` shows), so that a wrong setting is an error at start.
///
/// # Errors
/// See [`DaemonError`].
pub async fn build(
    config: Config,
    flag_values: BTreeMap<String, String>,
    stop: CancellationToken,
) -> Result<Daemon, DaemonError> {
    let mut kube = config.client.config(config.client.kubeconfig.as_deref(), COMPONENT).await?;
    let client = common::client::build(kube.clone())?;
    kube.auth_info = kube::config::AuthInfo::default();
    let transport = common::client::build(kube)?;
    let metrics = Metrics::register(Registry::new())?;
    let tasks = Tasks::new(stop.clone());
    let renewals = Renewals::default();
    let endpoints = Endpoints {
        metrics: metrics.registry.clone(),
        checks: config.election.iter().map(|election| election_check(election, &renewals)).collect(),
        pages: ZPages::new(COMPONENT, flag_values, &PATHS, None),
        delegated: Some(Delegated::new(config.client.reviewer(&client, COMPONENT).await?)),
    };
    config.serving.serve(COMPONENT, endpoints, &tasks).await?;
    Ok(Daemon { config: Arc::new(config), client, transport, metrics, tasks, renewals, stop })
}

fn election_check(election: &LeaderElection, renewals: &Renewals) -> Check {
    let (lease, renewals) = (election.name.clone(), renewals.clone());
    let tolerated = election.lease_duration + EXPIRED_LEASE_TOLERATED;
    Check::new("leaderElection", move || renewals.check(&lease, tolerated))
}

impl Daemon {
    /// Runs until stopped.
    pub async fn run(self) -> Exit {
        let ended = match self.config.election.clone() {
            None => {
                self.lead().await;
                self.stop.cancelled().await;
                Ended::Stopped
            }
            Some(election) => {
                let leader = self.metrics.leader.with_label_values(&[election.name.as_str()]);
                leader.set(0.0);
                election
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
        if self.tasks.failed() { Exit::Failed } else { Exit::Stopped }
    }

    /// Starts the controllers in a task of their own, so that the lease is kept while they start.
    async fn lead(&self) {
        let (config, client, transport) = (self.config.clone(), self.client.clone(), self.transport.clone());
        let (queues, tasks) = (self.metrics.queues.clone(), self.tasks.clone());
        self.tasks.spawn("controllers", async move {
            start_controllers(config, client, transport, queues, tasks).await;
        });
    }
}

async fn start_controllers(
    config: Arc<Config>,
    client: Client,
    transport: Client,
    queues: crate::controller::QueueMetrics,
    tasks: Tasks,
) {
    let individual = config.use_service_account_credentials;
    let mut identities = Identities::new(client.clone(), transport, individual, tasks.clone());
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
