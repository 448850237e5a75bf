//! Slim views: structs of a daemon's own with only the fields it reads, usable with `kube::Api` and `watcher`.
//!
//! A view is `#[derive(Deserialize, Clone, Debug)]`, declared with [`view_of!`](crate::view_of), with a field `metadata: ObjectMeta` read through [`metadata`],
//! which keeps what informers need and drops the rest (managed fields are most of many objects). [`follow`] makes inputs of a watch.

use std::collections::BTreeMap;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::sync::mpsc;

use crate::shutdown::Tasks;

/// kubectl's copy of what was applied: as large as the object, and nobody's but kubectl's.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is kept of an object's metadata.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Kept {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
}

/// For `#[serde(deserialize_with = "common::view::metadata")]`: metadata without managed fields and the like, which
/// are not even parsed.
///
/// # Errors
/// When the metadata has wrong types.
pub fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let mut kept = Kept::deserialize(deserializer)?;
    if let Some(annotations) = &mut kept.annotations {
        annotations.remove(LAST_APPLIED);
    }
    Ok(ObjectMeta {
        name: kept.name,
        namespace: kept.namespace,
        uid: kept.uid,
        resource_version: kept.resource_version,
        generation: kept.generation,
        labels: kept.labels.filter(|m| !m.is_empty()),
        annotations: kept.annotations.filter(|m| !m.is_empty()),
        owner_references: kept.owner_references.filter(|v| !v.is_empty()),
        finalizers: kept.finalizers.filter(|v| !v.is_empty()),
        creation_timestamp: kept.creation_timestamp,
        deletion_timestamp: kept.deletion_timestamp,
        deletion_grace_period_seconds: kept.deletion_grace_period_seconds,
        ..ObjectMeta::default()
    })
}

/// Gives a struct with a `metadata: ObjectMeta` field the place in the API of the kind it is a view of:
/// `view_of!(PodView, k8s_openapi::api::core::v1::Pod)`.
#[macro_export]
macro_rules! view_of {
    ($view:ty, $whole:ty) => {
        impl ::kube::Resource for $view {
            type DynamicType = ();
            type Scope = <$whole as ::kube::Resource>::Scope;
            fn kind((): &()) -> ::std::borrow::Cow<'_, str> {
                <$whole as ::kube::Resource>::kind(&())
            }
            fn group((): &()) -> ::std::borrow::Cow<'_, str> {
                <$whole as ::kube::Resource>::group(&())
            }
            fn version((): &()) -> ::std::borrow::Cow<'_, str> {
                <$whole as ::kube::Resource>::version(&())
            }
            fn plural((): &()) -> ::std::borrow::Cow<'_, str> {
                <$whole as ::kube::Resource>::plural(&())
            }
            fn meta(&self) -> &::kube::core::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ::kube::core::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// Turns the events of a watch into a daemon's inputs until the tasks are stopped or nobody takes inputs any more.
/// `input` says what an event means, if anything. A full channel slows the watch down; a watch that breaks is
/// taken up again, with a pause that grows.
pub fn follow<K, I>(
    tasks: &Tasks,
    what: &'static str,
    api: Api<K>,
    config: watcher::Config,
    inputs: &mpsc::Sender<I>,
    mut input: impl FnMut(watcher::Event<K>) -> Option<I> + Send + 'static,
) where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + DeserializeOwned + 'static,
    I: Send + 'static,
{
    let (inputs, stop) = (inputs.clone(), tasks.stop_token());
    tasks.spawn_essential(format!("watch-{what}"), async move {
        let stream = watcher(api, config).default_backoff();
        let mut stream = std::pin::pin!(stream);
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = stop.cancelled() => return,
            };
            let input = match event {
                Some(Ok(event)) => input(event),
                Some(Err(error)) => {
                    tracing::warn!(resource = what, %error, "watch failed; trying again");
                    continue;
                }
                None => return,
            };
            if let Some(input) = input
                && inputs.send(input).await.is_err()
            {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Thing {
        #[serde(deserialize_with = "metadata")]
        metadata: ObjectMeta,
    }

    #[test]
    fn managed_fields_are_dropped() {
        let text = r#"{"metadata":{"name":"a","resourceVersion":"7","managedFields":[{"manager":"x"}],
            "annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}"},"finalizers":["f"]}}"#;
        let thing: Thing = serde_json::from_str(text).expect("thing");
        assert_eq!(thing.metadata.name.as_deref(), Some("a"));
        assert_eq!(thing.metadata.resource_version.as_deref(), Some("7"));
        assert!(thing.metadata.managed_fields.is_none() && thing.metadata.annotations.is_none());
        assert_eq!(thing.metadata.finalizers.as_deref(), Some(["f".to_owned()].as_slice()));
    }
}
