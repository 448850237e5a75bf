//! OwnerReferencesPermissionEnforcement: who makes an object deletable by another's deletion must be able to
//! delete it, and who holds an owner's deletion up must be able to set the owner's finalizers.
//!
//! Answers to `plugin/pkg/admission/gc`. Off by default.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::authorization::{self, Authorizer};
use crate::object::Object;
use crate::registry::tree::{field, flag, items, same, text};
use crate::resources::{Registry, rows};

pub struct OwnerReferencesPermissionEnforcement {
    pub registry: Arc<Registry>,
    pub authorizer: Arc<dyn Authorizer>,
}

fn owners(object: &Object) -> &[Value] {
    items(field(object, "metadata"), "ownerReferences")
}

fn changes_owners(new: &Object, old: Option<&Object>) -> bool {
    let (new, old) = (owners(new), old.map_or(&[][..], owners));
    new.len() != old.len() || new.iter().zip(old).any(|(a, b)| !same(a, b))
}

/// References that hold their owner's deletion up and did not before.
fn newly_blocking<'a>(new: &'a Object, old: Option<&Object>) -> Vec<&'a Value> {
    let old = old.map_or(&[][..], owners);
    let blocked = |reference: &Value| {
        let before = old.iter().find(|o| text(o, "uid") == text(reference, "uid"));
        before.is_some_and(|o| flag(o, "blockOwnerDeletion"))
    };
    owners(new).iter().filter(|r| flag(r, "blockOwnerDeletion") && !blocked(r)).collect()
}

impl OwnerReferencesPermissionEnforcement {
    /// `(version, resource, namespaced)` of all resources of a kind.
    fn resources_of(&self, group: &str, version: &str, kind: &str) -> Vec<(String, String, bool)> {
        let known = rows().iter().filter(|r| r.group == group && r.version == version && r.kind == kind);
        let mut found: Vec<_> =
            known.map(|r| (r.version.to_owned(), r.resource.to_owned(), r.namespaced)).collect();
        let store = self.registry.store("apiextensions.k8s.io", "customresourcedefinitions");
        for definition in store.cached_list("").iter().map(|definition| definition.tree()) {
            let spec = field(&definition, "spec");
            let names = field(spec, "names");
            let served =
                items(spec, "versions").iter().any(|v| text(v, "name") == version && flag(v, "served"));
            if text(spec, "group") == group && text(names, "kind") == kind && served {
                let namespaced = text(spec, "scope") == "Namespaced";
                found.push((version.to_owned(), text(names, "plural").to_owned(), namespaced));
            }
        }
        found
    }

    async fn decide(&self, asked: authorization::Attributes) -> Option<String> {
        let verdict = self.authorizer.authorize(&asked).await;
        (!verdict.allowed()).then_some(verdict.reason)
    }
}

#[async_trait]
impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let Some(object) = attributes.object.as_deref() else { return Ok(()) };
        let old = attributes.old_object;
        let of_kubelets = super::is_pod(attributes) && attributes.subresource == "status";
        if of_kubelets || !changes_owners(object, old) {
            return Ok(());
        }
        let refuse = super::refusal(attributes);
        let base = || authorization::Attributes {
            user: attributes.ctx.user.clone(),
            is_resource: true,
            ..authorization::Attributes::default()
        };
        if attributes.operation != Operation::Create {
            let asked = authorization::Attributes {
                verb: "delete".into(),
                namespace: attributes.namespace.clone(),
                group: attributes.resource.group.clone(),
                version: attributes.version.clone(),
                resource: attributes.resource.resource.clone(),
                subresource: attributes.subresource.clone(),
                name: attributes.name.clone(),
                ..base()
            };
            if let Some(reason) = self.decide(asked).await {
                return Err(refuse(&format!(
                    "cannot set an ownerRef on a resource you can't delete: {reason}, <nil>"
                )));
            }
        }
        let blocking = newly_blocking(object, old);
        if blocking.is_empty() {
            return Ok(());
        }
        let any = authorization::Attributes {
            verb: "update".into(),
            group: "*".into(),
            version: "*".into(),
            resource: "*".into(),
            subresource: "finalizers".into(),
            name: "*".into(),
            ..base()
        };
        if self.decide(any).await.is_none() {
            return Ok(());
        }
        for reference in blocking {
            let (api_version, kind) = (text(reference, "apiVersion"), text(reference, "kind"));
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let resources = self.resources_of(group, version, kind);
            if resources.is_empty() {
                return Err(refuse(&format!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: no matches for kind \"{kind}\" in version \"{api_version}\""
                )));
            }
            for (version, resource, namespaced) in resources {
                let asked = authorization::Attributes {
                    verb: "update".into(),
                    namespace: if namespaced { attributes.namespace.clone() } else { String::new() },
                    group: group.to_owned(),
                    version,
                    resource,
                    subresource: "finalizers".into(),
                    name: text(reference, "name").to_owned(),
                    ..base()
                };
                if let Some(reason) = self.decide(asked).await {
                    return Err(refuse(&format!(
                        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
                    )));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owned(references: Value) -> Object {
        json!({"metadata": {"name": "x", "ownerReferences": references}})
    }

    #[test]
    fn only_new_blocks_count() {
        let blocking = json!({"uid": "a", "blockOwnerDeletion": true});
        let plain = json!({"uid": "a"});
        assert!(changes_owners(&owned(json!([blocking])), None));
        assert!(!changes_owners(&owned(json!([])), None));
        assert!(!changes_owners(&owned(json!([blocking])), Some(&owned(json!([blocking])))));
        assert_eq!(newly_blocking(&owned(json!([blocking])), Some(&owned(json!([blocking])))).len(), 0);
        assert_eq!(newly_blocking(&owned(json!([blocking])), Some(&owned(json!([plain])))).len(), 1);
        assert_eq!(newly_blocking(&owned(json!([plain])), None).len(), 0);
    }
}
