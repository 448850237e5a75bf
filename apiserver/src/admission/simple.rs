//! Plugins that fit on a page and are off by default: AlwaysAdmit, AlwaysDeny, AlwaysPullImages,
//! DenyServiceExternalIPs, NamespaceExists, NamespaceAutoProvision.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, is_pod};
use crate::object::Object;
use crate::registry::tree::{field, has, items, items_mut, set, strings, struct_mut, text};
use crate::resources::Registry;

/// Lets everything pass.
pub struct AlwaysAdmit;

#[async_trait]
impl Plugin for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }

    fn handles(&self, _operation: Operation) -> bool {
        false
    }
}

/// Lets nothing pass.
pub struct AlwaysDeny;

#[async_trait]
impl Plugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn handles(&self, _operation: Operation) -> bool {
        true
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        self.validate(attributes).await
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        Err(super::refusal(attributes)("admission control is denying all modifications"))
    }
}

/// Images are pulled each time, with the pod's own credentials.
pub struct AlwaysPullImages;

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Pods, but for updates that bring no image.
fn brings_images(attributes: &Attributes<'_>) -> bool {
    if !is_pod(attributes) || !attributes.subresource.is_empty() {
        return false;
    }
    let Some(old) = attributes.old_object else { return true };
    let images = |pod: &Object| -> Vec<String> {
        let spec = field(pod, "spec");
        CONTAINERS.iter().flat_map(|l| items(spec, l)).map(|c| text(c, "image").to_owned()).collect()
    };
    let known = images(old);
    attributes.object.as_deref().is_some_and(|new| images(new).iter().any(|image| !known.contains(image)))
}

#[async_trait]
impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !brings_images(attributes) {
            return Ok(());
        }
        if let Some(spec) = attributes.object.as_deref_mut().and_then(|pod| struct_mut(pod, "spec")) {
            for list in CONTAINERS {
                items_mut(spec, list).iter_mut().for_each(|c| set(c, "imagePullPolicy", "Always"));
            }
            for volume in items_mut(spec, "volumes") {
                if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
                    set(image, "pullPolicy", "Always");
                }
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = attributes.object.as_deref().filter(|_| brings_images(attributes)) else {
            return Ok(());
        };
        let told = unpulled(field(pod, "spec"));
        let messages: Vec<String> =
            told.0.iter().map(|error| super::refusal(attributes)(&error.to_string()).message).collect();
        match messages.as_slice() {
            [] => Ok(()),
            [_] => Err(super::refusal(attributes)(&told.0[0].to_string())),
            several => Err(Status::failure(500, "", format!("[{}]", several.join(", ")))),
        }
    }
}

fn unpulled(spec: &Value) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for list in CONTAINERS {
        for (i, container) in items(spec, list).iter().enumerate() {
            let policy = text(container, "imagePullPolicy");
            if policy != "Always" {
                errors.not_supported(format!("spec.{list}[{i}].imagePullPolicy"), policy, &["Always"]);
            }
        }
    }
    for (i, volume) in items(spec, "volumes").iter().enumerate() {
        let policy = text(field(volume, "image"), "pullPolicy");
        if has(volume, "image") && policy != "Always" {
            errors.not_supported(format!("spec.volumes[{i}].image.pullPolicy"), policy, &["Always"]);
        }
    }
    errors
}

/// No service gets an external address that it did not have.
pub struct DenyServiceExternalIPs;

#[async_trait]
impl Plugin for DenyServiceExternalIPs {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let about = attributes.resource.group.is_empty()
            && attributes.resource.resource == "services"
            && attributes.subresource.is_empty();
        let Some(service) = attributes.object.as_deref().filter(|_| about) else { return Ok(()) };
        let addresses = |service: &Object| -> Vec<String> {
            strings(field(service, "spec"), "externalIPs").into_iter().map(str::to_owned).collect()
        };
        let known = attributes.old_object.map(addresses).unwrap_or_default();
        if addresses(service).iter().all(|address| known.contains(address)) {
            return Ok(());
        }
        Err(super::refusal(attributes)("Use of external IPs is denied by admission control"))
    }
}

/// Nothing is done in a namespace that does not exist.
pub struct NamespaceExists {
    pub registry: Arc<Registry>,
}

/// Of requests in a namespace, those that are not about the namespace itself.
fn is_within_namespace(attributes: &Attributes<'_>) -> bool {
    let itself = attributes.resource.group.is_empty() && attributes.resource.resource == "namespaces";
    !attributes.namespace.is_empty() && !itself
}

#[async_trait]
impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let store = self.registry.store("", "namespaces");
        let name = attributes.namespace.as_str();
        if is_within_namespace(attributes) && store.cached("", name).is_none() {
            store.get("", name, None).await?;
        }
        Ok(())
    }
}

/// A namespace is made when the first object is.
pub struct NamespaceAutoProvision {
    pub registry: Arc<Registry>,
}

#[async_trait]
impl Plugin for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let store = self.registry.store("", "namespaces");
        let name = attributes.namespace.as_str();
        if attributes.dry_run || !is_within_namespace(attributes) || store.cached("", name).is_some() {
            return Ok(());
        }
        let made = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name,
            "uid": uuid::Uuid::new_v4().to_string(), "creationTimestamp": made,
            "labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        match store.create(&namespace, None).await {
            Ok(_) => Ok(()),
            Err(status) if status.code == 409 => Ok(()),
            Err(status) => Err(super::refusal(attributes)(&status.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Cluster, attributes, context};

    #[tokio::test]
    async fn images_are_always_pulled() {
        let ctx = context();
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"image": "a"}],
            "ephemeralContainers": [{"image": "b", "imagePullPolicy": "Never"}],
            "volumes": [{"name": "v", "image": {"pullPolicy": "Never"}}]}});
        let told = unpulled(&pod["spec"]);
        assert_eq!(
            told.0[1].to_string(),
            "spec.ephemeralContainers[0].imagePullPolicy: Unsupported value: \"Never\": supported values: \"Always\""
        );
        AlwaysPullImages.admit(&mut attributes(&ctx, ("", "pods"), &mut pod, None)).await.expect("admits");
        assert!(unpulled(&pod["spec"]).is_empty());
        let old = pod.clone();
        pod["spec"]["containers"][0]["imagePullPolicy"] = json!("Never");
        let kept = AlwaysPullImages.validate(&attributes(&ctx, ("", "pods"), &mut pod, Some(&old))).await;
        assert!(kept.is_ok());
    }

    #[tokio::test]
    async fn external_addresses_are_not_added() {
        let ctx = context();
        let service = |list: Value| json!({"metadata": {"name": "s"}, "spec": {"externalIPs": list}});
        let (old, mut new) = (service(json!(["1.1.1.1"])), service(json!(["1.1.1.1"])));
        let about = ("", "services");
        let plugin = DenyServiceExternalIPs;
        assert!(plugin.validate(&attributes(&ctx, about, &mut new, Some(&old))).await.is_ok());
        let told = plugin.validate(&attributes(&ctx, about, &mut new, None)).await.expect_err("denied");
        assert_eq!(
            told.message,
            "services \"s\" is forbidden: Use of external IPs is denied by admission control"
        );
    }

    #[tokio::test]
    async fn namespaces_are_made_on_demand() {
        let cluster = Cluster::start();
        let registry = cluster.server(&[("", "namespaces")]).await;
        let ctx = context();
        let mut object = json!({"metadata": {"name": "x"}});
        let about = ("", "configmaps");
        let exists = NamespaceExists { registry: registry.clone() };
        let told = exists.validate(&attributes(&ctx, about, &mut object, None)).await.expect_err("missing");
        assert_eq!(told.message, "namespaces \"n\" not found");
        let made = NamespaceAutoProvision { registry };
        made.admit(&mut attributes(&ctx, about, &mut object, None)).await.expect("made");
        made.admit(&mut attributes(&ctx, about, &mut object, None)).await.expect("there");
        exists.validate(&attributes(&ctx, about, &mut object, None)).await.expect("there");
    }
}
