//! `scale` of a custom resource: its numbers stand where the definition says.
//!
//! Upstream: `ScaleREST` in `pkg/registry/customresource/etcd.go`.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use serde_json::{Value, json};

use super::CustomKind;
use super::paths;
use super::strategy::{CustomStrategy, ScalePaths};
use crate::cacher::ObjectStore;
use crate::fieldmanager::Element;
use crate::object::{self, Object};
use crate::registry::subresources::answer;
use crate::registry::subresources::scale::write::{self, Mappings, Scalable, Scaled};
use crate::registry::tree::{field, set};
use crate::request::Response;
use crate::resources::{Strategy, Subresource, SubresourceRequest};

/// Stands for replicas that nobody has set; a client that does not set them either leaves it.
const UNSET: i32 = i32::MIN;

pub struct CustomScale {
    kind: Arc<CustomKind>,
    paths: ScalePaths,
    strategy: CustomStrategy,
    group: String,
    resource: String,
}

impl CustomScale {
    pub fn new(
        kind: Arc<CustomKind>,
        paths: ScalePaths,
        strategy: CustomStrategy,
        group: &str,
        resource: &str,
    ) -> Self {
        Self { kind, paths, strategy, group: group.to_owned(), resource: resource.to_owned() }
    }

    /// The Scale, and whether the object says how many it wants.
    fn scale_of(&self, object: &Object) -> (Value, bool) {
        let metadata = field(object, "metadata");
        let mut shown = json!({});
        for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            set(&mut shown, key, field(metadata, key).clone());
        }
        let number = |path: &str| ScalePaths::value(object, path).as_i64();
        let wanted = number(&self.paths.spec_replicas);
        let mut spec = json!({});
        if let Some(replicas) = wanted.filter(|n| *n != 0) {
            set(&mut spec, "replicas", replicas);
        }
        let mut status = json!({"replicas": number(&self.paths.status_replicas).unwrap_or(0)});
        let selector = self.paths.selector.as_deref().map(|path| ScalePaths::value(object, path));
        if let Some(selector) = selector.and_then(Value::as_str).filter(|s| !s.is_empty()) {
            set(&mut status, "selector", selector);
        }
        let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": shown, "spec": spec,
            "status": status});
        (scale, wanted.is_some())
    }

    /// Where each version has its replicas: fields may be owned in any.
    fn mappings(&self) -> Mappings {
        let definition = self.kind.versions.definition();
        let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
        versions
            .into_iter()
            .flatten()
            .map(|version| {
                let name = version.get("name").and_then(Value::as_str).unwrap_or_default();
                let path = version.pointer("/subresources/scale/specReplicasPath").and_then(Value::as_str);
                let steps = path.and_then(|path| paths::steps(path).ok());
                let path = steps.map(|steps| steps.iter().map(|step| Element::field(step)).collect());
                (format!("{}/{name}", self.group), path)
            })
            .collect()
    }
}

impl Scalable for CustomScale {
    fn scale_of(&self, object: &Object) -> Value {
        self.scale_of(object).0
    }

    fn before(&self, object: &Object) -> Value {
        let (mut scale, found) = self.scale_of(object);
        if !found {
            set(&mut scale["spec"], "replicas", UNSET);
        }
        scale
    }

    fn check(&self, scale: &Value) -> Result<(), Status> {
        if field(field(scale, "spec"), "replicas").as_i64() == Some(UNSET.into()) {
            let path = &self.paths.spec_replicas;
            return Err(Status::bad_request(format!("the spec replicas field {path:?} cannot be empty")));
        }
        Ok(())
    }

    fn set_replicas(&self, object: &mut Object, replicas: i64) {
        let steps = paths::steps(&self.paths.spec_replicas).unwrap_or_default();
        if let Some((last, parents)) = steps.split_last() {
            let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
            object::map_at_mut(object, &parents).insert(last.clone(), replicas.into());
        }
    }

    fn strategy(&self) -> &dyn Strategy {
        &self.strategy
    }
}

#[async_trait]
impl Subresource for CustomScale {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let info = &request.ctx().info;
        let store: &Arc<dyn ObjectStore> = self.kind.store();
        if info.verb == "get" {
            let object = store.get(&info.namespace, &info.name, None).await?.tree();
            let (scale, found) = self.scale_of(&object);
            if !found {
                let path = &self.paths.spec_replicas;
                return Err(Status::internal(format!("the spec replicas field {path:?} does not exist")));
            }
            return Ok(answer(200, &scale));
        }
        let scaled = Scaled {
            group: self.group.clone(),
            resource: self.resource.clone(),
            api_version: request.def.api_version(),
            mappings: self.mappings(),
        };
        let schema = self.kind.versions.builtin().clone();
        write::serve(self, scaled, store.as_ref(), schema, request).await
    }
}
