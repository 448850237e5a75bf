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
use crate::cacher::{Decision, ObjectStore, Preconditions};
use crate::object::{self, Object};
use crate::registry::subresources::scale::{checked, patched};
use crate::registry::subresources::{Change, answer, query, read};
use crate::registry::tree::{field, set};
use crate::request::{ApiRequest, Response};
use crate::resources::{Strategy, Subresource, SubresourceRequest};

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

    fn changed(&self, object: &Object, wanted: &Value, had: bool) -> Result<Object, Status> {
        if !had && field(wanted, "spec").get("replicas").is_none() {
            let path = &self.paths.spec_replicas;
            return Err(Status::bad_request(format!("the spec replicas field {path:?} cannot be empty")));
        }
        let version = object::resource_version(wanted);
        if !version.is_empty() && version != object::resource_version(object) {
            return Err(Status::conflict(
                &self.group,
                &self.resource,
                object::name(object),
                "the object has been modified; please apply your changes to the latest version and try again",
            ));
        }
        let replicas = checked(wanted)?;
        let mut new = object.clone();
        let steps = paths::steps(&self.paths.spec_replicas).unwrap_or_default();
        if let Some((last, parents)) = steps.split_last() {
            let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
            object::map_at_mut(&mut new, &parents).insert(last.clone(), replicas.into());
        }
        self.strategy.prepare_for_update(&mut new, object);
        let errors = self.strategy.validate_update(&new, object);
        if !errors.is_empty() {
            return Err(Status::invalid(&self.group, &self.kind.kind, object::name(object), &errors));
        }
        Ok(new)
    }
}

#[async_trait]
impl Subresource for CustomScale {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let ctx = request.request.ctx.clone();
        let info = &ctx.info;
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
        let ApiRequest { parts, body, .. } = request.request;
        let media = crate::endpoints::negotiation::media_type(&parts.headers);
        let (whole, patch) = if info.verb == "patch" {
            (None, ApiRequest::collect_body(body).await?)
        } else {
            (Some(read(&parts.headers, body).await?), bytes::Bytes::new())
        };
        let apply = |object: Object| -> Result<Object, Status> {
            let (before, had) = self.scale_of(&object);
            let wanted = match &whole {
                Some(scale) => scale.clone(),
                None => patched(&before, &patch, &media)?,
            };
            self.changed(&object, &wanted, had)
        };
        if query(&ctx, "dryRun") == "All" {
            let object = store.get(&info.namespace, &info.name, None).await?;
            return Ok(answer(200, &self.scale_of(&apply(object.tree())?).0));
        }
        let mut change = Change(|object| Ok(Decision::Write { object: apply(object)?, ttl_seconds: None }));
        let (object, _) = store
            .guaranteed_update(&info.namespace, &info.name, &Preconditions::default(), false, &mut change)
            .await?;
        Ok(answer(200, &self.scale_of(&object.tree()).0))
    }
}
