//! What a kubelet may do: the node's own objects, and what the pods bound to it refer to.
//!
//! Answers to `plugin/pkg/auth/authorizer/node` upstream, wording included. The relations come from [`graph`],
//! fed by watches; resources that need no relation are allowed by the rules of the `system:node` role.

mod graph;
mod references;

use std::sync::Arc;

use async_trait::async_trait;
use common::fields::FieldSelector;
use common::shutdown::Tasks;
use parking_lot::RwLock;

use self::graph::{Feed, Graph, Kind};
use super::{Attributes, Authorizer, Followers, PolicyRule, Rules, Verdict, rbac};
use crate::request::UserInfo;
use crate::resources::{GroupResource, Registry};

/// Node users are `system:node:<name>` in this group.
pub const NODES_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node a user is: `None` for other users, an empty name for a member of the group without one.
pub fn node_identity(user: &UserInfo) -> Option<&str> {
    if !user.in_group(NODES_GROUP) {
        return None;
    }
    user.name.strip_prefix(NODE_USER_PREFIX)
}

/// See the module.
pub struct NodeAuthorizer {
    graph: Arc<RwLock<Graph>>,
    rules: Vec<PolicyRule>,
}

impl NodeAuthorizer {
    /// `rules` are those of the `system:node` role. Starts the watches that feed the graph, for as many of the
    /// related resources as the registry stores.
    pub fn start(rules: Vec<PolicyRule>, registry: &Registry, followers: &Followers, tasks: &Tasks) -> Self {
        let graph = Arc::<RwLock<Graph>>::default();
        for source in graph::Source::ALL {
            let (group, resource) = source.resource();
            if let Some(store) = registry.get(&GroupResource::new(group, resource)) {
                let feed = Feed { source, graph: Arc::clone(&graph) };
                followers.follow(tasks, &format!("{resource} of nodes"), Arc::clone(store), feed);
            }
        }
        Self { graph, rules }
    }

    fn related(&self, node: &str, kind: Kind, attributes: &Attributes) -> Verdict {
        if attributes.name.is_empty() {
            return no("No Object name found");
        }
        if self.graph.read().related(node, kind, &attributes.namespace, &attributes.name) {
            yes()
        } else {
            no(format!("no relationship found between node '{node}' and this object"))
        }
    }

    fn get(&self, node: &str, kind: Kind, attributes: &Attributes) -> Verdict {
        if attributes.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(node, kind, attributes)
    }

    fn read_namespaced(&self, node: &str, kind: Kind, attributes: &Attributes) -> Verdict {
        if !attributes.is_read_only() {
            return no("can only read resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if attributes.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(node, kind, attributes)
    }

    fn claim_status(&self, node: &str, attributes: &Attributes) -> Verdict {
        if !matches!(attributes.verb.as_str(), "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        self.related(node, Kind::Claim, attributes)
    }

    fn service_account(&self, node: &str, attributes: &Attributes) -> Verdict {
        if attributes.verb == "get" && attributes.subresource.is_empty() {
            return self.read_namespaced(node, Kind::ServiceAccount, attributes);
        }
        if attributes.verb != "create" || attributes.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if attributes.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(node, Kind::ServiceAccount, attributes)
    }

    fn pod(&self, node: &str, attributes: &Attributes) -> Verdict {
        match (attributes.subresource.as_str(), attributes.verb.as_str()) {
            ("", "get") => self.get(node, Kind::Pod, attributes),
            ("", "list" | "watch") => {
                if selects(attributes, "spec.nodeName", node) {
                    yes()
                } else if !attributes.name.is_empty() {
                    self.related(node, Kind::Pod, attributes)
                } else {
                    no("can only list/watch pods with spec.nodeName field selector")
                }
            }
            // What may be created, changed and evicted is NodeRestriction's to limit.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => yes(),
            _ => no(""),
        }
    }

    fn resource_slice(&self, node: &str, attributes: &Attributes) -> Verdict {
        if !attributes.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match attributes.verb.as_str() {
            "create" => yes(),
            "get" | "update" | "patch" | "delete" => self.related(node, Kind::ResourceSlice, attributes),
            "watch" | "list" | "deletecollection" if selects(attributes, "spec.nodeName", node) => yes(),
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, attributes: &Attributes) -> Verdict {
        if !attributes.user.in_group(NODES_GROUP) {
            return no("");
        }
        let node = match node_identity(&attributes.user) {
            Some(node) if !node.is_empty() => node,
            // Not every member of the group is a node; one named like a node but without name is refused.
            Some(_) => return no(format!("unknown node for user {:?}", attributes.user.name)),
            None => return no(""),
        };
        if attributes.is_resource {
            let a = attributes;
            match (a.group.as_str(), a.resource.as_str()) {
                ("", "secrets") => return self.read_namespaced(node, Kind::Secret, a),
                ("", "configmaps") => return self.read_namespaced(node, Kind::ConfigMap, a),
                ("", "persistentvolumeclaims") if a.subresource == "status" => {
                    return self.claim_status(node, a);
                }
                ("", "persistentvolumeclaims") => return self.get(node, Kind::Claim, a),
                ("", "persistentvolumes") => return self.get(node, Kind::Volume, a),
                ("resource.k8s.io", "resourceclaims") => {
                    return self.get(node, Kind::ResourceClaim, a);
                }
                ("storage.k8s.io", "volumeattachments") => return self.get(node, Kind::Attachment, a),
                ("", "serviceaccounts") => return self.service_account(node, a),
                ("coordination.k8s.io", "leases") => return lease(node, a),
                ("storage.k8s.io", "csinodes") => return csi_node(node, a),
                ("resource.k8s.io", "resourceslices") => return self.resource_slice(node, a),
                ("", "nodes") => return own_node(node, a),
                ("", "pods") => return self.pod(node, a),
                _ => {}
            }
        }
        if rbac::rules_allow(attributes, &self.rules) { yes() } else { no("") }
    }

    fn rules_for(&self, user: &UserInfo, _: &str) -> Rules {
        match node_identity(user) {
            Some(_) => Rules {
                incomplete: true,
                error: "node authorizer does not support user rule resolution".into(),
                ..Default::default()
            },
            None => Rules::default(),
        }
    }
}

fn yes() -> Verdict {
    Verdict::allow("")
}

fn no(reason: impl Into<String>) -> Verdict {
    Verdict::no_opinion(reason)
}

fn selects(attributes: &Attributes, field: &str, value: &str) -> bool {
    FieldSelector::parse(&attributes.field_selector)
        .is_ok_and(|selector| selector.required(field) == Some(value))
}

const OWN_OBJECT_VERBS: [&str; 5] = ["get", "create", "update", "patch", "delete"];

fn lease(node: &str, attributes: &Attributes) -> Verdict {
    if !OWN_OBJECT_VERBS.contains(&attributes.verb.as_str()) {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if attributes.namespace != LEASE_NAMESPACE {
        return no(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    // The name is not known on create; NodeRestriction checks it.
    if attributes.verb != "create" && attributes.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    yes()
}

fn csi_node(node: &str, attributes: &Attributes) -> Verdict {
    if !OWN_OBJECT_VERBS.contains(&attributes.verb.as_str()) {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !attributes.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if attributes.verb != "create" && attributes.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    yes()
}

fn own_node(node: &str, attributes: &Attributes) -> Verdict {
    match (attributes.subresource.as_str(), attributes.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => yes(),
        ("", "get" | "list" | "watch") => match attributes.name.as_str() {
            name if name == node => yes(),
            "" => no(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => no(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => no(""),
    }
}

#[cfg(test)]
mod tests;
