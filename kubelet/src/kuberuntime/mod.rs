//! Makes the runtime hold what a pod's spec asks for.
//!
//! `status` reads a pod from the runtime, `actions` plans (pure), `start` and `kill` act, `config` builds the
//! requests, `gc` removes what is dead. It must not decide whether a pod should run (`pod_workers`) and must
//! not write pod status (`status`). Answers to upstream's `pkg/kubelet/kuberuntime`.

pub mod actions;
pub mod backoff;
pub mod config;
pub mod env;
pub mod gc;
pub mod hooks;
pub mod images;
mod kill;
pub mod labels;
pub mod resources;
pub mod security;
mod start;
pub mod status;
mod termination_message;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use common::events::Recorder;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Service;
use kube::runtime::reflector::Store;
use parking_lot::Mutex;

use crate::cm::CgroupManager;
use crate::cri::Cri;
use crate::network::ClusterDns;
use crate::volumes::VolumeManager;
use backoff::Backoff;
pub use status::{ContainerState, RuntimeContainer, RuntimePod, RuntimeSandbox};

/// Remembered pull failures.
pub const PULL_FAILURES_MAX: usize = 1000;
const BACKOFF_START: SignedDuration = SignedDuration::from_secs(10);
/// Upstream's `MaxContainerBackOff`.
pub const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(300);

/// Why a container does not start: the `reason` and `message` of its waiting state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct StartError {
    pub reason: &'static str,
    pub message: String,
    /// When another try makes sense.
    pub retry_at: Option<Timestamp>,
}

impl StartError {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_at: None }
    }
}

/// What does not change while the kubelet runs.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    pub root_dir: PathBuf,
    pub pod_logs_dir: PathBuf,
    pub container_logs_dir: PathBuf,
    pub dns: ClusterDns,
    pub memory_capacity: i64,
    pub cpu: resources::CpuPolicy,
    pub seccomp_default: bool,
    pub parallel_pulls: usize,
    pub backoff_max: SignedDuration,
    pub host_ips: Vec<String>,
    pub node_allocatable: BTreeMap<String, String>,
}

/// The pods' runtime. One per kubelet.
pub struct Runtime {
    pub cri: Cri,
    pub recorder: Recorder,
    pub volumes: Arc<VolumeManager>,
    pub cgroups: Arc<CgroupManager>,
    pub options: RuntimeOptions,
    client: Option<kube::Client>,
    services: Option<Store<Service>>,
    backoff: Mutex<Backoff>,
    pull_backoff: Mutex<Backoff>,
    pull_failures: Mutex<HashMap<String, (Timestamp, String)>>,
    pull_slots: images::PullSlots,
}

impl Runtime {
    /// `services` is kept by a reflector; without it pods get no service variables.
    pub fn new(
        cri: Cri,
        recorder: Recorder,
        volumes: Arc<VolumeManager>,
        cgroups: Arc<CgroupManager>,
        client: Option<kube::Client>,
        services: Option<Store<Service>>,
        options: RuntimeOptions,
    ) -> Self {
        Self {
            cri,
            recorder,
            volumes,
            cgroups,
            client,
            services,
            backoff: Mutex::new(Backoff::new(BACKOFF_START.min(options.backoff_max), options.backoff_max)),
            pull_backoff: Mutex::new(Backoff::new(BACKOFF_START, BACKOFF_MAX)),
            pull_failures: Mutex::default(),
            pull_slots: images::PullSlots::new(options.parallel_pulls),
            options,
        }
    }

    fn services(&self) -> Vec<Arc<Service>> {
        self.services.as_ref().map(Store::state).unwrap_or_default()
    }

    /// Forgets a pod's back-offs.
    pub fn forget(&self, uid: &str) {
        self.backoff.lock().forget(uid);
        self.pull_backoff.lock().forget(uid);
        self.pull_failures.lock().retain(|k, _| !k.starts_with(uid));
    }
}
