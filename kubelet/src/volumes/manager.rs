//! The volume manager: what each pod has mounted, and when its files are looked at again.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::atomic_writer::Payload;
use super::objects::{Kind, Object, ObjectError, Objects, Reference};
use super::payload::{self, Owner};
use super::plan::{self, Planned, Source};
use super::token::Tokens;
use super::{MOUNT_TIMEOUT, MountedVolume, VolumeDeps, VolumeError, host_path, setup, sub_path};

/// A running pod's files are looked at again within this range (upstream's sync period of 60 to 90 s).
const REFRESH_SECONDS: std::ops::Range<u64> = 60..90;
/// A refresh that failed is tried again after this.
const RETRY_SECONDS: u64 = 15;

struct PodVolumes {
    pod: Arc<Pod>,
    mounted: BTreeMap<String, MountedVolume>,
    refresh_at: Instant,
}

/// One per kubelet; cheap calls when nothing changed.
pub struct VolumeManager {
    deps: VolumeDeps,
    objects: Objects,
    tokens: Tokens,
    pods: Mutex<HashMap<String, PodVolumes>>,
    /// One pod's volumes are changed by one task at a time; held across awaits, hence not a plain mutex.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    wake: Arc<Notify>,
}

impl VolumeManager {
    pub fn new(deps: VolumeDeps) -> Self {
        let wake = Arc::new(Notify::new());
        Self {
            objects: Objects::new(deps.client.clone(), wake.clone()),
            tokens: Tokens::new(deps.client.clone()),
            deps,
            pods: Mutex::default(),
            turns: Mutex::default(),
            wake,
        }
    }

    /// Makes every volume of the pod ready, by name. Idempotent; called at every pod sync, so it is cheap when
    /// all is mounted. Registers the pod for refresh (the newest `pod` given wins). Records `FailedMount`.
    ///
    /// # Errors
    /// With the first volume that is not to be had, after the others were tried.
    pub async fn mount_all(&self, pod: &Arc<Pod>) -> Result<BTreeMap<String, MountedVolume>, VolumeError> {
        let uid = uid(pod);
        if let Some(mounted) = self.mounted(&uid, pod) {
            return Ok(mounted);
        }
        let turn = self.turn(&uid);
        let _held = turn.lock().await;
        if let Some(mounted) = self.mounted(&uid, pod) {
            return Ok(mounted);
        }
        let result = match tokio::time::timeout(MOUNT_TIMEOUT, self.mount(pod)).await {
            Ok(result) => result,
            Err(_) => Err(VolumeError::Timeout("context deadline exceeded".into())),
        };
        match result {
            Ok(mounted) => {
                let volumes =
                    PodVolumes { pod: pod.clone(), mounted: mounted.clone(), refresh_at: next_refresh() };
                self.pods.lock().insert(uid, volumes);
                Ok(mounted)
            }
            Err(error) => {
                self.deps.recorder.warning(&about(pod), "FailedMount", error.to_string());
                Err(error)
            }
        }
    }

    /// What is mounted already; notes the newest pod, and that its files may have changed with it.
    fn mounted(&self, uid: &str, pod: &Arc<Pod>) -> Option<BTreeMap<String, MountedVolume>> {
        let mut pods = self.pods.lock();
        let known = pods.get_mut(uid)?;
        if !Arc::ptr_eq(&known.pod, pod) {
            let (old, new) = (&known.pod.metadata, &pod.metadata);
            if old.labels != new.labels || old.annotations != new.annotations {
                known.refresh_at = Instant::now();
                self.wake.notify_one();
            }
            known.pod = pod.clone();
        }
        Some(known.mounted.clone())
    }

    fn turn(&self, uid: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.lock().entry(uid.to_owned()).or_default().clone()
    }

    async fn mount(&self, pod: &Arc<Pod>) -> Result<BTreeMap<String, MountedVolume>, VolumeError> {
        let planned = plan::plan(&self.deps.root_dir, pod, &self.deps.node_allocatable)?;
        self.objects.register(pod);
        let (mut mounted, mut failed) = (BTreeMap::new(), None);
        for volume in &planned {
            match self.set_up(pod, volume, true).await {
                Ok(_) => {
                    let ready = MountedVolume {
                        name: volume.name.to_owned(),
                        host_path: volume.path.clone(),
                        read_only: volume.source.is_payload(),
                        selinux_relabel: !matches!(volume.source, Source::HostPath { .. }),
                    };
                    mounted.insert(volume.name.to_owned(), ready);
                }
                Err(reason) => {
                    failed.get_or_insert(VolumeError::Mount { volume: volume.name.to_owned(), reason });
                }
            }
        }
        failed.map_or(Ok(mounted), Err)
    }

    /// Makes one volume, or brings its files up to date; true when something changed.
    async fn set_up(&self, pod: &Pod, volume: &Planned<'_>, fresh: bool) -> Result<bool, String> {
        let owner = Owner::of(pod);
        let path = volume.path.clone();
        match &volume.source {
            Source::EmptyDir { memory } => {
                let memory = *memory;
                let ready = plan::ready_file(&self.deps.root_dir, &uid(pod), volume.name);
                blocking(move || setup::empty_dir(&path, memory, owner, &ready).map_err(|e| e.to_string()))
                    .await?;
                Ok(false)
            }
            Source::HostPath { kind } => {
                let kind = (*kind).to_owned();
                blocking(move || host_path::check(&path, &kind)).await?;
                Ok(false)
            }
            source => {
                let payload = self.collect(pod, volume.name, source, owner, fresh).await?;
                let memory = source.in_memory();
                blocking(move || setup::files(&path, memory, owner, &payload)).await
            }
        }
    }

    async fn collect(
        &self,
        pod: &Pod,
        name: &str,
        source: &Source<'_>,
        owner: Owner,
        fresh: bool,
    ) -> Result<Payload, String> {
        let node = &self.deps.node_allocatable;
        match source {
            Source::ConfigMap(s) => {
                let items = s.items.as_deref().unwrap_or_default();
                let optional = s.optional.unwrap_or(false);
                self.object(pod, Kind::ConfigMap, &s.name, items, s.default_mode, optional, fresh).await
            }
            Source::Secret(s) => {
                let (items, name) = (s.items.as_deref().unwrap_or_default(), s.secret_name.as_deref());
                let optional = s.optional.unwrap_or(false);
                let name = name.unwrap_or_default();
                self.object(pod, Kind::Secret, name, items, s.default_mode, optional, fresh).await
            }
            Source::DownwardApi(s) => {
                payload::of_pod(pod, s.items.as_deref().unwrap_or_default(), s.default_mode, node)
            }
            Source::Projected(s) => {
                let (mut all, mut errors) = (Payload::new(), Vec::new());
                if self.deps.client.is_none() {
                    return Err(format!(
                        "cannot setup projected volume {name} because kube client is not configured"
                    ));
                }
                for part in s.sources.iter().flatten() {
                    match self.projection(pod, part, s.default_mode, owner, fresh).await {
                        Ok(files) => all.extend(files),
                        Err(error) => errors.push(error),
                    }
                }
                payload::aggregate(errors).map_or(Ok(all), Err)
            }
            Source::EmptyDir { .. } | Source::HostPath { .. } => Ok(Payload::new()),
        }
    }

    async fn projection(
        &self,
        pod: &Pod,
        part: &k8s_openapi::api::core::v1::VolumeProjection,
        default_mode: Option<i32>,
        owner: Owner,
        fresh: bool,
    ) -> Result<Payload, String> {
        if let Some(s) = &part.config_map {
            let (items, optional) = (s.items.as_deref().unwrap_or_default(), s.optional.unwrap_or(false));
            return self.object(pod, Kind::ConfigMap, &s.name, items, default_mode, optional, fresh).await;
        }
        if let Some(s) = &part.secret {
            let (items, optional) = (s.items.as_deref().unwrap_or_default(), s.optional.unwrap_or(false));
            return self.object(pod, Kind::Secret, &s.name, items, default_mode, optional, fresh).await;
        }
        if let Some(s) = &part.downward_api {
            let items = s.items.as_deref().unwrap_or_default();
            return payload::of_pod(pod, items, default_mode, &self.deps.node_allocatable);
        }
        if let Some(s) = &part.service_account_token {
            let token = self.tokens.get(pod, s).await?;
            return Ok(Payload::from([(s.path.clone(), payload::of_token(&token, default_mode, owner))]));
        }
        if part.cluster_trust_bundle.is_some() {
            return Err("clusterTrustBundle projections are not supported by this kubelet".into());
        }
        Err("this projection is not supported by this kubelet".into())
    }

    async fn object(
        &self,
        pod: &Pod,
        kind: Kind,
        name: &str,
        items: &[k8s_openapi::api::core::v1::KeyToPath],
        default_mode: Option<i32>,
        optional: bool,
        fresh: bool,
    ) -> Result<Payload, String> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let reference = Reference { kind, namespace, name: name.to_owned() };
        let object = match self.objects.get(&reference, fresh).await {
            Ok(object) => object,
            Err(ObjectError::NotFound { .. }) if optional => Arc::new(Object::default()),
            Err(error) => return Err(error.to_string()),
        };
        payload::of_object(kind, &object, items, default_mode, optional)
    }

    /// The host path of `container.volumeMounts[index]` with its subPath (already expanded) applied: created if
    /// missing, never outside the volume, bound so that a later change of a symlink cannot move it.
    ///
    /// # Errors
    /// When the path leaves the volume or cannot be made.
    pub async fn prepare_sub_path(
        &self,
        pod: &Pod,
        container: &Container,
        index: usize,
        volume: &MountedVolume,
        sub_path: &str,
    ) -> Result<PathBuf, VolumeError> {
        let target = plan::sub_path_dir(&self.deps.root_dir, &uid(pod), &volume.name, &container.name, index);
        let (base, sub, to) = (volume.host_path.clone(), sub_path.to_owned(), target.clone());
        let prepared = blocking(move || {
            let found = sub_path::open(&base, &sub)?;
            sub_path::bind(&found, &to)
        });
        prepared.await.map(|()| target).map_err(|reason: std::io::Error| VolumeError::SubPath {
            name: volume.name.clone(),
            container: container.name.clone(),
            reason: reason.to_string(),
        })
    }

    /// Tears everything of the pod down (subPaths too) and forgets it; idempotent, works after a restart of the
    /// kubelet from what is on disk.
    ///
    /// # Errors
    /// When a mount is in use; nothing is deleted through a live mount, and a later call goes on.
    pub async fn unmount_all(&self, uid: &str) -> Result<(), VolumeError> {
        let turn = self.turn(uid);
        let _held = turn.lock().await;
        self.pods.lock().remove(uid);
        self.objects.forget(uid);
        self.tokens.forget(uid);
        let (root, owned) = (self.deps.root_dir.clone(), uid.to_owned());
        blocking(move || setup::tear_down(&root, &owned)).await?;
        self.turns.lock().remove(uid);
        Ok(())
    }

    /// UIDs that still have volume folders on disk under `<root>/pods`.
    pub fn pods_on_disk(&self) -> Vec<String> {
        setup::pods_on_disk(&self.deps.root_dir)
    }

    /// Refreshes configMap, secret, projected and downwardAPI volumes until stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let next = self.pods.lock().values().map(|p| p.refresh_at).min();
            let next = next.unwrap_or_else(next_refresh);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
            let changed = self.objects.take_changed();
            let now = Instant::now();
            let due: Vec<(String, Arc<Pod>)> = {
                let pods = self.pods.lock();
                let due = pods.iter().filter(|(uid, p)| p.refresh_at <= now || changed.contains(*uid));
                due.map(|(uid, p)| (uid.clone(), p.pod.clone())).collect()
            };
            for (uid, pod) in due {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.refresh(&uid, &pod) => {}
                }
            }
        }
    }

    async fn refresh(&self, uid: &str, pod: &Arc<Pod>) {
        let turn = self.turn(uid);
        let _held = turn.lock().await;
        // It may be gone, or newer, since it was found due.
        if !self.pods.lock().contains_key(uid) {
            self.turns.lock().remove(uid);
            return;
        }
        let mut again = next_refresh();
        let planned = plan::plan(&self.deps.root_dir, pod, &self.deps.node_allocatable).unwrap_or_default();
        for volume in planned.iter().filter(|v| v.source.is_payload()) {
            match self.set_up(pod, volume, false).await {
                Ok(true) => tracing::debug!(pod = uid, volume = volume.name, "volume's files changed"),
                Ok(false) => {}
                Err(reason) => {
                    again = Instant::now() + Duration::from_secs(RETRY_SECONDS);
                    let error = VolumeError::Mount { volume: volume.name.to_owned(), reason };
                    self.deps.recorder.warning(&about(pod), "FailedMount", error.to_string());
                    tracing::warn!(pod = uid, %error, "cannot refresh a volume; its files stay as they are");
                }
            }
        }
        if let Some(known) = self.pods.lock().get_mut(uid)
            && Arc::ptr_eq(&known.pod, pod)
        {
            known.refresh_at = again;
        }
    }
}

fn next_refresh() -> Instant {
    Instant::now() + Duration::from_secs(rand::rng().random_range(REFRESH_SECONDS))
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn about(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// Runs file system work where it may block.
async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Scratch;
    use common::events::Recorder;
    use serde_json::json;

    fn manager(root: &Scratch) -> VolumeManager {
        VolumeManager::new(VolumeDeps {
            root_dir: root.path().to_owned(),
            node_name: "n".into(),
            client: None,
            recorder: Recorder::silent(),
            node_allocatable: Default::default(),
        })
    }

    fn pod(volumes: serde_json::Value) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u-1", "labels": {"a": "1"}},
            "spec": {"containers": [{"name": "c"}], "volumes": volumes}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[tokio::test]
    async fn volumes_without_the_api_are_made_and_removed() {
        let root = Scratch::new();
        let manager = manager(&root);
        let host = root.path().join("host");
        let pod = pod(json!([{"name": "e", "emptyDir": {}},
            {"name": "h", "hostPath": {"path": host, "type": "DirectoryOrCreate"}}]));
        let mounted = manager.mount_all(&pod).await.unwrap();
        assert_eq!(mounted["h"].host_path, host);
        assert!(mounted["e"].host_path.is_dir() && !mounted["e"].read_only);
        assert_eq!(manager.mount_all(&pod).await.unwrap(), mounted);
        assert_eq!(manager.pods_on_disk(), ["u-1"]);
        manager.unmount_all("u-1").await.unwrap();
        assert!(manager.pods_on_disk().is_empty() && host.is_dir());
    }

    #[tokio::test]
    async fn what_is_missing_is_told() {
        let root = Scratch::new();
        let pod = pod(json!([{"name": "c", "configMap": {"name": "x"}}]));
        let error = manager(&root).mount_all(&pod).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "MountVolume.SetUp failed for volume \"c\" : cannot read configmap \"x\": this kubelet has no API server"
        );
    }
}
