//! The rules of every kind: defaults, what a client may set, what is valid, and the subresources that are
//! no mere view of their object.
//!
//! A kind's folder answers to upstream's `pkg/apis/<group>/<version>/defaults.go`,
//! `pkg/apis/<group>/validation` and `pkg/registry/<group>/<kind>/strategy.go`. Rules are pure functions on
//! trees, gathered in one [`rules::Rules`] value per kind and in one table here. No rule knows HTTP or
//! storage; effects (service addresses) live in [`crate::resources::Hooks`], calls to other daemons in
//! custom subresources, and whatever needs to know who asks is an admission plugin.

pub mod admission_registration;
pub mod advice;
pub mod aggregation;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod checks;
pub mod conditions;
pub mod core;
#[cfg(test)]
mod defaults_tests;
pub mod deps;
pub mod devices;
#[cfg(test)]
mod facts_tests;
pub mod flow_control;
#[cfg(test)]
mod gate_tests;
pub(crate) mod gated;
pub mod names;
pub mod networking;
pub mod others;
pub mod pod_template;
pub mod policy;
pub mod rbac;
pub mod rules;
pub mod storage;
pub mod subresources;
pub(crate) mod table;
pub mod tolerance;
pub mod tree;

use std::sync::Arc;

pub use deps::{Deps, KubeletClientConfig, TokenIssuing};
use gated::Gated;
use rules::{KindStrategy, Rules, StatusRule, StatusStrategy};

use crate::fieldmanager::FieldPaths;
use crate::resources::{CustomHandlers, Strategy};

/// The strategy of a stored resource (`deployments`) or of a view of one (`deployments/status`), as
/// [`crate::resources::Table::new`] asks for them. Plain rules for a kind that has none of its own.
pub fn strategy(deps: &Arc<Deps>, group: &str, name: &str) -> Arc<dyn Strategy> {
    let (resource, view) = name.split_once('/').unwrap_or((name, ""));
    let rules = || table::rules(group, resource);
    let gated = Gated::new(Arc::clone(&deps.features), group, resource);
    match (group, resource, view) {
        ("", "services", "") => {
            Arc::new(KindStrategy::with_hooks(rules(), deps.services.clone()).gated(gated))
        }
        ("networking.k8s.io", "servicecidrs", "")
            if !deps.features.enabled("ServiceCIDRStatusFieldWiping") =>
        {
            Arc::new(KindStrategy::new(Rules { status: StatusRule::Open, ..rules() }).gated(gated))
        }
        ("" | "events.k8s.io", "events", "") => {
            Arc::new(KindStrategy::with_ttl(rules(), deps.event_ttl_seconds).gated(gated))
        }
        ("", "namespaces", "finalize") => Arc::new(core::namespace::finalize(gated)),
        ("", "pods", "ephemeralcontainers") => Arc::new(core::pod::ephemeral_containers(gated)),
        ("", "pods", "resize") => Arc::new(core::pod::resize(gated)),
        ("certificates.k8s.io", "certificatesigningrequests", "approval") => {
            Arc::new(others::certificates::approval(gated))
        }
        (_, _, "") => Arc::new(KindStrategy::new(rules()).gated(gated)),
        _ => Arc::new(StatusStrategy::new(rules(), status_resets(group, resource)).gated(gated)),
    }
}

/// What nobody comes to own through a status subresource (`GetResetFields` upstream).
fn status_resets(group: &str, resource: &str) -> FieldPaths {
    match (group, resource) {
        ("", "pods") => &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
        ("apps", "deployments") => &[&["spec"], &["metadata", "labels"]],
        ("certificates.k8s.io", "certificatesigningrequests") => &[&["spec"], &["status", "conditions"]],
        ("networking.k8s.io", "servicecidrs")
        | (
            "resource.k8s.io"
            | "flowcontrol.apiserver.k8s.io"
            | "storagemigration.k8s.io"
            | "internal.apiserver.k8s.io"
            | "admissionregistration.k8s.io"
            | "apiextensions.k8s.io"
            | "apiregistration.k8s.io",
            _,
        )
        | ("storage.k8s.io", "volumeattachments")
        | ("scheduling.k8s.io", "podgroups") => &[&["spec"], &["metadata"]],
        _ => &[&["spec"]],
    }
}

/// The handlers of everything that is no view of its object.
pub fn handlers(deps: &Arc<Deps>) -> CustomHandlers {
    subresources::handlers(deps)
}
