//! Slim views: structs of a daemon's own with only the fields it reads, usable with `kube::Api` and `watcher`.
//!
//! A view is `#[derive(Deserialize, Clone, Debug)]` with a field `metadata: ObjectMeta` read through [`metadata`],
//! which keeps what informers need and drops the rest (managed fields are most of many objects).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer};

/// What is kept of an object's metadata.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    resource_version: Option<String>,
    #[serde(default)]
    generation: Option<i64>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    owner_references: Option<Vec<OwnerReference>>,
    #[serde(default)]
    creation_timestamp: Option<Time>,
    #[serde(default)]
    deletion_timestamp: Option<Time>,
}

/// For `#[serde(deserialize_with = "common::view::metadata")]`: metadata without managed fields and the like.
///
/// # Errors
/// When the metadata has wrong types.
pub fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let kept = Kept::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: kept.name,
        namespace: kept.namespace,
        uid: kept.uid,
        resource_version: kept.resource_version,
        generation: kept.generation,
        labels: kept.labels,
        annotations: kept.annotations,
        owner_references: kept.owner_references,
        creation_timestamp: kept.creation_timestamp,
        deletion_timestamp: kept.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

/// Makes a struct with a `metadata: ObjectMeta` field a `kube::Resource`:
/// `view_of!(PodView, Pod, kube::core::NamespaceResourceScope)`.
#[macro_export]
macro_rules! view_of {
    ($view:ty, $whole:ty, $scope:ty) => {
        impl ::kube::Resource for $view {
            type DynamicType = ();
            type Scope = $scope;
            fn kind(_: &()) -> ::std::borrow::Cow<'_, str> {
                <$whole as ::k8s_openapi::Resource>::KIND.into()
            }
            fn group(_: &()) -> ::std::borrow::Cow<'_, str> {
                <$whole as ::k8s_openapi::Resource>::GROUP.into()
            }
            fn version(_: &()) -> ::std::borrow::Cow<'_, str> {
                <$whole as ::k8s_openapi::Resource>::VERSION.into()
            }
            fn plural(_: &()) -> ::std::borrow::Cow<'_, str> {
                <$whole as ::k8s_openapi::Resource>::URL_PATH_SEGMENT.into()
            }
            fn meta(&self) -> &::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
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
        let text = r#"{"metadata":{"name":"a","resourceVersion":"7","managedFields":[{"manager":"x"}]}}"#;
        let thing: Thing = serde_json::from_str(text).expect("thing");
        assert_eq!(thing.metadata.name.as_deref(), Some("a"));
        assert_eq!(thing.metadata.resource_version.as_deref(), Some("7"));
        assert!(thing.metadata.managed_fields.is_none());
    }
}
