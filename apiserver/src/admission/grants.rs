//! Who may give away what: RBAC escalation and binding, and who signs certificates for whom.
//!
//! Upstream checks RBAC in the storage of roles and bindings; here it is a plugin that is always on.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::authorization::{self, Authorizer, PolicyRule};
use crate::object::Object;
use crate::registry::tree::{field, has, items, same, set, struct_mut, text};
use crate::resources::Registry;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Nobody grants what they do not hold.
pub struct RbacEscalation {
    registry: Arc<Registry>,
    authorizer: Arc<dyn Authorizer>,
}

fn rules_of(role: &Value) -> Vec<PolicyRule> {
    items(role, "rules").iter().filter_map(|r| serde_json::from_value(r.clone()).ok()).collect()
}

/// A rule cut into single permissions, each with one verb and one object.
fn broken_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for url in &rule.non_resource_urls {
            out.push(PolicyRule {
                verbs: vec![verb.clone()],
                non_resource_urls: vec![url.clone()],
                ..PolicyRule::default()
            });
        }
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let one = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..PolicyRule::default()
                };
                if rule.resource_names.is_empty() {
                    out.push(one);
                    continue;
                }
                for name in &rule.resource_names {
                    out.push(PolicyRule { resource_names: vec![name.clone()], ..one.clone() });
                }
            }
        }
    }
    out
}

fn holds(owned: &PolicyRule, wanted: &PolicyRule) -> bool {
    let has = |list: &[String], item: &String| list.iter().any(|x| x == "*" || x == item);
    if !wanted.verbs.iter().all(|v| has(&owned.verbs, v)) {
        return false;
    }
    if let Some(url) = wanted.non_resource_urls.first() {
        return owned.non_resource_urls.iter().any(|o| {
            o == "*" || o == url || o.strip_suffix('*').is_some_and(|prefix| url.starts_with(prefix))
        });
    }
    let resource = |wanted: &String| {
        owned.resources.iter().any(|o| {
            o == "*"
                || o == wanted
                || o.strip_prefix("*/")
                    .is_some_and(|sub| wanted.split_once('/').is_some_and(|(_, s)| s == sub))
        })
    };
    let names = owned.resource_names.is_empty()
        || (!wanted.resource_names.is_empty()
            && wanted.resource_names.iter().all(|n| owned.resource_names.contains(n)));
    wanted.api_groups.iter().all(|g| has(&owned.api_groups, g))
        && wanted.resources.iter().all(resource)
        && names
}

/// What of `wanted` is not covered, merged again by everything but the verb.
fn missing(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut out: Vec<PolicyRule> = Vec::new();
    for rule in wanted.iter().flat_map(broken_down) {
        if owned.iter().any(|o| holds(o, &rule)) {
            continue;
        }
        let twin = out.iter_mut().find(|o| {
            o.api_groups == rule.api_groups
                && o.resources == rule.resources
                && o.resource_names == rule.resource_names
                && o.non_resource_urls == rule.non_resource_urls
        });
        match twin {
            Some(twin) => twin.verbs.extend(rule.verbs),
            None => out.push(rule),
        }
    }
    out
}

fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(" "))
}

/// A rule as upstream words it: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
fn compact(rule: &PolicyRule) -> String {
    let list = |items: &[String]| {
        format!("[{}]", items.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(" "))
    };
    let parts: Vec<String> = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("Verbs", &rule.verbs),
    ]
    .into_iter()
    .filter(|(_, items)| !items.is_empty())
    .map(|(name, items)| format!("{name}:{}", list(items)))
    .collect();
    format!("{{{}}}", parts.join(", "))
}

impl RbacEscalation {
    pub fn new(registry: Arc<Registry>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { registry, authorizer }
    }

    async fn allowed(&self, attributes: &Attributes<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let asked = authorization::Attributes {
            user: attributes.ctx.user.clone(),
            verb: verb.to_owned(),
            is_resource: true,
            namespace: attributes.namespace.clone(),
            group: RBAC.to_owned(),
            version: "*".to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            ..authorization::Attributes::default()
        };
        self.authorizer.authorize(&asked).await.allowed()
    }

    fn covered(&self, attributes: &Attributes<'_>, wanted: &[PolicyRule]) -> Result<(), Status> {
        let user = &attributes.ctx.user;
        let owned = self.authorizer.rules_for(user, &attributes.namespace);
        let missing = missing(&owned.rules, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut lines: Vec<String> = missing.iter().map(compact).collect();
        lines.sort();
        lines.dedup();
        let mut text = format!(
            "user \"{}\" (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            quoted(&user.groups),
            lines.join("\n")
        );
        if !owned.error.is_empty() {
            text.push_str(&format!("; resolution errors: {}", owned.error));
        }
        Err(super::refusal(attributes)(&text))
    }

    async fn role(&self, attributes: &Attributes<'_>, role: &Object) -> Result<(), Status> {
        let cluster = attributes.resource.resource == "clusterroles";
        let aggregated = cluster && has(role, "aggregationRule");
        if let Some(old) = attributes.old_object
            && same(field(old, "rules"), field(role, "rules"))
            && same(field(old, "aggregationRule"), field(role, "aggregationRule"))
        {
            return Ok(());
        }
        let resource = &attributes.resource.resource;
        if self.allowed(attributes, "escalate", resource, &attributes.name).await {
            return Ok(());
        }
        self.covered(attributes, &rules_of(role))?;
        if aggregated {
            let all = |rule: PolicyRule| PolicyRule { verbs: vec!["*".into()], ..rule };
            let full = [
                all(PolicyRule {
                    api_groups: vec!["*".into()],
                    resources: vec!["*".into()],
                    ..PolicyRule::default()
                }),
                all(PolicyRule { non_resource_urls: vec!["*".into()], ..PolicyRule::default() }),
            ];
            if self.covered(attributes, &full).is_err() {
                return Err(super::refusal(attributes)(
                    "must have cluster-admin privileges to use the aggregationRule",
                ));
            }
        }
        Ok(())
    }

    async fn binding(&self, attributes: &Attributes<'_>, binding: &Object) -> Result<(), Status> {
        if let Some(old) = attributes.old_object
            && same(field(old, "roleRef"), field(binding, "roleRef"))
            && same(field(old, "subjects"), field(binding, "subjects"))
        {
            return Ok(());
        }
        let reference = field(binding, "roleRef");
        let (kind, name) = (text(reference, "kind"), text(reference, "name"));
        let (resource, namespace) =
            if kind == "Role" { ("roles", attributes.namespace.as_str()) } else { ("clusterroles", "") };
        if self.allowed(attributes, "bind", resource, name).await {
            return Ok(());
        }
        let role = self.registry.store(RBAC, resource).get(namespace, name, None).await?;
        self.covered(attributes, &rules_of(&role.tree()))
    }
}

#[async_trait]
impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        if attributes.resource.group != RBAC || attributes.ctx.user.in_group("system:masters") {
            return Ok(());
        }
        let Some(object) = attributes.object.as_deref() else { return Ok(()) };
        match attributes.resource.resource.as_str() {
            "roles" | "clusterroles" => self.role(attributes, object).await,
            "rolebindings" | "clusterrolebindings" => self.binding(attributes, object).await,
            _ => Ok(()),
        }
    }
}

const CERTIFICATES: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";

/// Writes into a certificate signing request who asked for it.
pub struct CertificateRequester;

#[async_trait]
impl Plugin for CertificateRequester {
    fn name(&self) -> &'static str {
        "CertificateRequester"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let ours = attributes.resource.group == CERTIFICATES
            && attributes.resource.resource == REQUESTS
            && attributes.subresource.is_empty();
        if !ours {
            return Ok(());
        }
        let user = &attributes.ctx.user;
        if let Some(spec) = attributes.object.as_deref_mut().and_then(|csr| struct_mut(csr, "spec")) {
            let or_none = |value: Value, empty: bool| if empty { Value::Null } else { value };
            set(spec, "username", or_none(json!(user.name), user.name.is_empty()));
            set(spec, "uid", or_none(json!(user.uid), user.uid.is_empty()));
            set(spec, "groups", or_none(json!(user.groups), user.groups.is_empty()));
            set(spec, "extra", or_none(json!(user.extra), user.extra.is_empty()));
        }
        Ok(())
    }
}

/// CertificateApproval and CertificateSigning: only those allowed for the signer decide or sign.
pub struct CertificatePermission {
    pub authorizer: Arc<dyn Authorizer>,
    pub signing: bool,
}

impl CertificatePermission {
    pub(super) async fn allowed(&self, attributes: &Attributes<'_>, verb: &str, signer: &str) -> bool {
        let domain = signer.split_once('/').map_or(signer, |(d, _)| d);
        for name in [signer.to_owned(), format!("{domain}/*")] {
            let asked = authorization::Attributes {
                user: attributes.ctx.user.clone(),
                verb: verb.to_owned(),
                is_resource: true,
                group: CERTIFICATES.to_owned(),
                version: "*".to_owned(),
                resource: "signers".to_owned(),
                name,
                ..authorization::Attributes::default()
            };
            if self.authorizer.authorize(&asked).await.allowed() {
                return true;
            }
        }
        false
    }
}

#[async_trait]
impl Plugin for CertificatePermission {
    fn name(&self) -> &'static str {
        if self.signing { "CertificateSigning" } else { "CertificateApproval" }
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let sub = if self.signing { "status" } else { "approval" };
        let ours = attributes.resource.group == CERTIFICATES
            && attributes.resource.resource == REQUESTS
            && attributes.subresource == sub;
        let (Some(new), Some(old)) = (attributes.object.as_deref(), attributes.old_object) else {
            return Ok(());
        };
        if !ours {
            return Ok(());
        }
        let signer = text(field(old, "spec"), "signerName");
        let failed =
            |o: &Value| items(field(o, "status"), "conditions").iter().any(|c| text(c, "type") == "Failed");
        let signs = text(field(new, "status"), "certificate") != text(field(old, "status"), "certificate")
            || failed(new) != failed(old);
        if self.signing && !signs {
            return Ok(());
        }
        let verb = if self.signing { "sign" } else { "approve" };
        if self.allowed(attributes, verb, signer).await {
            return Ok(());
        }
        Err(super::refusal(attributes)(&format!(
            "user not permitted to {verb} requests with signerName \"{signer}\""
        )))
    }
}

/// Who may vouch for a signer's trust anchors.
pub struct ClusterTrustBundleAttest {
    pub signers: CertificatePermission,
    /// The feature gate.
    pub enabled: bool,
}

#[async_trait]
impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn handles(&self, operation: Operation) -> bool {
        self.enabled && matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let ours = attributes.resource.group == CERTIFICATES
            && attributes.resource.resource == "clustertrustbundles";
        let Some(bundle) = attributes.object.as_deref().filter(|_| ours) else { return Ok(()) };
        let signer = text(field(bundle, "spec"), "signerName");
        // Garbage collection and migration touch bundles without changing what they say.
        let unchanged =
            attributes.old_object.is_some_and(|old| same(field(old, "spec"), field(bundle, "spec")));
        if signer.is_empty() || unchanged || self.signers.allowed(attributes, "attest", signer).await {
            return Ok(());
        }
        Err(super::refusal(attributes)(&format!("user not permitted to attest for signerName \"{signer}\"")))
    }
}

/// Nobody gets a client certificate for system:masters.
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        use base64::Engine;
        use x509_parser::prelude::FromDer;
        let ours = attributes.resource.group == CERTIFICATES
            && attributes.resource.resource == REQUESTS
            && attributes.subresource.is_empty();
        let Some(spec) = attributes.object.as_deref().filter(|_| ours).map(|o| field(o, "spec")) else {
            return Ok(());
        };
        if text(spec, "signerName") != "kubernetes.io/kube-apiserver-client" {
            return Ok(());
        }
        let parsed = base64::engine::general_purpose::STANDARD
            .decode(text(spec, "request"))
            .ok()
            .and_then(|bytes| pem::parse(bytes).ok());
        let Some(block) = parsed else {
            return Err(super::refusal(attributes)("failed to parse CSR"));
        };
        let masters =
            x509_parser::certification_request::X509CertificationRequest::from_der(block.contents())
                .is_ok_and(|(_, csr)| {
                    csr.certification_request_info
                        .subject
                        .iter_organization()
                        .any(|o| o.as_str().is_ok_and(|o| o == "system:masters"))
                });
        if masters {
            return Err(super::refusal(attributes)(
                "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
            ));
        }
        Ok(())
    }
}

/// StorageObjectInUseProtection: claims and volumes are held until nothing uses them.
pub struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !attributes.resource.group.is_empty() || !attributes.subresource.is_empty() {
            return Ok(());
        }
        let finalizer = match attributes.resource.resource.as_str() {
            "persistentvolumeclaims" => "kubernetes.io/pvc-protection",
            "persistentvolumes" => "kubernetes.io/pv-protection",
            _ => return Ok(()),
        };
        if let Some(metadata) = attributes.object.as_deref_mut().and_then(|o| struct_mut(o, "metadata"))
            && let Some(list) = crate::registry::tree::list_mut(metadata, "finalizers")
            && !list.iter().any(|f| f == finalizer)
        {
            list.push(json!(finalizer));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> PolicyRule {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
        PolicyRule {
            verbs: own(verbs),
            api_groups: own(groups),
            resources: own(resources),
            ..PolicyRule::default()
        }
    }

    #[test]
    fn only_what_is_held_can_be_granted() {
        let owned = [rule(&["get", "list"], &[""], &["pods"])];
        assert!(missing(&owned, &[rule(&["get"], &[""], &["pods"])]).is_empty());
        let lacking = missing(&owned, &[rule(&["get", "delete", "watch"], &[""], &["pods"])]);
        let shown: Vec<String> = lacking.iter().map(compact).collect();
        assert_eq!(shown, [r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}"#]);
        assert!(missing(&[rule(&["*"], &["*"], &["*"])], &[rule(&["x"], &["y"], &["z/s"])]).is_empty());
    }
}
