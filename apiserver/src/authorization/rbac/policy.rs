//! The compiled index: roles by name, bindings by the subjects they name.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::Deserialize;

use crate::authentication::service_account;
use crate::authorization::PolicyRule;
use crate::authorization::follow::Index;
use crate::cacher::CachedObject;
use crate::request::UserInfo;

/// The four resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Roles,
    ClusterRoles,
    RoleBindings,
    ClusterRoleBindings,
}

impl Source {
    pub const ALL: [Self; 4] =
        [Self::Roles, Self::ClusterRoles, Self::RoleBindings, Self::ClusterRoleBindings];

    pub fn resource(self) -> &'static str {
        match self {
            Self::Roles => "roles",
            Self::ClusterRoles => "clusterroles",
            Self::RoleBindings => "rolebindings",
            Self::ClusterRoleBindings => "clusterrolebindings",
        }
    }
}

/// A subject as it is looked up. Service accounts are the users they authenticate as.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    User(String),
    Group(String),
}

/// A binding as it is used.
#[derive(Debug, PartialEq, Eq)]
pub struct Binding {
    namespace: String,
    name: String,
    role_kind: String,
    role_name: String,
    /// Each subject, and how it is described.
    subjects: Vec<(Who, String)>,
}

/// A binding and the subject it applied by, described as upstream does.
pub struct Applied<'a> {
    binding: &'a Binding,
    subject: &'a str,
}

impl fmt::Display for Applied<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Binding { namespace, name, role_kind, role_name, .. } = self.binding;
        if namespace.is_empty() {
            write!(f, "ClusterRoleBinding {name:?} of {role_kind} {role_name:?} to {}", self.subject)
        } else {
            let name = format!("{name}/{namespace}");
            write!(f, "RoleBinding {name:?} of {role_kind} {role_name:?} to {}", self.subject)
        }
    }
}

type Scope = HashMap<Who, BTreeMap<String, Arc<Binding>>>;

/// See the module. Scopes: the empty namespace holds ClusterRoleBindings.
#[derive(Default)]
pub struct Policy {
    /// By storage key, to undo an entry when it changes or goes.
    entries: HashMap<String, Entry>,
    roles: HashMap<(String, String), Arc<[PolicyRule]>>,
    cluster_roles: HashMap<String, Arc<[PolicyRule]>>,
    scopes: HashMap<String, Scope>,
}

enum Entry {
    Role(String, String),
    ClusterRole(String),
    Binding(Arc<Binding>),
}

impl Policy {
    /// Calls `visit` with every role that applies to the user; stops when it returns false.
    pub fn visit(
        &self,
        user: &UserInfo,
        namespace: &str,
        mut visit: impl FnMut(Result<(Applied<'_>, Arc<[PolicyRule]>), String>) -> bool,
    ) {
        let mut subjects = vec![Who::User(user.name.clone())];
        subjects.extend(user.groups.iter().cloned().map(Who::Group));
        let scopes: &[&str] = if namespace.is_empty() { &[""] } else { &["", namespace] };
        for scope in scopes.iter().filter_map(|scope| self.scopes.get(*scope)) {
            let bindings = subjects.iter().filter_map(|who| Some((who, scope.get(who)?)));
            for (who, binding) in bindings.flat_map(|(w, map)| map.values().map(move |b| (w, b))) {
                let subject = binding.subjects.iter().find(|(s, _)| s == who).map_or("", |(_, text)| text);
                let found = self
                    .role(&binding.role_kind, &binding.role_name, &binding.namespace)
                    .map(|rules| (Applied { binding, subject }, rules));
                if !visit(found) {
                    return;
                }
            }
        }
    }

    /// The rules a binding in `namespace` refers to.
    pub fn role(&self, kind: &str, name: &str, namespace: &str) -> Result<Arc<[PolicyRule]>, String> {
        match kind {
            "ClusterRole" => self
                .cluster_roles
                .get(name)
                .cloned()
                .ok_or_else(|| format!("clusterrole.{} {name:?} not found", super::GROUP)),
            "Role" => self
                .roles
                .get(&(namespace.to_owned(), name.to_owned()))
                .cloned()
                .ok_or_else(|| format!("role.{} {name:?} not found", super::GROUP)),
            other => Err(format!("unsupported role reference kind: {other:?}")),
        }
    }

    fn put(&mut self, source: Source, object: &CachedObject) {
        self.remove(&object.key);
        let (namespace, name) = (object.namespace.clone(), object.name.clone());
        let entry = match source {
            Source::Roles | Source::ClusterRoles => {
                let Some(rules) = parse::<RoleView>(object).map(|role| role.rules.unwrap_or_default()) else {
                    return;
                };
                if source == Source::Roles {
                    self.roles.insert((namespace.clone(), name.clone()), rules.into());
                    Entry::Role(namespace, name)
                } else {
                    self.cluster_roles.insert(name.clone(), rules.into());
                    Entry::ClusterRole(name)
                }
            }
            Source::RoleBindings | Source::ClusterRoleBindings => {
                let Some(view) = parse::<BindingView>(object) else { return };
                let subjects = view
                    .subjects
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|subject| subject.who(&namespace))
                    .collect();
                let binding = Arc::new(Binding {
                    namespace,
                    name,
                    role_kind: view.role_ref.kind,
                    role_name: view.role_ref.name,
                    subjects,
                });
                let scope = self.scopes.entry(binding.namespace.clone()).or_default();
                for (who, _) in &binding.subjects {
                    scope.entry(who.clone()).or_default().insert(binding.name.clone(), Arc::clone(&binding));
                }
                Entry::Binding(binding)
            }
        };
        self.entries.insert(object.key.clone(), entry);
    }

    fn remove(&mut self, key: &str) {
        match self.entries.remove(key) {
            Some(Entry::Role(namespace, name)) => {
                self.roles.remove(&(namespace, name));
            }
            Some(Entry::ClusterRole(name)) => {
                self.cluster_roles.remove(&name);
            }
            Some(Entry::Binding(binding)) => {
                let Some(scope) = self.scopes.get_mut(&binding.namespace) else { return };
                for (who, _) in &binding.subjects {
                    if let Some(bindings) = scope.get_mut(who) {
                        bindings.remove(&binding.name);
                        if bindings.is_empty() {
                            scope.remove(who);
                        }
                    }
                }
                if scope.is_empty() {
                    self.scopes.remove(&binding.namespace);
                }
            }
            None => {}
        }
    }
}

/// Feeds the policy from one resource.
pub struct Feed {
    pub source: Source,
    pub policy: Arc<RwLock<Policy>>,
}

impl Index for Feed {
    fn put(&self, object: &CachedObject) {
        self.policy.write().put(self.source, object);
    }

    fn remove(&self, key: &str) {
        self.policy.write().remove(key);
    }
}

fn parse<T: for<'de> Deserialize<'de>>(object: &CachedObject) -> Option<T> {
    serde_json::from_slice(&object.bytes)
        .inspect_err(|error| tracing::warn!(key = object.key, %error, "ignoring an RBAC object"))
        .ok()
}

#[derive(Deserialize)]
struct RoleView {
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingView {
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
}

#[derive(Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct Subject {
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

impl Subject {
    fn who(self, binding_namespace: &str) -> Option<(Who, String)> {
        let Self { kind, name, namespace } = self;
        match kind.as_str() {
            "User" => Some((Who::User(name.clone()), format!("User {name:?}"))),
            "Group" => Some((Who::Group(name.clone()), format!("Group {name:?}"))),
            "ServiceAccount" => {
                let namespace = if namespace.is_empty() { binding_namespace.to_owned() } else { namespace };
                if namespace.is_empty() {
                    return None;
                }
                let text = format!("ServiceAccount {:?}", format!("{name}/{namespace}"));
                Some((Who::User(service_account::username(&namespace, &name)), text))
            }
            _ => None,
        }
    }
}
