//! Who may do what to device claims beyond the right to write them: ask for admin access, bind a claim, speak for a
//! driver; and who may sign the certificate of a pod.
//!
//! Upstream checks these in the strategies of the kinds (`pkg/registry/resource/utils.go`); here they are guards that
//! are always on, because they need to know who asks. Refusals are errors of fields, as there.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status};
use serde_json::Value;

use super::grants::CertificatePermission;
use super::{Attributes, Operation, Plugin};
use crate::authorization::{self, Authorizer};
use crate::features::Features;
use crate::registry::names;
use crate::registry::tree::{at, field, flag, items, same, text};
use crate::resources::Registry;

const GROUP: &str = "resource.k8s.io";
const CLAIMS: &str = "resourceclaims";
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Claims and their templates.
pub struct DeviceGrants {
    registry: Arc<Registry>,
    authorizer: Arc<dyn Authorizer>,
    /// Rights of their own for what binds a claim and what drivers say.
    granular: bool,
    /// Drivers say something at all.
    device_status: bool,
}

impl DeviceGrants {
    pub fn new(registry: Arc<Registry>, authorizer: Arc<dyn Authorizer>, features: &Features) -> Self {
        let granular = features.enabled("DRAResourceClaimGranularStatusAuthorization");
        let device_status = features.enabled("DRAResourceClaimDeviceStatus");
        Self { registry, authorizer, granular, device_status }
    }
}

#[async_trait]
impl Plugin for DeviceGrants {
    fn name(&self) -> &'static str {
        "DeviceGrants"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        if attributes.resource.group != GROUP {
            return Ok(());
        }
        let Some(new) = attributes.object.as_deref() else { return Ok(()) };
        let mut errors = FieldErrors::new();
        match (attributes.resource.resource.as_str(), attributes.subresource.as_str(), attributes.old_object)
        {
            // The spec never changes, so what was let in stays.
            (CLAIMS, "", None) => {
                self.admin_access(attributes, asked(field(new, "spec")), &mut errors).await;
            }
            ("resourceclaimtemplates", "", None) => {
                self.admin_access(attributes, asked(at(new, &["spec", "spec"])), &mut errors).await;
            }
            (CLAIMS, "status", Some(old)) => {
                let (new, old) = (field(new, "status"), field(old, "status"));
                if given(old).is_none() {
                    self.admin_access(attributes, given(new), &mut errors).await;
                }
                if self.granular {
                    self.binding(attributes, new, old, &mut errors).await;
                }
                if self.granular && self.device_status && !field(new, "allocation").is_null() {
                    self.drivers(attributes, new, old, &mut errors).await;
                }
            }
            _ => {}
        }
        refuse(attributes, &errors)
    }
}

fn refuse(attributes: &Attributes<'_>, errors: &FieldErrors) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&attributes.resource.group, &attributes.kind, &attributes.name, errors))
}

/// Where a claim's spec asks for admin access first.
fn asked(spec: &Value) -> Option<String> {
    let requests = items(field(spec, "devices"), "requests");
    let i = requests.iter().position(|request| flag(field(request, "exactly"), "adminAccess"))?;
    Some(format!("spec.devices.requests[{i}].adminAccess"))
}

/// Where an allocation gives admin access first.
fn given(status: &Value) -> Option<String> {
    let results = items(at(status, &["allocation", "devices"]), "results");
    let i = results.iter().position(|result| flag(result, "adminAccess"))?;
    Some(format!("status.allocation.devices.results[{i}].adminAccess"))
}

impl DeviceGrants {
    async fn admin_access(
        &self,
        attributes: &Attributes<'_>,
        place: Option<String>,
        errors: &mut FieldErrors,
    ) {
        let Some(place) = place else { return };
        let store = self.registry.store("", "namespaces");
        let namespace = match store.cached("", &attributes.namespace) {
            Some(found) => Some(found),
            None => store.get("", &attributes.namespace, None).await.ok(),
        };
        let labelled = namespace.is_some_and(|namespace| {
            at(&namespace.tree(), &["metadata", "labels", ADMIN_LABEL]).as_str() == Some("true")
        });
        if !labelled {
            let detail = format!(
                "admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace"
            );
            errors.forbidden(place, detail);
        }
    }

    /// Whether the caller may do this to a subresource that nobody serves; the refusal as text if not.
    async fn refusal(
        &self,
        attributes: &Attributes<'_>,
        verb: &str,
        (subresource, namespace, name): (&str, &str, &str),
    ) -> Option<String> {
        let asked = authorization::Attributes {
            verb: verb.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..authorization::Attributes::of(&attributes.ctx.info, &attributes.ctx.user)
        };
        let answer = self.authorizer.authorize(&asked).await;
        if answer.allowed() {
            return None;
        }
        let user = &attributes.ctx.user.name;
        let resource = format!("{CLAIMS}/{subresource}");
        let scope = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{namespace}\"")
        };
        let what =
            format!("User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{GROUP}\" {scope}");
        let why = if answer.reason.is_empty() { what } else { format!("{what}: {}", answer.reason) };
        Some(Status::forbidden(GROUP, CLAIMS, name, &why).message)
    }

    async fn binding(&self, attributes: &Attributes<'_>, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if ["allocation", "reservedFor"].iter().all(|key| same(field(new, key), field(old, key))) {
            return;
        }
        let verb = &attributes.ctx.info.verb;
        if let Some(why) = self.refusal(attributes, verb, ("binding", "", "")).await {
            let detail = format!(
                "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{verb}\" permission: {why}"
            );
            errors.forbidden("status.allocation", detail);
        }
    }

    /// A driver's word on its devices is given by who may speak for it: everywhere, or on the claim's own node.
    async fn drivers(&self, attributes: &Attributes<'_>, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let verb = &attributes.ctx.info.verb;
        let mut verbs = vec![format!("arbitrary-node:{verb}")];
        if on_node(attributes, node_of(field(new, "allocation"))) {
            verbs.insert(0, format!("associated-node:{verb}"));
        }
        for driver in changed_drivers(items(new, "devices"), items(old, "devices")) {
            let mut first = None;
            let mut allowed = false;
            for verb in &verbs {
                let place = ("driver", attributes.namespace.as_str(), driver);
                match self.refusal(attributes, verb, place).await {
                    None => {
                        allowed = true;
                        break;
                    }
                    Some(why) => first = first.or(Some(why)),
                }
            }
            if let Some(why) = first.filter(|_| !allowed) {
                let detail = format!(
                    "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission: {why}",
                    verbs.join(" ")
                );
                errors.forbidden("status.devices", detail);
            }
        }
    }
}

/// The drivers of devices whose status came, went or changed.
fn changed_drivers<'a>(new: &'a [Value], old: &'a [Value]) -> BTreeSet<&'a str> {
    let id = |device: &'a Value| ["driver", "pool", "device", "shareID"].map(|key| text(device, key));
    let twin = |list: &'a [Value], device: &'a Value| list.iter().find(|other| id(other) == id(device));
    let changed = new.iter().filter(|device| twin(old, device).is_none_or(|other| !same(other, device)));
    let gone = old.iter().filter(|device| twin(new, device).is_none());
    changed.chain(gone).map(|device| text(device, "driver")).collect()
}

/// The one node that an allocation names.
fn node_of(allocation: &Value) -> &str {
    let [term] = items(field(allocation, "nodeSelector"), "nodeSelectorTerms") else { return "" };
    let ([], [by_name]) = (items(term, "matchExpressions"), items(term, "matchFields")) else { return "" };
    match items(by_name, "values") {
        [Value::String(name)]
            if text(by_name, "key") == "metadata.name" && text(by_name, "operator") == "In" =>
        {
            name
        }
        _ => "",
    }
}

/// The caller is a service account whose token was made for a pod on this node.
fn on_node(attributes: &Attributes<'_>, node: &str) -> bool {
    let user = &attributes.ctx.user;
    let own = user.extra.get(NODE_NAME).map(Vec::as_slice).unwrap_or_default();
    user.name.starts_with("system:serviceaccount:")
        && names::dns1123_subdomain(node).is_empty()
        && own == [node.to_owned()]
}

/// Who may sign for pods: those with the verb `sign` on the request's signer.
pub struct PodCertificateSigning {
    pub signers: CertificatePermission,
}

#[async_trait]
impl Plugin for PodCertificateSigning {
    fn name(&self) -> &'static str {
        "PodCertificateSigning"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let resource = &attributes.resource;
        if (resource.group.as_str(), resource.resource.as_str(), attributes.subresource.as_str())
            != ("certificates.k8s.io", "podcertificaterequests", "status")
        {
            return Ok(());
        }
        let (Some(new), Some(old)) = (attributes.object.as_deref(), attributes.old_object) else {
            return Ok(());
        };
        let signer = text(field(old, "spec"), "signerName");
        let mut errors = FieldErrors::new();
        if !same(field(new, "status"), field(old, "status"))
            && !self.signers.allowed(attributes, "sign", signer).await
        {
            let user = &attributes.ctx.user.name;
            let detail = format!("User \"{user}\" is not permitted to \"sign\" for signer \"{signer}\"");
            errors.forbidden("spec.signerName", detail);
        }
        refuse(attributes, &errors)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Cluster, attributes, context, named, put};
    use super::*;
    use crate::authorization::{Authorizer, Rules, Verdict};
    use crate::request::UserInfo;
    use serde_json::json;

    /// Allows the asked (verb, subresource, namespace, name) and no other.
    struct Only(&'static [(&'static str, &'static str, &'static str, &'static str)]);

    #[async_trait]
    impl Authorizer for Only {
        async fn authorize(&self, asked: &authorization::Attributes) -> Verdict {
            let this = (
                asked.verb.as_str(),
                asked.subresource.as_str(),
                asked.namespace.as_str(),
                asked.name.as_str(),
            );
            if self.0.contains(&this) { Verdict::allow("") } else { Verdict::no_opinion("") }
        }

        fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> Rules {
            Rules::default()
        }
    }

    async fn found(only: Only, status: bool, new: Value, old: Option<Value>, label: &str) -> String {
        let features = Features::default();
        found_with(&features, only, status, new, old, label).await
    }

    async fn found_with(
        features: &Features,
        only: Only,
        status: bool,
        new: Value,
        old: Option<Value>,
        label: &str,
    ) -> String {
        let cluster = Cluster::start();
        let registry = cluster.server(&[("", "namespaces")]).await;
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1",
            "metadata": {"name": "n", "uid": "1", "labels": {ADMIN_LABEL: label}}});
        put(&[&registry], "", "namespaces", namespace).await;
        let plugin = DeviceGrants::new(registry, Arc::new(only), features);
        let mut ctx = context();
        ctx.info.verb = "update".to_owned();
        ctx.user.name = "u".to_owned();
        let mut new = named("ResourceClaim", "c", new);
        let old = old.map(|old| named("ResourceClaim", "c", old));
        let mut attributes = attributes(&ctx, (GROUP, CLAIMS), &mut new, old.as_ref());
        if status {
            attributes.subresource = "status".to_owned();
        }
        plugin.validate(&attributes).await.err().map_or(String::new(), |status| status.message)
    }

    #[tokio::test]
    async fn admin_access_needs_a_labelled_namespace() {
        let claim =
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"adminAccess": true}}]}}});
        assert_eq!(found(Only(&[]), false, claim.clone(), None, "true").await, "");
        let refused = found(Only(&[]), false, claim, None, "false").await;
        assert!(
            refused.ends_with("spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn binding_a_claim_needs_a_right_of_its_own() {
        let old = json!({"status": {}});
        let new = json!({"status": {"reservedFor": [{"resource": "pods", "name": "p", "uid": "1"}]}});
        let may = Only(&[("update", "binding", "", "")]);
        assert_eq!(found(may, true, new.clone(), Some(old.clone()), "").await, "");
        assert_eq!(found(Only(&[]), true, old.clone(), Some(old.clone()), "").await, "");
        let coarse = Features::default().with("DRAResourceClaimGranularStatusAuthorization", false);
        let allowed = found_with(&coarse, Only(&[]), true, new.clone(), Some(old.clone()), "").await;
        assert_eq!(allowed, "");
        let refused = found(Only(&[]), true, new, Some(old), "").await;
        assert!(
            refused.contains("status.allocation: Forbidden: changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"update\" permission: ")
                && refused.ends_with("User \"u\" cannot update resource \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the cluster scope"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_driver_is_spoken_for_by_those_who_may() {
        let with = |devices: Value| json!({"status": {"allocation": {"devices": {}}, "devices": devices}});
        let old = with(json!([{"driver": "d", "device": "a"}, {"driver": "e", "device": "b"}]));
        let new =
            with(json!([{"driver": "d", "device": "a", "data": {"x": 1}}, {"driver": "e", "device": "b"}]));
        let may = Only(&[("arbitrary-node:update", "driver", "n", "d")]);
        assert_eq!(found(may, true, new.clone(), Some(old.clone()), "").await, "");
        let refused = found(Only(&[]), true, new, Some(old), "").await;
        assert!(
            refused.contains("requires resource=\"resourceclaims/driver\", verb=\"[arbitrary-node:update]\"")
        );
    }

    #[test]
    fn an_allocation_names_one_node_or_none() {
        let term = |field: Value| json!({"nodeSelector": {"nodeSelectorTerms": [{"matchFields": [field]}]}});
        let named = json!({"key": "metadata.name", "operator": "In", "values": ["n1"]});
        assert_eq!(node_of(&term(named.clone())), "n1");
        let mut two = named;
        two["values"] = json!(["n1", "n2"]);
        assert_eq!(node_of(&term(two)), "");
        assert_eq!(node_of(&json!({})), "");
    }
}
