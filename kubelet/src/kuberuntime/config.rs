//! Requests to the runtime for a sandbox and for a container.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::env::{self, PodFacts};
use super::images::PresentImage;
use super::{Runtime, StartError, labels, resources, security};
use crate::cri::v1;
use crate::volumes::MountedVolume;
use crate::{network, pod};

/// Seccomp profiles with a relative name are looked up here, under the root folder.
const SECCOMP_FOLDER: &str = "seccomp";

/// `<logs>/<namespace>_<name>_<uid>`.
pub fn pod_log_dir(root: &Path, pod: &Pod) -> PathBuf {
    root.join(format!("{}_{}_{}", pod::namespace(pod), pod::name(pod), pod::uid(pod)))
}

impl Runtime {
    /// `<root>/pods/<uid>`.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.options.root_dir.join("pods").join(uid)
    }

    /// The sandbox of a pod.
    pub fn sandbox_config(&self, pod: &Pod, attempt: u32) -> v1::PodSandboxConfig {
        let spec = pod::spec(pod);
        let mut port_mappings = Vec::new();
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            for port in container.ports.iter().flatten() {
                let protocol = match port.protocol.as_deref() {
                    Some("UDP") => v1::Protocol::Udp,
                    Some("SCTP") => v1::Protocol::Sctp,
                    _ => v1::Protocol::Tcp,
                };
                port_mappings.push(v1::PortMapping {
                    protocol: protocol as i32,
                    container_port: port.container_port,
                    host_port: port.host_port.unwrap_or(0),
                    host_ip: port.host_ip.clone().unwrap_or_default(),
                });
            }
        }
        if pod::is_host_network(pod) {
            port_mappings.clear();
        }
        let sysctls = spec.security_context.as_ref().and_then(|c| c.sysctls.as_ref());
        let linux = v1::LinuxPodSandboxConfig {
            cgroup_parent: self.cgroups.pod_parent(pod),
            security_context: Some(security::sandbox(pod, &self.options.root_dir.join(SECCOMP_FOLDER))),
            sysctls: sysctls
                .into_iter()
                .flatten()
                .map(|s| (s.name.replace('/', "."), s.value.clone()))
                .collect(),
            ..v1::LinuxPodSandboxConfig::default()
        };
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: pod::name(pod).into(),
                uid: pod::uid(pod).into(),
                namespace: pod::namespace(pod).into(),
                attempt,
            }),
            hostname: if pod::is_host_network(pod) {
                String::new()
            } else {
                self.options.dns.sandbox_hostname(pod)
            },
            log_directory: pod_log_dir(&self.options.pod_logs_dir, pod).to_string_lossy().into_owned(),
            dns_config: Some(self.options.dns.for_pod(pod)),
            port_mappings,
            labels: labels::sandbox_labels(pod),
            annotations: labels::sandbox_annotations(pod),
            linux: Some(linux),
            windows: None,
        }
    }

    /// A container of a pod whose volumes are mounted.
    pub async fn container_config(
        &self,
        pod: &Pod,
        container: &Container,
        attempt: u32,
        image: &PresentImage,
        facts: &PodFacts,
        volumes: &BTreeMap<String, MountedVolume>,
        target_id: Option<String>,
    ) -> Result<v1::ContainerConfig, StartError> {
        security::verify_non_root(pod, container, image.uid, &image.user)?;
        let services = self.services();
        let envs = env::make(pod, container, facts, &services, self.client.as_ref()).await?;
        let map: HashMap<&str, &str> = envs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let lookup = |name: &str| map.get(name).map(|v| (*v).to_owned());
        let expand = |list: &Option<Vec<String>>| {
            list.iter().flatten().map(|t| env::expand(t, &lookup)).collect::<Vec<_>>()
        };
        let mounts = self.mounts(pod, container, facts, volumes, &lookup).await?;
        let log_dir = pod_log_dir(&self.options.pod_logs_dir, pod).join(&container.name);
        fs::create_dir_all(&log_dir).map_err(|e| {
            StartError::new("CreateContainerConfigError", format!("log folder {}: {e}", log_dir.display()))
        })?;
        let security = security::container(
            pod,
            container,
            target_id,
            &self.options.root_dir.join(SECCOMP_FOLDER),
            self.options.seccomp_default,
        );
        let linux = v1::LinuxContainerConfig {
            resources: Some(resources::linux(pod, container, self.options.memory_capacity, self.options.cpu)),
            security_context: Some(security),
        };
        Ok(v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt }),
            image: Some(v1::ImageSpec {
                image: image.reference.clone(),
                user_specified_image: container.image.clone().unwrap_or_default(),
                ..v1::ImageSpec::default()
            }),
            command: expand(&container.command),
            args: expand(&container.args),
            working_dir: container.working_dir.clone().unwrap_or_default(),
            envs: envs
                .iter()
                .map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone() })
                .collect(),
            mounts,
            labels: labels::container_labels(pod, container),
            annotations: labels::container_annotations(pod, container, attempt),
            log_path: format!("{}/{attempt}.log", container.name),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            tty: container.tty == Some(true),
            linux: Some(linux),
            ..v1::ContainerConfig::default()
        })
    }

    async fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        facts: &PodFacts,
        volumes: &BTreeMap<String, MountedVolume>,
        lookup: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<Vec<v1::Mount>, StartError> {
        let refuse = |text: String| StartError::new("CreateContainerConfigError", text);
        let mut out = Vec::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let volume = volumes.get(&mount.name).ok_or_else(|| {
                refuse(format!(
                    "cannot find volume {:?} to mount into container {:?}",
                    mount.name, container.name
                ))
            })?;
            let sub = match (mount.sub_path_expr.as_deref(), mount.sub_path.as_deref()) {
                (Some(text), _) if !text.is_empty() => env::expand(text, lookup),
                (_, Some(text)) => text.to_owned(),
                _ => String::new(),
            };
            let host_path = if sub.is_empty() {
                volume.host_path.clone()
            } else {
                self.volumes
                    .prepare_sub_path(pod, container, index, volume, &sub)
                    .await
                    .map_err(|e| refuse(e.to_string()))?
            };
            let propagation = match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
                Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
                _ => v1::MountPropagation::PropagationPrivate,
            };
            let container_path = if mount.mount_path.starts_with('/') {
                mount.mount_path.clone()
            } else {
                format!("/{}", mount.mount_path)
            };
            out.push(v1::Mount {
                container_path,
                host_path: host_path.to_string_lossy().into_owned(),
                readonly: mount.read_only == Some(true) || volume.read_only,
                selinux_relabel: volume.selinux_relabel,
                propagation: propagation as i32,
                ..v1::Mount::default()
            });
        }
        let taken = |path: &str| {
            container.volume_mounts.iter().flatten().any(|m| m.mount_path.trim_end_matches('/') == path)
        };
        let dir = self.pod_dir(pod::uid(pod));
        if !taken("/etc/hosts") {
            let (host, domain) = self.options.dns.hostname(pod);
            let text = network::hosts_file(pod, &facts.pod_ips, &host, &domain, Path::new("/etc/hosts"));
            let path = dir.join("etc-hosts");
            write_with_mode(&path, &text, 0o644).map_err(|e| refuse(format!("{}: {e}", path.display())))?;
            out.push(bind(&path, "/etc/hosts"));
        }
        let last_words = labels::termination_path(container);
        let folder = dir.join("containers").join(&container.name);
        let path = folder.join(uuid::Uuid::new_v4().simple().to_string().split_at(8).0);
        write_with_mode(&path, "", 0o666).map_err(|e| refuse(format!("{}: {e}", path.display())))?;
        out.push(bind(&path, last_words));
        Ok(out)
    }
}

fn bind(host: &Path, inside: &str) -> v1::Mount {
    v1::Mount {
        host_path: host.to_string_lossy().into_owned(),
        container_path: inside.to_owned(),
        ..v1::Mount::default()
    }
}

fn write_with_mode(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
