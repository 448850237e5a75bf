//! What each volume of a pod is and where it lives. Pure.

use std::path::{Path, PathBuf};

use common::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeSource, EmptyDirVolumeSource, HostPathVolumeSource, Pod,
    ProjectedVolumeSource, SecretVolumeSource, Volume,
};

use super::{NodeAllocatable, VolumeError};

/// A volume as it will be made.
#[derive(Debug, PartialEq)]
pub struct Planned<'a> {
    pub name: &'a str,
    /// Where it lives; for a hostPath the path itself.
    pub path: PathBuf,
    pub source: Source<'a>,
}

#[derive(Debug, PartialEq)]
pub enum Source<'a> {
    /// A folder, or a tmpfs of this many bytes.
    EmptyDir {
        memory: Option<i64>,
    },
    HostPath {
        kind: &'a str,
    },
    ConfigMap(&'a ConfigMapVolumeSource),
    Secret(&'a SecretVolumeSource),
    DownwardApi(&'a DownwardAPIVolumeSource),
    Projected(&'a ProjectedVolumeSource),
}

impl Source<'_> {
    /// Secrets, tokens and the pod's fields never reach a disk.
    pub fn in_memory(&self) -> bool {
        matches!(self, Self::Secret(_) | Self::DownwardApi(_) | Self::Projected(_))
    }

    pub fn is_payload(&self) -> bool {
        !matches!(self, Self::EmptyDir { .. } | Self::HostPath { .. })
    }
}

/// Folder of a pod.
pub fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// Folder of one volume, as upstream lays it out.
pub fn volume_dir(root: &Path, uid: &str, plugin: &str, name: &str) -> PathBuf {
    pod_dir(root, uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
}

/// Where a subPath of a container is bound.
pub fn sub_path_dir(root: &Path, uid: &str, volume: &str, container: &str, index: usize) -> PathBuf {
    pod_dir(root, uid).join("volume-subpaths").join(volume).join(container).join(index.to_string())
}

/// Says that an empty directory is complete (upstream's `ready` file).
pub fn ready_file(root: &Path, uid: &str, name: &str) -> PathBuf {
    pod_dir(root, uid).join("plugins").join("kubernetes.io~empty-dir").join(name).join("ready")
}

/// All volumes of a pod.
///
/// # Errors
/// When a volume is of a kind this kubelet does not offer.
pub fn plan<'a>(
    root: &Path,
    pod: &'a Pod,
    allocatable: &NodeAllocatable,
) -> Result<Vec<Planned<'a>>, VolumeError> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().filter_map(|s| s.volumes.as_ref()).flatten();
    volumes.map(|volume| plan_one(root, uid, pod, volume, allocatable)).collect()
}

fn plan_one<'a>(
    root: &Path,
    uid: &str,
    pod: &'a Pod,
    volume: &'a Volume,
    allocatable: &NodeAllocatable,
) -> Result<Planned<'a>, VolumeError> {
    let fail = |reason: String| VolumeError::Mount { volume: volume.name.clone(), reason };
    // A name becomes a folder; the API refuses others, a static pod's file is not asked.
    if volume.name.is_empty() || volume.name.contains('/') || volume.name == "." || volume.name == ".." {
        return Err(fail("the volume's name cannot be a folder name".into()));
    }
    let dir = |plugin| volume_dir(root, uid, plugin, &volume.name);
    let (path, source) = if let Some(source) = &volume.empty_dir {
        (dir("empty-dir"), empty_dir(source, pod, allocatable).map_err(fail)?)
    } else if let Some(HostPathVolumeSource { path, type_ }) = &volume.host_path {
        if path.split('/').any(|part| part == "..") {
            return Err(fail(format!("invalid HostPath `{path}`: must not contain '..'")));
        }
        (PathBuf::from(path), Source::HostPath { kind: type_.as_deref().unwrap_or_default() })
    } else if let Some(source) = &volume.config_map {
        (dir("configmap"), Source::ConfigMap(source))
    } else if let Some(source) = &volume.secret {
        (dir("secret"), Source::Secret(source))
    } else if let Some(source) = &volume.downward_api {
        (dir("downward-api"), Source::DownwardApi(source))
    } else if let Some(source) = &volume.projected {
        (dir("projected"), Source::Projected(source))
    } else {
        return Err(fail(format!("{} volumes are not supported by this kubelet", unsupported(volume))));
    };
    Ok(Planned { name: &volume.name, path, source })
}

fn unsupported(volume: &Volume) -> &'static str {
    let kinds = [
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.csi.is_some(), "csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.image.is_some(), "image"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.fc.is_some(), "fc"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.git_repo.is_some(), "gitRepo"),
    ];
    kinds.into_iter().find(|(set, _)| *set).map_or("in-tree storage provider", |(_, name)| name)
}

fn empty_dir<'a>(
    source: &'a EmptyDirVolumeSource,
    pod: &Pod,
    allocatable: &NodeAllocatable,
) -> Result<Source<'a>, String> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(Source::EmptyDir { memory: None }),
        "Memory" => {
            let limit = source.size_limit.as_ref().and_then(|q| Quantity::parse(&q.0).ok());
            Ok(Source::EmptyDir { memory: Some(memory_size(limit, pod, allocatable)) })
        }
        medium if medium.starts_with("HugePages") => {
            Err(format!("emptyDir medium {medium} is not supported by this kubelet"))
        }
        medium => Err(format!("unknown storage medium {medium:?}")),
    }
}

/// The smallest of the volume's limit, the pod's memory limit and what the node has for pods; 0 when none of
/// them is known, which leaves the kernel's default (half of the memory).
fn memory_size(volume: Option<Quantity>, pod: &Pod, allocatable: &NodeAllocatable) -> i64 {
    let node = allocatable.get("memory").and_then(|q| Quantity::parse(q).ok());
    let sizes = [node, pod_memory_limit(pod), volume];
    sizes.into_iter().flatten().map(Quantity::units).filter(|n| *n > 0).min().unwrap_or(0)
}

/// The pod's memory limit, when every container has one: containers together, or the largest init container.
fn pod_memory_limit(pod: &Pod) -> Option<Quantity> {
    let spec = pod.spec.as_ref()?;
    let stated = |r: &Option<k8s_openapi::api::core::v1::ResourceRequirements>| {
        r.as_ref()?.limits.as_ref()?.get("memory").and_then(|q| Quantity::parse(&q.0).ok())
    };
    if let Some(own) = stated(&spec.resources) {
        return Some(own);
    }
    let mut sum = Quantity::ZERO;
    for container in &spec.containers {
        sum += stated(&container.resources)?;
    }
    let mut largest_init = Quantity::ZERO;
    for container in spec.init_containers.iter().flatten() {
        let limit = stated(&container.resources)?;
        if container.restart_policy.as_deref() == Some("Always") {
            sum += limit;
        } else {
            largest_init = largest_init.max(limit);
        }
    }
    Some(sum.max(largest_init))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).unwrap()
    }

    #[test]
    fn folders_are_upstreams() {
        let pod = pod(json!({"containers": [], "volumes": [
            {"name": "a", "emptyDir": {}},
            {"name": "b", "configMap": {"name": "x"}},
            {"name": "c", "secret": {"secretName": "x"}},
            {"name": "d", "projected": {"sources": []}},
            {"name": "e", "downwardAPI": {}},
            {"name": "f", "hostPath": {"path": "/x", "type": "Directory"}},
        ]}));
        let planned = plan(Path::new("/k"), &pod, &NodeAllocatable::new()).unwrap();
        let paths: Vec<_> = planned.iter().map(|p| p.path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/k/pods/u/volumes/kubernetes.io~empty-dir/a",
                "/k/pods/u/volumes/kubernetes.io~configmap/b",
                "/k/pods/u/volumes/kubernetes.io~secret/c",
                "/k/pods/u/volumes/kubernetes.io~projected/d",
                "/k/pods/u/volumes/kubernetes.io~downward-api/e",
                "/x"
            ]
        );
    }

    #[test]
    fn what_is_not_offered_is_named() {
        let check = |volume: serde_json::Value, text: &str| {
            let pod = pod(json!({"containers": [], "volumes": [volume]}));
            let error = plan(Path::new("/k"), &pod, &NodeAllocatable::new()).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        };
        check(
            json!({"name": "a", "persistentVolumeClaim": {"claimName": "x"}}),
            "persistentVolumeClaim volumes",
        );
        check(json!({"name": "a", "image": {"reference": "x"}}), "image volumes");
        check(json!({"name": "a", "hostPath": {"path": "/a/../b"}}), "must not contain '..'");
        check(json!({"name": "..", "emptyDir": {}}), "folder name");
    }

    #[test]
    fn memory_is_the_smallest_limit() {
        let node = NodeAllocatable::from([("memory".to_owned(), "1Gi".to_owned())]);
        let check = |size: Option<&str>, limits: serde_json::Value, want| {
            let mut source = json!({"medium": "Memory"});
            if let Some(size) = size {
                source["sizeLimit"] = json!(size);
            }
            let pod = pod(json!({"containers": [{"name": "c", "resources": {"limits": limits}}],
                "volumes": [{"name": "m", "emptyDir": source}]}));
            let planned = plan(Path::new("/k"), &pod, &node).unwrap();
            assert_eq!(planned[0].source, Source::EmptyDir { memory: Some(want) });
        };
        check(None, json!({}), 1 << 30);
        check(Some("1Mi"), json!({}), 1 << 20);
        check(Some("2Gi"), json!({}), 1 << 30);
        check(Some("64Mi"), json!({"memory": "32Mi"}), 32 << 20);
    }
}
