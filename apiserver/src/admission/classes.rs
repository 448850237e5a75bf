//! Classes: what claims and ingresses that name none get, and which claims may grow.
//!
//! Answers to `plugin/pkg/admission/storage/storageclass/setdefault`,
//! `plugin/pkg/admission/storage/persistentvolume/resize` and `plugin/pkg/admission/network/defaultingressclass`.

use std::cmp::Reverse;
use std::sync::Arc;

use async_trait::async_trait;
use common::quota::Amount;
use common::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::object::{self, Object};
use crate::registry::tree::{annotation, at, field, flag, has, set, struct_mut, text};
use crate::resources::Registry;

const CLAIM_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

/// The newest of those marked as default by one of the annotations; of several as new, the first by name.
fn default_class(registry: &Registry, (group, resource): (&str, &str), marks: &[&str]) -> Option<String> {
    let classes = registry.store(group, resource).cached_list("");
    let marked = |class: &Object| marks.iter().any(|mark| annotation(class, mark) == Some("true"));
    classes
        .iter()
        .map(|class| class.tree())
        .filter(marked)
        .min_by_key(|class| {
            let made = object::str_at(class, &["metadata", "creationTimestamp"]).to_owned();
            (Reverse(made), object::name(class).to_owned())
        })
        .map(|class| object::name(&class).to_owned())
}

fn is_about(attributes: &Attributes<'_>, group: &str, resource: &str) -> bool {
    attributes.resource.group == group
        && attributes.resource.resource == resource
        && attributes.subresource.is_empty()
}

/// The class a claim names, in its field or in the annotation that came before it.
fn claim_class(claim: &Object) -> &str {
    annotation(claim, CLAIM_CLASS).unwrap_or_else(|| text(field(claim, "spec"), "storageClassName"))
}

pub struct DefaultStorageClass {
    pub registry: Arc<Registry>,
}

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !is_about(attributes, "", "persistentvolumeclaims") {
            return Ok(());
        }
        let Some(claim) = attributes.object.as_deref_mut() else { return Ok(()) };
        if annotation(claim, CLAIM_CLASS).is_some() || has(field(claim, "spec"), "storageClassName") {
            return Ok(());
        }
        const MARKS: [&str; 2] = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        if let Some(class) = default_class(&self.registry, ("storage.k8s.io", "storageclasses"), &MARKS)
            && let Some(spec) = struct_mut(claim, "spec")
        {
            set(spec, "storageClassName", class);
        }
        Ok(())
    }
}

pub struct PersistentVolumeClaimResize {
    pub registry: Arc<Registry>,
}

impl PersistentVolumeClaimResize {
    fn may_grow(&self, new: &Object, old: &Object) -> bool {
        let class = claim_class(new);
        !class.is_empty()
            && class == claim_class(old)
            && self
                .registry
                .store("storage.k8s.io", "storageclasses")
                .cached("", class)
                .is_some_and(|class| flag(&class.tree(), "allowVolumeExpansion"))
    }
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let (Some(new), Some(old)) = (attributes.object.as_deref(), attributes.old_object) else {
            return Ok(());
        };
        if !is_about(attributes, "", "persistentvolumeclaims") {
            return Ok(());
        }
        let size = |claim: &Value| {
            Amount::read(at(claim, &["spec", "resources", "requests", "storage"])).unwrap_or_default().value
        };
        if size(new) <= size(old) {
            return Ok(());
        }
        let refuse = super::refusal(attributes);
        if text(field(old, "status"), "phase") != "Bound" {
            return Err(refuse("Only bound persistent volume claims can be expanded"));
        }
        if !self.may_grow(new, old) {
            return Err(refuse(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
            ));
        }
        Ok(())
    }
}

pub struct DefaultIngressClass {
    pub registry: Arc<Registry>,
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !is_about(attributes, "networking.k8s.io", "ingresses") {
            return Ok(());
        }
        let Some(ingress) = attributes.object.as_deref_mut() else { return Ok(()) };
        if annotation(ingress, INGRESS_CLASS).is_some() || has(field(ingress, "spec"), "ingressClassName") {
            return Ok(());
        }
        let marks = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(class) = default_class(&self.registry, ("networking.k8s.io", "ingressclasses"), &marks)
            && let Some(spec) = struct_mut(ingress, "spec")
        {
            set(spec, "ingressClassName", class);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::{Cluster, attributes, context, put};

    fn class(kind: &str, name: &str, made: &str, mark: &str, more: Value) -> Value {
        let mut class = json!({"kind": kind, "apiVersion": "x/v1", "metadata": {"name": name, "uid": name,
            "creationTimestamp": made, "annotations": {mark: "true"}}});
        class.as_object_mut().expect("map").extend(more.as_object().cloned().unwrap_or_default());
        class
    }

    #[tokio::test]
    async fn claims_get_the_newest_default_class_and_grow_where_it_allows() {
        const MARK: &str = "storageclass.kubernetes.io/is-default-class";
        let classes = ("storage.k8s.io", "storageclasses");
        let cluster = Cluster::start();
        let server = cluster.server(&[classes]).await;
        let (old, new) = ("2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z");
        let grows = json!({"allowVolumeExpansion": true});
        for object in [
            class("StorageClass", "a", old, MARK, json!({})),
            class("StorageClass", "c", new, MARK, json!({})),
            class("StorageClass", "b", new, MARK, grows),
            class("StorageClass", "z", "2026-01-01T00:00:00Z", "other", json!({})),
        ] {
            put(&[&server], classes.0, classes.1, object).await;
        }
        let plugin = DefaultStorageClass { registry: server.clone() };
        let ctx = context();
        let claim = |spec: Value| json!({"metadata": {"name": "x"}, "spec": spec});
        let claims = ("", "persistentvolumeclaims");
        for (given, expected) in
            [(json!({}), "b"), (json!({"storageClassName": ""}), ""), (json!({"storageClassName": "a"}), "a")]
        {
            let mut object = claim(given);
            plugin.admit(&mut attributes(&ctx, claims, &mut object, None)).await.expect("admits");
            assert_eq!(object["spec"]["storageClassName"], expected);
        }
        let plugin = PersistentVolumeClaimResize { registry: server };
        let sized = |class: &str, size: &str, phase: &str| {
            json!({"metadata": {"name": "x"}, "status": {"phase": phase}, "spec": {"storageClassName": class,
                "resources": {"requests": {"storage": size}}}})
        };
        for (class, size, phase, expected) in [
            ("b", "2Gi", "Bound", ""),
            ("a", "512Mi", "Pending", ""),
            (
                "b",
                "2Gi",
                "Pending",
                "persistentvolumeclaims \"x\" is forbidden: Only bound persistent volume claims can be expanded",
            ),
            (
                "a",
                "2Gi",
                "Bound",
                "persistentvolumeclaims \"x\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
            ),
        ] {
            let (old, mut new) = (sized(class, "1Gi", phase), sized(class, size, phase));
            let told = plugin.validate(&attributes(&ctx, claims, &mut new, Some(&old))).await;
            assert_eq!(told.err().map(|s| s.message).unwrap_or_default(), expected);
        }
    }

    #[tokio::test]
    async fn ingresses_get_the_default_class() {
        const MARK: &str = "ingressclass.kubernetes.io/is-default-class";
        let classes = ("networking.k8s.io", "ingressclasses");
        let cluster = Cluster::start();
        let server = cluster.server(&[classes]).await;
        let object = class("IngressClass", "nginx", "2024-01-01T00:00:00Z", MARK, json!({}));
        put(&[&server], classes.0, classes.1, object).await;
        let plugin = DefaultIngressClass { registry: server };
        let ctx = context();
        let mut ingress = json!({"metadata": {"name": "x"}, "spec": {}});
        let about = ("networking.k8s.io", "ingresses");
        plugin.admit(&mut attributes(&ctx, about, &mut ingress, None)).await.expect("admits");
        assert_eq!(ingress["spec"]["ingressClassName"], "nginx");
        let mut old = json!({"metadata": {"name": "x", "annotations": {INGRESS_CLASS: "y"}}, "spec": {}});
        plugin.admit(&mut attributes(&ctx, about, &mut old, None)).await.expect("admits");
        assert_eq!(old["spec"], json!({}));
    }
}
