//! Registers the node and keeps its status: a look every few seconds, a write when it differs or is old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::shutdown::CancellationToken;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};

use super::machine::Machine;
use super::render::{Inputs, Pressure, render};
use crate::cri::{Cri, v1};
use crate::lifecycle::Admission;
use crate::pleg::Pleg;

const REGISTER_RETRY: Duration = Duration::from_secs(1);
/// Names per image in the status.
const IMAGE_NAMES_MAX: usize = 5;

/// What does not change.
pub struct UpdaterConfig {
    pub name: String,
    pub ips: Vec<String>,
    pub port: u16,
    pub machine: Machine,
    pub capacity: BTreeMap<String, String>,
    pub allocatable: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub register: bool,
    pub provider_id: String,
    pub images_max: i32,
    pub update_every: Duration,
    pub report_every: Duration,
    pub pod_cidr: String,
}

/// One per kubelet.
pub struct NodeUpdater {
    pub config: UpdaterConfig,
    pub client: Option<Client>,
    pub cri: Cri,
    pub pleg: Arc<Pleg>,
    pub admission: Arc<Admission>,
}

impl NodeUpdater {
    /// Runs until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut cidr = String::new();
        if !self.config.pod_cidr.is_empty() && self.client.is_none() {
            let own = self.config.pod_cidr.clone();
            self.hand_cidr(&own, &mut cidr).await;
        }
        let Some(client) = self.client.clone() else {
            stop.cancelled().await;
            return;
        };
        let mut registered = !self.config.register;
        let mut failing = false;
        let mut written: Option<(NodeStatus, Instant)> = None;
        loop {
            let pause = match self.round(&client, &mut registered, &mut written, &mut cidr).await {
                Ok(()) => {
                    failing = false;
                    // Until the node is ready and has its CIDR a look is cheap and soon useful.
                    let settled = written.as_ref().is_some_and(|(s, _)| is_ready(s)) && !cidr.is_empty();
                    if settled {
                        self.config.update_every
                    } else {
                        self.config.update_every.min(Duration::from_secs(1))
                    }
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(node = self.config.name, %error, "node status not written; retrying");
                    }
                    failing = true;
                    REGISTER_RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn round(
        &self,
        client: &Client,
        registered: &mut bool,
        written: &mut Option<(NodeStatus, Instant)>,
        cidr: &mut String,
    ) -> Result<(), kube::Error> {
        let api: Api<Node> = Api::all(client.clone());
        let node = match api.get_opt(&self.config.name).await? {
            Some(node) => {
                if !*registered {
                    self.reconcile_labels(&api, &node).await?;
                    *registered = true;
                }
                node
            }
            None if self.config.register => {
                *written = None;
                let status = self.status(&NodeStatus::default()).await;
                tracing::info!(node = self.config.name, "registering the node");
                let made = api.create(&PostParams::default(), &self.fresh(status)).await?;
                *registered = true;
                made
            }
            None => return Ok(()),
        };
        self.admission.set_node(node.clone());
        if let Some(given) = node.spec.as_ref().and_then(|s| s.pod_cidr.clone()) {
            self.hand_cidr(&given, cidr).await;
        }
        let old = node.status.clone().unwrap_or_default();
        let status = self.status(&old).await;
        let due = written.as_ref().is_none_or(|(_, at)| at.elapsed() >= self.config.report_every);
        if !due && same(&status, &old) {
            return Ok(());
        }
        let patch = serde_json::json!({"status": status});
        api.patch_status(&self.config.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        *written = Some((status, Instant::now()));
        Ok(())
    }

    async fn hand_cidr(&self, cidr: &str, current: &mut String) {
        if cidr.is_empty() || cidr == current {
            return;
        }
        let request = v1::UpdateRuntimeConfigRequest {
            runtime_config: Some(v1::RuntimeConfig {
                network_config: Some(v1::NetworkConfig { pod_cidr: cidr.to_owned() }),
            }),
        };
        match self.cri.update_runtime_config(request).await {
            Ok(_) => {
                tracing::info!(cidr, "pod CIDR handed to the runtime");
                cidr.clone_into(current);
            }
            Err(error) => tracing::warn!(cidr, %error, "pod CIDR not handed to the runtime; retrying"),
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut out = self.config.labels.clone();
        for (key, value) in [
            ("kubernetes.io/hostname", self.config.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", self.config.machine.arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", self.config.machine.arch),
        ] {
            out.insert(key.into(), value.into());
        }
        out
    }

    fn fresh(&self, status: NodeStatus) -> Node {
        let annotation =
            ("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned());
        Node {
            metadata: ObjectMeta {
                name: Some(self.config.name.clone()),
                labels: Some(self.labels()),
                annotations: Some(BTreeMap::from([annotation])),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: Some(self.config.taints.clone()).filter(|t| !t.is_empty()),
                provider_id: Some(self.config.provider_id.clone()).filter(|p| !p.is_empty()),
                ..NodeSpec::default()
            }),
            status: Some(status),
        }
    }

    async fn reconcile_labels(&self, api: &Api<Node>, node: &Node) -> Result<(), kube::Error> {
        let have = node.metadata.labels.clone().unwrap_or_default();
        let missing: BTreeMap<String, String> =
            self.labels().into_iter().filter(|(k, v)| have.get(k) != Some(v)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let patch = serde_json::json!({"metadata": {"labels": missing}});
        api.patch(&self.config.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    async fn status(&self, old: &NodeStatus) -> NodeStatus {
        let mut not_ready = Vec::new();
        let mut runtime_version = String::new();
        match self.cri.version(v1::VersionRequest { version: "0.1.0".into() }).await {
            Ok(v) => runtime_version = format!("{}://{}", v.runtime_name, v.runtime_version),
            Err(_) => not_ready.push("container runtime is down".to_owned()),
        }
        match self.cri.status(v1::StatusRequest { verbose: false }).await {
            Ok(response) => {
                for condition in response.status.unwrap_or_default().conditions {
                    if !condition.status {
                        let what = if condition.r#type == "NetworkReady" {
                            "container runtime network not ready: "
                        } else {
                            "container runtime not ready: "
                        };
                        not_ready.push(format!(
                            "{what}{}={} reason:{} message:{}",
                            condition.r#type, condition.status, condition.reason, condition.message
                        ));
                    }
                }
            }
            Err(error) if not_ready.is_empty() => {
                not_ready.push(format!("container runtime status check may not have completed yet: {error}"))
            }
            Err(_) => {}
        }
        not_ready.extend(self.pleg.unhealthy().map(|why| format!("PLEG is not healthy: {why}")));
        let inputs = Inputs {
            machine: &self.config.machine,
            name: &self.config.name,
            ips: &self.config.ips,
            port: self.config.port,
            capacity: &self.config.capacity,
            allocatable: &self.config.allocatable,
            runtime_version: &runtime_version,
            images: self.images().await,
            pressure: Pressure::default(),
            not_ready,
            now: Timestamp::now(),
        };
        render(&inputs, old)
    }

    async fn images(&self) -> Vec<ContainerImage> {
        let Ok(list) = self.cri.list_images(v1::ListImagesRequest::default()).await else {
            return Vec::new();
        };
        let mut images = list.images;
        images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
        if let Ok(max) = usize::try_from(self.config.images_max) {
            images.truncate(max);
        }
        let image = |i: v1::Image| {
            let mut names = i.repo_digests;
            names.extend(i.repo_tags);
            names.truncate(IMAGE_NAMES_MAX);
            ContainerImage { names: Some(names), size_bytes: i64::try_from(i.size).ok() }
        };
        images.into_iter().map(image).collect()
    }
}

fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Equal but for heartbeats.
fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let strip = |s: &NodeStatus| {
        let mut s = s.clone();
        for condition in s.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        s.conditions.iter_mut().for_each(|c| c.sort_by(|a, b| a.type_.cmp(&b.type_)));
        s.images = s.images.filter(|i| !i.is_empty());
        s
    };
    strip(a) == strip(b)
}
