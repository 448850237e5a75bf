//! `scale`: the number of replicas, in the same shape for every workload.

pub(crate) mod write;

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use serde_json::{Value, json};

use super::answer;
use crate::fieldmanager::Element;
use crate::object::Object;
use crate::registry::deps::Deps;
use crate::registry::gated::Gated;
use crate::registry::pod_template::metadata::matcher;
use crate::registry::rules::KindStrategy;
use crate::registry::table;
use crate::registry::tree::{at, field, set, string_map, struct_mut};
use crate::request::Response;
use crate::resources::{Strategy, Subresource, SubresourceRequest};

use write::{Scalable, Scaled};

pub struct Scale {
    deps: Arc<Deps>,
    group: String,
    resource: String,
    strategy: KindStrategy,
}

impl Scale {
    pub fn new(deps: Arc<Deps>, group: &str, resource: &str) -> Self {
        let gated = Gated::new(Arc::clone(&deps.features), group, resource);
        let strategy = KindStrategy::new(table::rules(group, resource)).gated(gated);
        Self { deps, group: group.to_owned(), resource: resource.to_owned(), strategy }
    }
}

/// The Scale of a workload.
pub(super) fn scale_of(object: &Object) -> Value {
    let metadata = field(object, "metadata");
    let mut shown = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        set(&mut shown, key, field(metadata, key).clone());
    }
    let selector = at(object, &["spec", "selector"]);
    let selector = if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() {
        matcher(selector).to_string()
    } else {
        common::labels::Selector::from_map(&string_map(selector)).to_string()
    };
    let replicas = at(object, &["spec", "replicas"]).as_i64().unwrap_or(0);
    let running = at(object, &["status", "replicas"]).as_i64().unwrap_or(0);
    let mut spec = json!({});
    if replicas != 0 {
        set(&mut spec, "replicas", replicas);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": shown, "spec": spec,
        "status": {"replicas": running, "selector": selector}})
}

impl Scalable for Scale {
    fn scale_of(&self, object: &Object) -> Value {
        scale_of(object)
    }

    fn set_replicas(&self, object: &mut Object, replicas: i64) {
        if let Some(spec) = struct_mut(object, "spec") {
            set(spec, "replicas", replicas);
        }
    }

    fn strategy(&self) -> &dyn Strategy {
        &self.strategy
    }
}

#[async_trait]
impl Subresource for Scale {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let info = &request.ctx().info;
        let store = self.deps.registry.store(&self.group, &self.resource);
        if info.verb == "get" {
            let object = store.get(&info.namespace, &info.name, None).await?;
            return Ok(answer(200, &scale_of(&object.tree())));
        }
        let api_version = request.def.api_version();
        let path = vec![Element::field("spec"), Element::field("replicas")];
        let scaled = Scaled {
            group: self.group.clone(),
            resource: self.resource.clone(),
            mappings: vec![(api_version.clone(), Some(path))],
            api_version,
        };
        write::serve(self, scaled, store.as_ref(), self.deps.schema.clone(), request).await
    }
}

#[cfg(test)]
mod tests {
    use super::write::not_negative;
    use super::*;

    #[test]
    fn a_scale_shows_the_selector_as_text() {
        let object = json!({"metadata": {"name": "a", "namespace": "n", "resourceVersion": "5"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}}, "status": {"replicas": 2}});
        let scale = scale_of(&object);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=a"}));
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        not_negative(&scale).expect("valid");
        assert_eq!(not_negative(&json!({"spec": {"replicas": -1}})).expect_err("fewer than none").code, 422);
    }
}
