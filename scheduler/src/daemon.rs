//! Building and running: everything is made and bound in `build`, so that wrong settings fail at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::client::{self, ClientError};
use common::events::Recorder;
use common::flags::{ElectionError, GoDuration, Parsed, ServingError};
use common::leaderelection::{self, Ended, LeaderElection};
use common::process::{self, Exit};
use common::serving::{Check, Delegated, Endpoints, PATHS};
use common::shutdown::{CancellationToken, Tasks};
use common::zpages::ZPages;
use prometheus::Registry;
use tokio::sync::mpsc;

use crate::config::{ConfigError, KubeSchedulerConfiguration};
use crate::core::{Core, Input, Profiles, Settings};
use crate::effects::Executor;
use crate::flags::Flags;
use crate::framework::{MISSING, Profile, ProfileError};
use crate::informers;
use crate::metrics::Metrics;

/// Of the lease, the certificate and the user agent.
const NAME: &str = "kube-scheduler";
/// Inputs that wait for the core; watches pause beyond it.
const INPUTS_MAX: usize = 4096;
/// Inputs taken before the next pod is tried.
const INPUTS_PER_TURN: usize = 512;
/// The loop looks around at least this often.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How long tasks have to end at shutdown.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the scheduler could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Serving(#[from] ServingError),
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Election(#[from] ElectionError),
}

pub struct Daemon {
    client: kube::Client,
    election: Option<LeaderElection>,
    core: Core,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    /// The cluster is looked at only once the lease is held.
    delay_cache: bool,
    synced: Arc<AtomicBool>,
}

/// Reads the configuration, makes the client and binds the port.
///
/// # Errors
/// Whatever keeps the scheduler from starting.
pub async fn build(parsed: &Parsed<Flags>, stop: CancellationToken) -> Result<Daemon, StartError> {
    let flags = &parsed.flags;
    let mut config = match &flags.config {
        Some(path) => KubeSchedulerConfiguration::load(path)?,
        None => KubeSchedulerConfiguration::defaulted(),
    };
    let mut profiles = std::collections::HashMap::new();
    for profile in &config.profiles {
        profiles.insert(profile.scheduler_name.clone(), Profile::new(profile)?);
    }
    let missing: Vec<&str> = MISSING.iter().map(|m| m.name).collect();
    tracing::info!(plugins = missing.join(", "), "upstream's plugins that this scheduler does not have");
    let registry = Registry::new();
    let metrics = Arc::new(Metrics::register(&registry)?);
    let kubeconfig = if flags.config.is_some() && !config.client_connection.kubeconfig.is_empty() {
        Some(config.client_connection.kubeconfig.clone().into())
    } else {
        flags.client.kubeconfig.clone()
    };
    let client = client::build(flags.client.config(kubeconfig.as_deref(), NAME).await?)?;
    let tasks = Tasks::new(stop);
    let synced = Arc::new(AtomicBool::new(false));
    let election = election(flags, &mut config)?;
    let shown = serde_json::to_value(&config).ok().map(|config| ("componentconfig", config));
    let pages = ZPages::new(NAME, parsed.values.clone(), &PATHS, shown);
    serve(flags, &client, registry, synced.clone(), pages, &tasks).await?;
    let settings = Settings {
        percentage_of_nodes_to_score: config.percentage_of_nodes_to_score.unwrap_or(0),
        initial_backoff: Duration::from_secs(config.pod_initial_backoff_seconds().unsigned_abs()),
        max_backoff: Duration::from_secs(config.pod_max_backoff_seconds().unsigned_abs()),
    };
    let core = Core::new(Profiles(profiles), settings, metrics.clone(), rand::random());
    let delay_cache = config.delay_cache_until_active;
    Ok(Daemon { client, election, core, metrics, tasks, delay_cache, synced })
}

/// The file's settings, or upstream's defaults, under the flags, which the configuration then shows. None when
/// leader election is off.
fn election(
    flags: &Flags,
    config: &mut KubeSchedulerConfiguration,
) -> Result<Option<LeaderElection>, StartError> {
    let file = &mut config.leader_election;
    let identity = leaderelection::identity();
    let mut settings = LeaderElection::new(&file.resource_namespace, &file.resource_name, identity);
    settings.lease_duration = file.lease_duration.0;
    settings.renew_deadline = file.renew_deadline.0;
    settings.retry_period = file.retry_period.0;
    let election = flags.election.over(settings, file.leader_elect.unwrap_or(true))?;
    file.leader_elect = Some(election.is_some());
    if let Some(election) = &election {
        file.lease_duration = GoDuration(election.lease_duration);
        file.renew_deadline = GoDuration(election.renew_deadline);
        file.retry_period = GoDuration(election.retry_period);
        file.resource_name.clone_from(&election.name);
        file.resource_namespace.clone_from(&election.namespace);
    }
    Ok(election)
}

async fn serve(
    flags: &Flags,
    client: &kube::Client,
    registry: Registry,
    synced: Arc<AtomicBool>,
    pages: ZPages,
    tasks: &Tasks,
) -> Result<(), StartError> {
    let endpoints = Endpoints {
        metrics: registry,
        checks: vec![
            Check::readiness("shutdown", {
                let stop = tasks.stop_token();
                move || if stop.is_cancelled() { Err("process is shutting down".into()) } else { Ok(()) }
            }),
            Check::readiness("sched-handler-sync", move || {
                let synced = synced.load(Ordering::Relaxed);
                if synced { Ok(()) } else { Err("handlers are not fully synchronized".into()) }
            }),
        ],
        pages,
        delegated: Some(Delegated::new(flags.client.reviewer(client, NAME).await?)),
    };
    Ok(flags.serving.serve(NAME, endpoints, tasks).await?)
}

impl Daemon {
    /// Waits for the lease (unless election is off), schedules until told to stop. Meanwhile it already follows
    /// the cluster, so that it can take over at once; `delayCacheUntilActive` saves this.
    pub async fn run(self) -> Exit {
        let Self { client, election, core, metrics, tasks, delay_cache, synced } = self;
        let stop = tasks.stop_token();
        let leading = CancellationToken::new();
        let follow = {
            let (client, tasks, leading) = (client.clone(), tasks.clone(), leading.clone());
            move || {
                let recorder =
                    Recorder::series(client.clone(), "default-scheduler", &process::host_name(), &tasks);
                let (sender, inputs) = mpsc::channel(INPUTS_MAX);
                informers::start(&client, &sender, &tasks);
                let executor = Executor::new(client, recorder, sender, tasks.clone());
                let stop = tasks.stop_token();
                let scheduling = Scheduling { core, executor, inputs, metrics, leading, synced, stop };
                tasks.spawn_essential("scheduler", scheduling.run());
            }
        };
        let mut follow = Some(follow);
        if !(delay_cache && election.is_some())
            && let Some(follow) = follow.take()
        {
            follow();
        }
        let lead = move || async move {
            if let Some(follow) = follow {
                follow();
            }
            leading.cancel();
        };
        let lost = match election {
            None => {
                lead().await;
                stop.cancelled().await;
                false
            }
            Some(election) => election.run(client, stop.clone(), lead).await == Ended::Lost,
        };
        if lost {
            // Another may already be scheduling: nothing more is written, not even what is under way.
            return Exit::Failed;
        }
        tasks.join(PATIENCE).await;
        if tasks.failed() { Exit::Failed } else { Exit::Stopped }
    }
}

/// What the loop works with.
struct Scheduling {
    core: Core,
    executor: Executor,
    inputs: mpsc::Receiver<Input>,
    metrics: Arc<Metrics>,
    /// Cancelled once the lease is held: before, the cluster is followed and nothing is placed.
    leading: CancellationToken,
    /// Told to `/readyz`.
    synced: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Scheduling {
    /// The loop: take in what happened, try the next pod, or wait.
    async fn run(mut self) {
        loop {
            for _ in 0..INPUTS_PER_TURN {
                let Ok(input) = self.inputs.try_recv() else { break };
                self.take(input);
            }
            if self.stop.is_cancelled() {
                return;
            }
            let leads = self.leading.is_cancelled();
            if leads && let Some(effects) = self.core.schedule_one(Instant::now()) {
                for effect in effects {
                    self.executor.carry_out(effect);
                }
                // Binding tasks and watches get their turn between two pods.
                tokio::task::yield_now().await;
                continue;
            }
            self.metrics.pending(self.core.pending());
            let due = self.core.next_deadline().filter(|_| leads);
            let deadline = due.unwrap_or_else(|| Instant::now() + IDLE_MAX);
            tokio::select! {
                input = self.inputs.recv() => {
                    let Some(input) = input else { return };
                    self.take(input);
                }
                () = tokio::time::sleep_until(deadline.into()) => {}
                () = self.leading.cancelled(), if !leads => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    fn take(&mut self, input: Input) {
        for effect in self.core.take(input, Instant::now()) {
            self.executor.carry_out(effect);
        }
        if self.core.synced() {
            self.synced.store(true, Ordering::Relaxed);
        }
    }
}
