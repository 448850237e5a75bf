//! PodSecurity: namespaces say by label which of the Pod Security Standards their pods must meet.
//!
//! A pod that violates the enforced level is refused. Templates of pods are never refused, only warned about
//! and noted for audit, as their pods will be. Changing a namespace's level warns about pods that are already
//! there. The standards themselves are in [`checks`], what a label means in [`policy`]; nothing here changes
//! an object. Answers to `staging/src/k8s.io/pod-security-admission` and KEP-2579.

mod checks;
mod configuration;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::status::Status;
use serde_json::Value;

use self::checks::{Pod, evaluate};
pub use self::configuration::Configuration;
use self::policy::{Level, LevelVersion, Policy};
use super::{Attributes, Operation, Plugin};
use crate::object::{self, Object};
use crate::registry::tree::{at, field, flag, has, items, string_map, text};
use crate::resources::Registry;

/// Pods looked at when a namespace's level changes.
const NAMESPACE_PODS_MAX: usize = 3000;
/// The time that may take.
const NAMESPACE_PATIENCE: Duration = Duration::from_secs(1);

/// Subresources of pods that cannot change what a pod may do.
const IGNORED_SUBRESOURCES: [&str; 8] =
    ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// See the module.
pub struct PodSecurity {
    registry: Arc<Registry>,
    configuration: Configuration,
}

impl PodSecurity {
    pub fn new(registry: Arc<Registry>, configuration: Configuration) -> Self {
        Self { registry, configuration }
    }

    fn policy_of(&self, namespace: &Object) -> (Policy, common::status::FieldErrors) {
        Policy::of(&string_map(at(namespace, &["metadata", "labels"])), self.configuration.defaults)
    }

    async fn namespace(&self, name: &str) -> Result<Object, Status> {
        let store = self.registry.store("", "namespaces");
        let found = match store.cached("", name) {
            Some(found) => found,
            None => store
                .get("", name, None)
                .await
                .map_err(|_| Status::internal(format!("failed to lookup namespace \"{name}\"")))?,
        };
        Ok(found.tree())
    }

    /// True, and noted, when nobody looks at this request.
    fn is_exempt(&self, attributes: &Attributes<'_>) -> bool {
        let exempt = &self.configuration.exempt;
        let why = if exempt.namespaces.contains(&attributes.namespace) {
            "namespace"
        } else if exempt.usernames.contains(&attributes.ctx.user.name) {
            "user"
        } else {
            return false;
        };
        note(attributes, "exempt", why);
        true
    }

    fn namespace_changed(&self, attributes: &Attributes<'_>, namespace: &Object) -> Result<(), Status> {
        let (new, errors) = self.policy_of(namespace);
        let invalid = || Status::invalid("", "Namespace", object::name(namespace), &errors);
        let Some(old) = attributes.old_object else {
            if !errors.is_empty() {
                return Err(invalid());
            }
            self.warn_if_exempt(attributes, namespace, new);
            return Ok(());
        };
        let (before, errors_before) = self.policy_of(old);
        if !errors.is_empty() && errors != errors_before {
            return Err(invalid());
        }
        let relaxed =
            new.enforce.version == before.enforce.version && new.enforce.level <= before.enforce.level;
        if new.enforce == before.enforce || new.enforce.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if !self.warn_if_exempt(attributes, namespace, new) {
            self.check_existing(object::name(namespace), new.enforce)
                .into_iter()
                .for_each(|warning| attributes.ctx.warn(warning));
        }
        Ok(())
    }

    /// Labels of an exempt namespace have no effect; true when it is one.
    fn warn_if_exempt(&self, attributes: &Attributes<'_>, namespace: &Object, policy: Policy) -> bool {
        let name = object::name(namespace);
        if !self.configuration.exempt.namespaces.contains(name) {
            return false;
        }
        if !policy.fully_privileged() && !policy.equivalent(&self.configuration.defaults) {
            let labels = at(namespace, &["metadata", "labels"]);
            let said = |mode: &str| {
                ["", "-version"].iter().any(|end| has(labels, &format!("{}{mode}{end}", policy::PREFIX)))
            };
            let modes = [("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn)];
            let shown: Vec<String> = modes
                .iter()
                .filter(|(mode, level)| level.level != Level::Privileged && said(mode))
                .map(|(mode, level)| format!("{mode}={level}"))
                .collect();
            attributes.ctx.warn(format!(
                "namespace \"{name}\" is exempt from Pod Security, and the policy ({}) will be ignored",
                shown.join(", ")
            ));
        }
        true
    }

    /// Warnings about pods that the new level would not let in.
    fn check_existing(&self, namespace: &str, enforce: LevelVersion) -> Vec<String> {
        let began = Instant::now();
        let pods = self.registry.store("", "pods").cached_list(namespace);
        let trees = pods.iter().map(|pod| pod.tree()).filter(|pod| !self.exempt_runtime(field(pod, "spec")));
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        let mut controllers = HashSet::new();
        for pod in trees {
            // One pod of each controller tells most, so those come first.
            match controller(&pod) {
                Some(uid) if !controllers.insert(uid.clone()) => rest.push(pod),
                _ => first.push(pod),
            }
        }
        first.append(&mut rest);
        let total = first.len();
        let mut checked = 0;
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pod in first.iter().take(NAMESPACE_PODS_MAX) {
            checked += 1;
            let wrong = evaluate(enforce, Pod { metadata: field(pod, "metadata"), spec: field(pod, "spec") });
            if !wrong.is_empty() {
                let reasons: Vec<&str> = wrong.iter().map(|violation| violation.reason).collect();
                found.entry(reasons.join(", ")).or_default().insert(object::name(pod).to_owned());
            }
            if began.elapsed() > NAMESPACE_PATIENCE {
                break;
            }
        }
        existing_warnings(namespace, enforce, (checked, total), &found)
    }

    fn exempt_runtime(&self, spec: &Value) -> bool {
        self.configuration.exempt.runtime_classes.contains(text(spec, "runtimeClassName"))
    }

    /// Refuses (a pod, when `enforced`), warns and notes.
    fn decide(
        &self,
        attributes: &Attributes<'_>,
        policy: Policy,
        errors: &common::status::FieldErrors,
        pod: Pod<'_>,
        enforced: bool,
    ) -> Result<(), Status> {
        if self.exempt_runtime(pod.spec) {
            note(attributes, "exempt", "runtimeClass");
            return Ok(());
        }
        if !errors.is_empty() {
            let told: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
            note(attributes, "error", &format!("Failed to parse policy: {}", told.join(", ")));
        }
        let violations = |level: LevelVersion| -> Option<String> {
            let shown: Vec<String> = evaluate(level, pod).iter().map(checks::Violation::shown).collect();
            (!shown.is_empty()).then(|| format!("violate PodSecurity \"{level}\": {}", shown.join(", ")))
        };
        let audit = violations(policy.audit);
        if let Some(what) = &audit {
            note(attributes, "audit-violations", &format!("would {what}"));
        }
        if enforced {
            note(attributes, "enforce-policy", &policy.enforce.to_string());
            if let Some(what) = violations(policy.enforce) {
                // The verb is in the third person here: the pod violates, it does not only threaten to.
                let what = what.replacen("violate", "violates", 1);
                return Err(super::refusal(attributes)(&what));
            }
        }
        let warning = if policy.warn == policy.audit { audit } else { violations(policy.warn) };
        if let Some(what) = warning {
            attributes.ctx.warn(format!("would {what}"));
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let Some(object) = attributes.object.as_deref() else { return Ok(()) };
        let (group, resource) = (attributes.resource.group.as_str(), attributes.resource.resource.as_str());
        let sub = attributes.subresource.as_str();
        let is_pod = super::is_pod(attributes);
        let looked_at = match (group, resource) {
            ("", "namespaces") if sub.is_empty() => return self.namespace_changed(attributes, object),
            ("", "pods") => !IGNORED_SUBRESOURCES.contains(&sub),
            _ => sub.is_empty(),
        };
        let Some(pod) = pod_of(group, resource, object).filter(|_| looked_at) else { return Ok(()) };
        if self.is_exempt(attributes) {
            return Ok(());
        }
        let namespace = match self.namespace(&attributes.namespace).await {
            Ok(namespace) => namespace,
            Err(status) if is_pod => return Err(status),
            Err(status) => {
                note(attributes, "error", &status.message);
                return Ok(());
            }
        };
        let (policy, errors) = self.policy_of(&namespace);
        if errors.is_empty() && policy.fully_privileged() {
            if is_pod {
                note(attributes, "enforce-policy", &policy.enforce.to_string());
            }
            return Ok(());
        }
        if is_pod && attributes.old_object.is_some_and(|old| !is_significant(object, old)) {
            return Ok(());
        }
        self.decide(attributes, policy, &errors, pod, is_pod)
    }
}

/// What of an object is a pod or makes pods.
fn pod_of<'a>(group: &str, resource: &str, object: &'a Object) -> Option<Pod<'a>> {
    let template = match (group, resource) {
        ("", "pods") => object,
        ("", "podtemplates") => field(object, "template"),
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => at(object, &["spec", "template"]),
        ("batch", "cronjobs") => at(object, &["spec", "jobTemplate", "spec", "template"]),
        _ => return None,
    };
    let pod = Pod { metadata: field(template, "metadata"), spec: field(template, "spec") };
    (!template.is_null()).then_some(pod)
}

/// Of what may change in a pod, images and new ephemeral containers alone matter here.
fn is_significant(new: &Object, old: &Object) -> bool {
    let (new, old) = (field(new, "spec"), field(old, "spec"));
    let differ = |list: &str| {
        let (new, old) = (items(new, list), items(old, list));
        new.len() != old.len() || new.iter().zip(old).any(|(n, o)| text(n, "image") != text(o, "image"))
    };
    let known = items(old, "ephemeralContainers");
    differ("containers")
        || differ("initContainers")
        || items(new, "ephemeralContainers").iter().any(|n| {
            let same = |o: &&Value| text(o, "name") == text(n, "name");
            known.iter().find(same).is_none_or(|o| text(o, "image") != text(n, "image"))
        })
}

fn controller(pod: &Object) -> Option<String> {
    let owners = items(field(pod, "metadata"), "ownerReferences");
    owners.iter().find(|owner| flag(owner, "controller")).map(|owner| text(owner, "uid").to_owned())
}

fn existing_warnings(
    namespace: &str,
    enforce: LevelVersion,
    (checked, total): (usize, usize),
    found: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if checked < total {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    let mut by_pod: Vec<String> = found
        .iter()
        .filter_map(|(reasons, pods)| {
            let first = pods.first()?;
            Some(match pods.len() {
                1 => format!("{first}: {reasons}"),
                2 => format!("{first} (and 1 other pod): {reasons}"),
                more => format!("{first} (and {} other pods): {reasons}", more - 1),
            })
        })
        .collect();
    by_pod.sort();
    warnings.extend(by_pod);
    warnings
}

/// Adds to the request's audit annotations.
fn note(attributes: &Attributes<'_>, key: &str, value: &str) {
    attributes.ctx.annotate(format!("{}{key}", policy::PREFIX), value);
}
