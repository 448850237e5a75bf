//! ConfigMaps and Secrets that pods on this node refer to, each watched by itself while someone does.
//!
//! Answers to upstream's `pkg/kubelet/util/manager` with the Watch strategy: a node may read only objects its
//! pods name, so there is one watch per object, shared by all pods that use it, gone with the last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::payload;

/// Objects watched at a time; more are read at every refresh instead.
const WATCHES_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// One object that a pod refers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

/// What is kept of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    pub entries: BTreeMap<String, Vec<u8>>,
    pub immutable: bool,
}

impl From<ConfigMap> for Object {
    fn from(object: ConfigMap) -> Self {
        Self {
            immutable: object.immutable.unwrap_or(false),
            entries: payload::entries(object.data, object.binary_data),
        }
    }
}

impl From<Secret> for Object {
    fn from(object: Secret) -> Self {
        Self { immutable: object.immutable.unwrap_or(false), entries: payload::entries(None, object.data) }
    }
}

/// Why an object is not there; worded as upstream's object caches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    #[error("{} {name:?} not found", kind.word())]
    NotFound { kind: Kind, name: String },
    #[error("{0}")]
    Api(String),
    #[error("cannot read {} {name:?}: this kubelet has no API server", kind.word())]
    Standalone { kind: Kind, name: String },
}

/// The objects the volumes of a pod name.
pub fn references(pod: &Pod) -> BTreeSet<Reference> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let mut found = BTreeSet::new();
    let mut add = |kind, name: &str| {
        found.insert(Reference { kind, namespace: namespace.clone(), name: name.to_owned() });
    };
    for volume in pod.spec.iter().filter_map(|s| s.volumes.as_ref()).flatten() {
        if let Some(source) = &volume.config_map {
            add(Kind::ConfigMap, &source.name);
        }
        if let Some(name) = volume.secret.as_ref().and_then(|s| s.secret_name.as_ref()) {
            add(Kind::Secret, name);
        }
        let sources = volume.projected.iter().filter_map(|p| p.sources.as_ref()).flatten();
        for source in sources {
            if let Some(source) = &source.config_map {
                add(Kind::ConfigMap, &source.name);
            }
            if let Some(source) = &source.secret {
                add(Kind::Secret, &source.name);
            }
        }
    }
    found
}

#[derive(Default)]
struct Watched {
    pods: BTreeSet<String>,
    /// None until the watch has delivered; Some(None) when the object does not exist.
    latest: Option<Option<Arc<Object>>>,
    watch: Option<AbortOnDropHandle<()>>,
}

/// The cache. Its memory is bounded by what running pods refer to.
pub struct Objects {
    client: Option<kube::Client>,
    watched: Arc<Mutex<HashMap<Reference, Watched>>>,
    changed: Arc<Mutex<BTreeSet<String>>>,
    wake: Arc<Notify>,
}

impl Objects {
    /// `wake` is notified when an object of a registered pod changed.
    pub fn new(client: Option<kube::Client>, wake: Arc<Notify>) -> Self {
        Self { client, watched: Arc::default(), changed: Arc::default(), wake }
    }

    /// Starts watching what a pod refers to; idempotent.
    pub fn register(&self, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let Some(client) = &self.client else { return };
        for reference in references(pod) {
            let mut watched = self.watched.lock();
            let full = watched.len() >= WATCHES_MAX;
            let entry = watched.entry(reference.clone()).or_default();
            entry.pods.insert(uid.clone());
            if entry.watch.is_none() && !full {
                let task = tokio::spawn(self.watch(client.clone(), reference));
                entry.watch = Some(AbortOnDropHandle::new(task));
            }
        }
    }

    /// Stops watching what only this pod referred to.
    pub fn forget(&self, uid: &str) {
        self.watched.lock().retain(|_, entry| {
            entry.pods.remove(uid);
            !entry.pods.is_empty()
        });
        self.changed.lock().remove(uid);
    }

    /// Pods whose objects changed since the last call.
    pub fn take_changed(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.changed.lock())
    }

    /// The object: as the watch has it, else (and always when `fresh`) as the API server has it now.
    ///
    /// # Errors
    /// When it does not exist or cannot be read.
    pub async fn get(&self, reference: &Reference, fresh: bool) -> Result<Arc<Object>, ObjectError> {
        let (kind, name) = (reference.kind, reference.name.clone());
        let known = self.watched.lock().get(reference).and_then(|w| w.latest.clone());
        match known {
            Some(Some(object)) if !fresh || object.immutable => return Ok(object),
            Some(None) if !fresh => return Err(ObjectError::NotFound { kind, name }),
            _ => {}
        }
        let Some(client) = &self.client else { return Err(ObjectError::Standalone { kind, name }) };
        let read = match kind {
            Kind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(client.clone(), &reference.namespace);
                api.get(&name).await.map(Object::from)
            }
            Kind::Secret => {
                let api: Api<Secret> = Api::namespaced(client.clone(), &reference.namespace);
                api.get(&name).await.map(Object::from)
            }
        };
        match read {
            Ok(object) => Ok(Arc::new(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Err(ObjectError::NotFound { kind, name }),
            Err(kube::Error::Api(status)) => Err(ObjectError::Api(status.message.clone())),
            Err(error) => Err(ObjectError::Api(error.to_string())),
        }
    }

    fn watch(&self, client: kube::Client, reference: Reference) -> impl Future<Output = ()> + Send + 'static {
        let sink = Sink {
            reference: reference.clone(),
            watched: self.watched.clone(),
            changed: self.changed.clone(),
            wake: self.wake.clone(),
        };
        async move {
            let config = watcher::Config::default().fields(&format!("metadata.name={}", reference.name));
            match reference.kind {
                Kind::ConfigMap => {
                    sink.follow::<ConfigMap>(Api::namespaced(client, &reference.namespace), config).await;
                }
                Kind::Secret => {
                    sink.follow::<Secret>(Api::namespaced(client, &reference.namespace), config).await;
                }
            }
        }
    }
}

/// Where a watch puts what it sees.
struct Sink {
    reference: Reference,
    watched: Arc<Mutex<HashMap<Reference, Watched>>>,
    changed: Arc<Mutex<BTreeSet<String>>>,
    wake: Arc<Notify>,
}

impl Sink {
    async fn follow<K>(&self, api: Api<K>, config: watcher::Config)
    where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
        Object: From<K>,
    {
        let mut seen = None;
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => seen = None,
                Ok(watcher::Event::InitApply(object)) => seen = Some(object),
                Ok(watcher::Event::InitDone) => self.put(seen.take().map(Object::from)),
                Ok(watcher::Event::Apply(object)) => self.put(Some(object.into())),
                Ok(watcher::Event::Delete(_)) => self.put(None),
                Err(error) => {
                    tracing::debug!(object = ?self.reference, %error, "cannot watch an object of a volume");
                }
            }
        }
    }

    fn put(&self, object: Option<Object>) {
        let pods = {
            let mut watched = self.watched.lock();
            let Some(entry) = watched.get_mut(&self.reference) else { return };
            let same = entry.latest.as_ref().is_some_and(|known| known.as_deref() == object.as_ref());
            let first = entry.latest.is_none();
            entry.latest = Some(object.map(Arc::new));
            if same || first {
                return;
            }
            entry.pods.clone()
        };
        self.changed.lock().extend(pods);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_found_in_every_source() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "configMap": {"name": "one"}},
                {"name": "b", "secret": {"secretName": "two"}},
                {"name": "c", "projected": {"sources": [
                    {"configMap": {"name": "three"}}, {"secret": {"name": "two"}}]}},
                {"name": "d", "emptyDir": {}},
            ]},
        }))
        .unwrap();
        let names: Vec<_> = references(&pod).into_iter().map(|r| (r.kind, r.name)).collect();
        assert_eq!(
            names,
            [
                (Kind::ConfigMap, "one".to_owned()),
                (Kind::ConfigMap, "three".to_owned()),
                (Kind::Secret, "two".to_owned())
            ]
        );
    }

    #[tokio::test]
    async fn standalone_says_why() {
        let objects = Objects::new(None, Arc::default());
        let reference = Reference { kind: Kind::Secret, namespace: "n".into(), name: "s".into() };
        let error = objects.get(&reference, true).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot read secret \"s\": this kubelet has no API server");
        let missing = ObjectError::NotFound { kind: Kind::ConfigMap, name: "x".into() };
        assert_eq!(missing.to_string(), "configmap \"x\" not found");
    }
}
