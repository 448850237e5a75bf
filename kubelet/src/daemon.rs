//! The kubelet as a tree: `build` makes every part and fails early, `run` starts them and waits for the stop.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::events::Recorder;
use common::process::Exit;
use common::quantity::Quantity;
use common::shutdown::{CancellationToken, Tasks};
use common::zpages::ZPages;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;

use crate::access::Access;
use crate::certificate::{self, CertificateOptions};
use crate::cm::{CgroupManager, CgroupOptions, Driver};
use crate::config::{ConfigError, KubeletConfiguration};
use crate::cri::{Cri, CriError, v1};
use crate::kuberuntime::resources::CpuPolicy;
use crate::kuberuntime::{self, Runtime, RuntimeOptions, images};
use crate::lifecycle::Admission;
use crate::metrics::Metrics;
use crate::network::ClusterDns;
use crate::nodestatus::{NodeUpdater, UpdaterConfig, lease, machine};
use crate::pleg::Pleg;
use crate::pod::PodManager;
use crate::pod_workers::{Deps, PodWorkers};
use crate::prober::Prober;
use crate::server::{self, ServerConfig};
use crate::sources::mirror::Mirrors;
use crate::sources::{self, Source};
use crate::status::StatusManager;
use crate::sync_loop::{Beat, SyncLoop};
use crate::volumes::{VolumeDeps, VolumeManager};

/// How long the runtime may take to answer at start.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(60);
const JOIN_PATIENCE: Duration = Duration::from_secs(5);
const CHANNEL_MAX: usize = 1000;

/// What flags say beside the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    pub config: KubeletConfiguration,
    pub kubeconfig: Option<PathBuf>,
    pub bootstrap_kubeconfig: Option<PathBuf>,
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    pub root_dir: PathBuf,
    pub cert_dir: PathBuf,
    pub labels: BTreeMap<String, String>,
    /// What `/flagz` shows.
    pub flag_values: BTreeMap<String, String>,
}

/// Why the kubelet does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("folder {path}: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("validate CRI v1 runtime API for endpoint {endpoint:?}: {source}")]
    Runtime { endpoint: String, source: CriError },
    #[error(transparent)]
    Certificate(#[from] certificate::CertificateError),
    #[error(transparent)]
    Server(#[from] server::ServerError),
    #[error(transparent)]
    Cgroup(#[from] crate::cm::CgroupError),
    #[error("running with swap on is not supported, please disable swap or set --fail-swap-on flag to false")]
    Swap,
    #[error(
        "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release (set failCgroupV1: false to run)"
    )]
    CgroupV1,
    #[error("no address of this machine to use: give --node-ip")]
    NoAddress,
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs the kubelet until `stop`.
///
/// # Errors
/// When a part cannot be made; nothing runs then.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<Exit, StartError> {
    let tasks = Tasks::new(stop.clone());
    let config = &settings.config;
    let folder = |path: PathBuf| {
        std::fs::create_dir_all(&path).map_err(|source| StartError::Folder { path: path.clone(), source })
    };
    let container_logs = PathBuf::from("/var/log/containers");
    folder(settings.root_dir.join("pods"))?;
    folder(PathBuf::from(&config.pod_logs_dir))?;
    folder(container_logs.clone())?;
    adjust_oom_score(config.oom_score_adj);

    let machine = machine::Machine::read(&settings.root_dir);
    if config.fail_swap_on && machine.swap_bytes > 0 {
        return Err(StartError::Swap);
    }
    let capacity = machine.capacity(config.max_pods);
    let reserved = [&config.system_reserved, &config.kube_reserved];
    let period_us = i64::try_from(config.cpu_cfs_quota_period.0.as_micros()).unwrap_or(100_000);
    let cgroups = Arc::new(CgroupManager::new(CgroupOptions {
        driver: if config.cgroup_driver == "systemd" { Driver::Systemd } else { Driver::Cgroupfs },
        root: config.cgroup_root.clone(),
        per_qos: config.cgroups_per_qos,
        pids_limit: config.pod_pids_limit,
        cpu_quota: config.cpu_cfs_quota,
        cpu_period_us: period_us,
        allocatable: machine::allocatable(&capacity, &reserved, &BTreeMap::new()),
        pids_max: machine::pids_max(),
    }));
    if config.fail_cgroup_v1 && !cgroups.is_v2() {
        return Err(StartError::CgroupV1);
    }
    cgroups.start().await?;

    let ips: Vec<IpAddr> = if settings.node_ips.is_empty() {
        vec![machine::default_ip().ok_or(StartError::NoAddress)?]
    } else {
        settings.node_ips.clone()
    };
    let host_ips: Vec<String> = ips.iter().map(ToString::to_string).collect();

    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry)?;
    let cri = connect(config).await?.with_metrics(metrics.runtime_operations.clone());
    let certificates = CertificateOptions {
        kubeconfig: settings.kubeconfig.clone(),
        bootstrap_kubeconfig: settings.bootstrap_kubeconfig.clone(),
        cert_dir: settings.cert_dir.clone(),
        node_name: settings.node_name.clone(),
        node_ips: ips.clone(),
        rotate_certificates: config.rotate_certificates,
        server_tls_bootstrap: config.server_tls_bootstrap,
        tls_cert_file: path(&config.tls_cert_file),
        tls_private_key_file: path(&config.tls_private_key_file),
    };
    let client = certificate::client(&certificates, stop.clone()).await?;
    let client_ca = path(&config.authentication.x509.client_ca_file);
    let tls =
        certificate::serving_config(&certificates, client.clone(), client_ca.clone(), stop.clone()).await?;

    let recorder = match &client {
        Some(client) => Recorder::counted(client.clone(), "kubelet", &settings.node_name, &tasks),
        None => Recorder::silent(),
    };
    let allocatable = machine::allocatable(&capacity, &reserved, &config.eviction_hard);
    let pods = Arc::new(PodManager::default());
    let status = Arc::new(StatusManager::new(client.clone(), pods.clone()));
    let pleg = Arc::new(Pleg::new(cri.clone()));
    let volumes = Arc::new(VolumeManager::new(VolumeDeps {
        root_dir: settings.root_dir.clone(),
        node_name: settings.node_name.clone(),
        client: client.clone(),
        recorder: recorder.clone(),
        node_allocatable: allocatable.clone(),
    }));
    let quantities =
        allocatable.iter().filter_map(|(k, v)| Some((k.clone(), Quantity::parse(v).ok()?))).collect();
    let admission = Arc::new(Admission::new(quantities));
    let mirrors =
        Arc::new(Mirrors::new(client.clone(), settings.node_name.clone(), pods.clone(), tasks.clone()));
    let options = RuntimeOptions {
        root_dir: settings.root_dir.clone(),
        pod_logs_dir: PathBuf::from(&config.pod_logs_dir),
        container_logs_dir: container_logs,
        dns: ClusterDns {
            servers: config.cluster_dns.clone(),
            domain: config.cluster_domain.clone(),
            resolv_conf: config.resolv_conf.clone(),
        },
        memory_capacity: machine.memory_bytes,
        cpu: CpuPolicy { quota_enabled: config.cpu_cfs_quota, period_us },
        seccomp_default: config.seccomp_default,
        parallel_pulls: match (config.serialize_image_pulls, config.max_parallel_image_pulls) {
            (Some(true), _) | (None, None | Some(0 | 1)) => 1,
            (_, limit) => limit.map_or(images::PARALLEL_PULLS_MAX, |n| n as usize),
        },
        backoff_max: config
            .crash_loop_back_off
            .max_container_restart_period
            .and_then(|d| SignedDuration::try_from(d.0).ok())
            .unwrap_or(kuberuntime::BACKOFF_MAX),
        host_ips: host_ips.clone(),
        node_allocatable: allocatable.clone(),
    };
    let services = client.clone().map(|client| watch_services(client, &tasks));
    let runtime = Arc::new(Runtime::new(
        cri.clone(),
        recorder.clone(),
        volumes.clone(),
        cgroups,
        client.clone(),
        services,
        options,
    ));
    let (probed_tx, probed) = mpsc::channel(CHANNEL_MAX);
    let first_ip = host_ips.first().cloned().unwrap_or_default();
    let prober = Arc::new(Prober::new(cri.clone(), recorder.clone(), tasks.clone(), first_ip, probed_tx));
    let deps = Arc::new(Deps {
        runtime: runtime.clone(),
        pleg: pleg.clone(),
        prober,
        status: status.clone(),
        admission: admission.clone(),
        mirrors: mirrors.clone(),
        sync_every: config.sync_frequency.0,
        metrics: metrics.clone(),
    });
    let workers = PodWorkers::new(deps, tasks.clone());
    let beat = Beat::new();
    let access = Arc::new(Access {
        pods: pods.clone(),
        pleg: pleg.clone(),
        status: status.clone(),
        beat: beat.clone(),
    });

    if config.enable_server {
        let shown = serde_json::to_value(config).ok().map(|config| ("kubeletconfig", config));
        let pages = ZPages::new("kubelet", settings.flag_values.clone(), &server::PATHS, shown);
        let server = ServerConfig {
            address: config.address.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])),
            port: config.port,
            healthz_port: config.healthz_port,
            healthz_bind_address: config.healthz_bind_address.parse().unwrap_or(IpAddr::from([127, 0, 0, 1])),
            read_only_port: config.read_only_port,
            tls,
            client_ca_file: client_ca,
            anonymous_auth: config.authentication.anonymous.enabled,
            webhook_auth: config.authentication.webhook.enabled && client.is_some(),
            webhook_authorization: config.authorization.mode == "Webhook",
            node_name: settings.node_name.clone(),
            client: client.clone(),
            streaming_idle: config.streaming_connection_idle_timeout.0,
            debugging_handlers: config.enable_debugging_handlers,
            registry,
            pages,
        };
        let serving = server::serve(server, access, cri.clone(), stop.clone()).await?;
        tasks.spawn_essential("server", serving);
    }

    // The runtime is read once before any pod is looked at, so that a restart finds what runs.
    let first = pleg.relist().await;
    if let Err(source) = first {
        return Err(StartError::Runtime { endpoint: config.container_runtime_endpoint.clone(), source });
    }
    let (changed_tx, changed) = mpsc::channel(CHANNEL_MAX);
    let (updates_tx, updates) = mpsc::channel(sources::UPDATES_MAX);
    let mut waiting_for = HashSet::new();
    tasks.spawn_essential("pleg", pleg.clone().run(changed_tx, stop.clone()));
    tasks.spawn_essential("status", status.clone().run(stop.clone()));
    tasks.spawn_essential("volumes", volumes.clone().run(stop.clone()));
    if !config.static_pod_path.is_empty() {
        waiting_for.insert(Source::File);
        let source = sources::file::run(
            PathBuf::from(&config.static_pod_path),
            settings.node_name.clone(),
            config.file_check_frequency.0,
            updates_tx.clone(),
            stop.clone(),
        );
        tasks.spawn_essential("manifests", source);
    }
    if let Some(client) = &client {
        waiting_for.insert(Source::Api);
        let source =
            sources::api::run(client.clone(), settings.node_name.clone(), updates_tx.clone(), stop.clone());
        tasks.spawn_essential("pods of the API", source);
        let seconds = config.node_lease_duration_seconds;
        let renew = lease::run(client.clone(), settings.node_name.clone(), seconds, stop.clone());
        tasks.spawn_essential("node lease", renew);
    }
    drop(updates_tx);
    let updater = NodeUpdater {
        config: UpdaterConfig {
            name: settings.node_name.clone(),
            ips: host_ips,
            port: config.port,
            machine,
            capacity,
            allocatable,
            labels: settings.labels.clone(),
            taints: config.register_with_taints.clone(),
            register: config.register_node,
            provider_id: config.provider_id.clone(),
            images_max: config.node_status_max_images,
            update_every: config.node_status_update_frequency.0,
            report_every: config.node_status_report_frequency.0,
            pod_cidr: config.pod_cidr.clone(),
        },
        client: client.clone(),
        cri: cri.clone(),
        pleg: pleg.clone(),
        admission,
    };
    tasks.spawn_essential("node status", updater.run(stop.clone()));
    let sync_loop = SyncLoop {
        pods,
        workers,
        pleg,
        runtime,
        status,
        mirrors,
        beat,
        metrics,
        waiting_for,
        updates,
        changed,
        probed,
    };
    tasks.spawn_essential("sync loop", sync_loop.run(stop.clone()));
    tracing::info!(node = settings.node_name, standalone = client.is_none(), "kubelet runs");
    stop.cancelled().await;
    tasks.join(JOIN_PATIENCE).await;
    Ok(if tasks.failed() { Exit::Failed } else { Exit::Stopped })
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// Waits for the runtime and checks that it speaks CRI v1.
async fn connect(config: &KubeletConfiguration) -> Result<Cri, StartError> {
    let endpoint = &config.container_runtime_endpoint;
    let wrap = |source| StartError::Runtime { endpoint: endpoint.clone(), source };
    let cri = Cri::new(endpoint, config.runtime_request_timeout.0).map_err(wrap)?;
    let started = tokio::time::Instant::now();
    loop {
        match cri.version(v1::VersionRequest { version: "0.1.0".into() }).await {
            Ok(version) => {
                tracing::info!(
                    runtime = version.runtime_name,
                    version = version.runtime_version,
                    "container runtime answers"
                );
                return Ok(cri);
            }
            Err(error) if error.is_unimplemented() || started.elapsed() > RUNTIME_PATIENCE => {
                return Err(wrap(error));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// Keeps all services for the variables that pods get of them.
fn watch_services(client: Client, tasks: &Tasks) -> reflector::Store<Service> {
    let (store, writer) = reflector::store();
    let stop = tasks.stop_token();
    let stream = watcher(Api::<Service>::all(client), watcher::Config::default())
        .default_backoff()
        .modify(|s| {
            s.metadata.managed_fields = None;
            s.metadata.annotations = None;
            s.status = None;
        })
        .reflect(writer);
    tasks.spawn_essential("services", async move {
        use futures::StreamExt as _;
        let mut stream = std::pin::pin!(stream);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                event = stream.next() => match event {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::debug!(%error, "watching services failed; retrying"),
                    None => return,
                },
            }
        }
    });
    store
}

/// The kubelet should not be the first to die; a machine that refuses is no reason to stop.
fn adjust_oom_score(score: i32) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::debug!(score, %error, "oom_score_adj stays");
    }
}
