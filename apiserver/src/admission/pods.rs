//! Small plugins that fill in pods: DefaultTolerationSeconds, Priority, RuntimeClass.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, is_pod};
use crate::object::Object;
use crate::registry::tree::{
    default_to, field, flag, has, int, items, list_mut, map_mut, set, struct_mut, text,
};
use crate::resources::Registry;

/// Pods tolerate an unready or unreachable node for some time.
pub struct DefaultTolerationSeconds;

const TOLERATION_SECONDS: i64 = 300;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !is_pod(attributes) || !attributes.subresource.is_empty() {
            return Ok(());
        }
        if let Some(spec) = attributes.object.as_deref_mut().and_then(|pod| struct_mut(pod, "spec")) {
            tolerate(spec);
        }
        Ok(())
    }
}

fn tolerate(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = items(spec, "tolerations").iter().any(|t| {
            (text(t, "key") == key || text(t, "key").is_empty())
                && matches!(text(t, "effect"), "NoExecute" | "")
        });
        if !tolerated && let Some(list) = list_mut(spec, "tolerations") {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS}));
        }
    }
}

/// Turns a priority class's name into a number.
pub struct Priority {
    registry: Arc<Registry>,
}

impl Priority {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    async fn class(&self, name: &str) -> Result<Option<Object>, Status> {
        let store = self.registry.store("scheduling.k8s.io", "priorityclasses");
        if let Some(found) = store.cached("", name) {
            return Ok(Some(found.tree()));
        }
        match store.get("", name, None).await {
            Ok(found) => Ok(Some(found.tree())),
            Err(status) if status.code == 404 => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Of several defaults the lowest counts.
    fn default_class(&self) -> Option<Object> {
        self.registry
            .store("scheduling.k8s.io", "priorityclasses")
            .cached_list("")
            .iter()
            .filter(|c| c.mentions("\"globalDefault\":true"))
            .map(|c| c.tree())
            .filter(|c| flag(c, "globalDefault"))
            .min_by_key(|c| int(c, "value").unwrap_or(0))
    }
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !is_pod(attributes) || !attributes.subresource.is_empty() {
            return Ok(());
        }
        let old = attributes.old_object;
        let forbidden = super::refusal(attributes);
        let Some(spec) = attributes.object.as_deref_mut().and_then(|pod| struct_mut(pod, "spec")) else {
            return Ok(());
        };
        if let Some(old) = old {
            for key in ["priority", "preemptionPolicy"] {
                let before = field(field(old, "spec"), key).clone();
                if !before.is_null() {
                    default_to(spec, key, before);
                }
            }
            return Ok(());
        }
        let wanted = text(spec, "priorityClassName").to_owned();
        let class = if wanted.is_empty() {
            self.default_class()
        } else {
            let found = self.class(&wanted).await?;
            Some(found.ok_or_else(|| forbidden(&format!("no PriorityClass with name {wanted} was found")))?)
        };
        let (name, value, policy) = match &class {
            Some(class) => (
                crate::object::name(class).to_owned(),
                int(class, "value").unwrap_or(0),
                text(class, "preemptionPolicy").to_owned(),
            ),
            None => (String::new(), 0, "PreemptLowerPriority".to_owned()),
        };
        if let Some(given) = int(spec, "priority").filter(|p| *p != value) {
            return Err(forbidden(&format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            )));
        }
        if !name.is_empty() {
            set(spec, "priorityClassName", name);
        }
        set(spec, "priority", value);
        if !policy.is_empty() {
            let given = text(spec, "preemptionPolicy");
            if !given.is_empty() && given != policy {
                return Err(forbidden(&format!(
                    "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
                )));
            }
            set(spec, "preemptionPolicy", policy);
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let classes = attributes.resource.group == "scheduling.k8s.io"
            && attributes.resource.resource == "priorityclasses";
        let Some(class) = attributes.object.as_deref().filter(|c| classes && flag(c, "globalDefault")) else {
            return Ok(());
        };
        match self.default_class() {
            Some(other) if crate::object::name(&other) != crate::object::name(class) => {
                Err(super::refusal(attributes)(&format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    crate::object::name(&other)
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Adds what a runtime class asks of its pods: overhead, node selector, tolerations.
pub struct RuntimeClass {
    registry: Arc<Registry>,
}

impl RuntimeClass {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !is_pod(attributes) || !attributes.subresource.is_empty() {
            return Ok(());
        }
        let forbidden = super::refusal(attributes);
        let Some(spec) = attributes.object.as_deref_mut().and_then(|pod| struct_mut(pod, "spec")) else {
            return Ok(());
        };
        let name = text(spec, "runtimeClassName").to_owned();
        if name.is_empty() {
            if has(spec, "overhead") {
                return Err(forbidden(
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
                ));
            }
            return Ok(());
        }
        let store = self.registry.store("node.k8s.io", "runtimeclasses");
        let class = match store.get("", &name, Some(crate::storage::Revision(0))).await {
            Ok(class) => class.tree(),
            Err(status) if status.code == 404 => {
                return Err(forbidden(&format!("pod rejected: RuntimeClass \"{name}\" not found")));
            }
            Err(status) => return Err(status),
        };
        let overhead = field(field(&class, "overhead"), "podFixed");
        if !overhead.is_null() {
            if has(spec, "overhead") && field(spec, "overhead") != overhead {
                return Err(forbidden(
                    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
                ));
            }
            set(spec, "overhead", overhead.clone());
        }
        let scheduling = field(&class, "scheduling");
        if let Some(wanted) = field(scheduling, "nodeSelector").as_object()
            && let Some(selector) = map_mut(spec, "nodeSelector")
        {
            for (key, value) in wanted {
                if selector.get(key).is_some_and(|v| v != value) {
                    return Err(forbidden(&format!(
                        "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                        value.as_str().unwrap_or(""),
                        selector[key].as_str().unwrap_or("")
                    )));
                }
                selector.insert(key.clone(), value.clone());
            }
        }
        let more = items(scheduling, "tolerations");
        if !more.is_empty() {
            let merged = super::tolerations::merge(items(spec, "tolerations"), more);
            set(spec, "tolerations", merged);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_are_added_once() {
        let mut spec = json!({});
        tolerate(&mut spec);
        tolerate(&mut spec);
        assert_eq!(items(&spec, "tolerations").len(), 2);
        let mut spec = json!({"tolerations": [{"operator": "Exists"}]});
        tolerate(&mut spec);
        assert_eq!(items(&spec, "tolerations").len(), 1);
    }
}
