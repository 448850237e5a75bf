//! The controllers, one row each: adding one is a folder and a row.

use crate::daemon::Context;
use crate::{
    bootstrap, certificates, clusterroleaggregation, deployment, endpoint, endpointslice, garbagecollector,
    namespace, nodeipam, nodelifecycle, podgc, replicaset, resourcequota, rootca, serviceaccount,
    servicecidrs, tainteviction, volume,
};

/// One controller.
pub struct Row {
    /// As in `--controllers`.
    pub name: &'static str,
    /// Its former name, still accepted.
    pub alias: &'static str,
    /// In `kube-system`; upstream's default roles are bound to it.
    pub service_account: &'static str,
    pub start: fn(&mut Context),
    /// Whether `*` means it too.
    pub by_default: bool,
}

impl Row {
    /// Runs only when named.
    const fn when_named(self) -> Self {
        Self { by_default: false, ..self }
    }
}

const fn row(
    name: &'static str,
    alias: &'static str,
    service_account: &'static str,
    start: fn(&mut Context),
) -> Row {
    Row { name, alias, service_account, start, by_default: true }
}

/// In the order in which they start.
pub const CONTROLLERS: &[Row] = &[
    row("serviceaccount-controller", "serviceaccount", "service-account-controller", serviceaccount::start),
    row(
        "root-ca-certificate-publisher-controller",
        "root-ca-cert-publisher",
        "root-ca-cert-publisher",
        rootca::start,
    ),
    row(
        "replicationcontroller-controller",
        "replicationcontroller",
        "replication-controller",
        replicaset::start_replication,
    ),
    row("endpoints-controller", "endpoint", "endpoint-controller", endpoint::start),
    row("endpointslice-controller", "endpointslice", "endpointslice-controller", endpointslice::start),
    row("pod-garbage-collector-controller", "podgc", "pod-garbage-collector", podgc::start),
    row("resourcequota-controller", "resourcequota", "resourcequota-controller", resourcequota::start),
    row("namespace-controller", "namespace", "namespace-controller", namespace::start),
    row(
        "garbage-collector-controller",
        "garbagecollector",
        "generic-garbage-collector",
        garbagecollector::start,
    ),
    row("deployment-controller", "deployment", "deployment-controller", deployment::start),
    row("replicaset-controller", "replicaset", "replicaset-controller", replicaset::start),
    row(
        "certificatesigningrequest-signing-controller",
        "csrsigning",
        "certificate-controller",
        certificates::signer::start,
    ),
    row(
        "certificatesigningrequest-approving-controller",
        "csrapproving",
        "certificate-controller",
        certificates::approver::start,
    ),
    row(
        "certificatesigningrequest-cleaner-controller",
        "csrcleaner",
        "certificate-controller",
        certificates::cleaner::start,
    ),
    row("node-ipam-controller", "nodeipam", "node-controller", nodeipam::start),
    row("node-lifecycle-controller", "nodelifecycle", "node-controller", nodelifecycle::start),
    row("taint-eviction-controller", "taint-eviction-controller", "node-controller", tainteviction::start),
    row(
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation",
        "clusterrole-aggregation-controller",
        clusterroleaggregation::start,
    ),
    row(
        "service-cidr-controller",
        "service-cidr-controller",
        "service-cidrs-controller",
        servicecidrs::start,
    ),
    row(
        "persistentvolumeclaim-protection-controller",
        "pvc-protection",
        "pvc-protection-controller",
        volume::pvcprotection::start,
    ),
    row(
        "persistentvolume-protection-controller",
        "pv-protection",
        "pv-protection-controller",
        volume::pvprotection::start,
    ),
    row("bootstrap-signer-controller", "bootstrapsigner", "bootstrap-signer", bootstrap::signer::start)
        .when_named(),
    row("token-cleaner-controller", "tokencleaner", "token-cleaner", bootstrap::cleaner::start).when_named(),
];

/// Controllers of upstream that this daemon does not have yet; naming one is not an error.
const UPSTREAM_ONLY: &[&str] = &[
    "cronjob-controller",
    "daemonset-controller",
    "device-taint-eviction-controller",
    "disruption-controller",
    "endpointslice-mirroring-controller",
    "ephemeral-volume-controller",
    "horizontal-pod-autoscaler-controller",
    "job-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "resourceclaim-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
    "ttl-controller",
    "validatingadmissionpolicy-status-controller",
];

/// Whether `--controllers` asks for a controller: the first mention decides, then `*` for those on by default.
pub fn is_enabled(row: &Row, wanted: &[String]) -> bool {
    let mut star = false;
    for item in wanted {
        if item == row.name || item == row.alias {
            return true;
        }
        if let Some(off) = item.strip_prefix('-')
            && (off == row.name || off == row.alias)
        {
            return false;
        }
        star |= item == "*";
    }
    star && row.by_default
}

/// The first name in `--controllers` that means nothing.
pub fn unknown(wanted: &[String]) -> Option<&str> {
    wanted.iter().map(String::as_str).find(|item| {
        let name = item.strip_prefix('-').unwrap_or(item);
        name != "*"
            && !UPSTREAM_ONLY.contains(&name)
            && !CONTROLLERS.iter().any(|r| r.name == name || r.alias == name)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_selectable() {
        let names: BTreeSet<_> = CONTROLLERS.iter().map(|r| r.name).collect();
        assert_eq!(names.len(), CONTROLLERS.len());
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let gc = CONTROLLERS.iter().find(|r| r.alias == "garbagecollector").expect("row");
        assert!(is_enabled(gc, &list(&["*"])));
        assert!(!is_enabled(gc, &list(&["*", "-garbagecollector"])));
        assert!(is_enabled(gc, &list(&["garbage-collector-controller"])));
        assert!(!is_enabled(gc, &list(&["deployment"])));
        let signer = CONTROLLERS.iter().find(|r| r.alias == "bootstrapsigner").expect("row");
        assert!(!is_enabled(signer, &list(&["*"])));
        assert!(is_enabled(signer, &list(&["*", "bootstrapsigner"])));
        assert_eq!(unknown(&list(&["*", "-nonsense"])), Some("-nonsense"));
        assert_eq!(unknown(&list(&["*", "job-controller"])), None);
    }
}
