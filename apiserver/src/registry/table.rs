//! One row per kind: which rules it has.

use super::core::{config, endpoints, event, namespace, node, pod, service, storage};
use super::others::{LEASE, certificates, defaults, scheduling};
use super::rules::{Rules, StatusRule};
use super::{apps, batch, rbac};

/// The rules of one stored resource.
pub fn rules(group: &str, resource: &str) -> Rules {
    match (group, resource) {
        ("", "configmaps") => config::CONFIG_MAP,
        ("", "endpoints") => endpoints::ENDPOINTS,
        ("", "events") => event::RULES,
        ("", "limitranges") => {
            Rules { default: defaults::limit_range, create_on_update: true, ..Rules::PLAIN }
        }
        ("", "namespaces") => namespace::RULES,
        ("", "nodes") => node::RULES,
        ("", "persistentvolumeclaims") => storage::CLAIM,
        ("", "persistentvolumes") => storage::VOLUME,
        ("", "pods") => pod::RULES,
        ("", "podtemplates") => apps::POD_TEMPLATE,
        ("", "replicationcontrollers") => apps::REPLICATION_CONTROLLER,
        ("", "resourcequotas") => {
            Rules { default: defaults::resource_quota, status: StatusRule::Split, ..Rules::PLAIN }
        }
        ("", "secrets") => config::SECRET,
        ("", "serviceaccounts") => config::SERVICE_ACCOUNT,
        ("", "services") => service::RULES,
        ("admissionregistration.k8s.io", kind) => registration(kind),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            Rules { unconditional_update: false, ..Rules::SPLIT }
        }
        ("apiregistration.k8s.io", "apiservices") => Rules {
            default: defaults::api_service,
            status: StatusRule::Split,
            unconditional_update: false,
            ..Rules::PLAIN
        },
        ("apps", "controllerrevisions") => apps::CONTROLLER_REVISION,
        ("apps", "daemonsets") => apps::DAEMON_SET,
        ("apps", "deployments") => apps::DEPLOYMENT,
        ("apps", "replicasets") => apps::REPLICA_SET,
        ("apps", "statefulsets") => apps::STATEFUL_SET,
        ("autoscaling", _) => {
            Rules { default: defaults::horizontal_pod_autoscaler, status: StatusRule::Split, ..Rules::PLAIN }
        }
        ("batch", "cronjobs") => batch::CRON_JOB,
        ("batch", "jobs") => batch::JOB,
        ("certificates.k8s.io", "certificatesigningrequests") => certificates::RULES,
        ("certificates.k8s.io", "podcertificaterequests") => {
            Rules { status: StatusRule::Split, unconditional_update: false, ..Rules::PLAIN }
        }
        ("coordination.k8s.io", "leases") => LEASE,
        ("coordination.k8s.io", _) => {
            Rules { create_on_update: true, unconditional_update: false, ..Rules::PLAIN }
        }
        ("discovery.k8s.io", "endpointslices") => endpoints::SLICE,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => {
            Rules { default: defaults::flow_schema, ..Rules::SPLIT }
        }
        ("flowcontrol.apiserver.k8s.io", _) => Rules { default: defaults::priority_level, ..Rules::SPLIT },
        ("internal.apiserver.k8s.io" | "storagemigration.k8s.io", _) => {
            Rules { status: StatusRule::Split, unconditional_update: false, ..Rules::PLAIN }
        }
        ("networking.k8s.io", "ingresses") => Rules::SPLIT,
        ("networking.k8s.io", "ingressclasses") => {
            Rules { default: defaults::ingress_class, ..Rules::COUNTED }
        }
        ("networking.k8s.io", "networkpolicies") => {
            Rules { default: defaults::network_policy, ..Rules::COUNTED }
        }
        ("networking.k8s.io", "servicecidrs") => Rules { status: StatusRule::Split, ..Rules::PLAIN },
        ("node.k8s.io", "runtimeclasses") => scheduling::RUNTIME_CLASS,
        ("policy", "poddisruptionbudgets") => Rules { unconditional_update: false, ..Rules::SPLIT },
        ("rbac.authorization.k8s.io", "clusterrolebindings") => rbac::CLUSTER_BINDING,
        ("rbac.authorization.k8s.io", "clusterroles") => rbac::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "rolebindings") => rbac::BINDING,
        ("rbac.authorization.k8s.io", "roles") => rbac::ROLE,
        ("resource.k8s.io", "resourceclaims") => Rules { status: StatusRule::Split, ..Rules::PLAIN },
        ("resource.k8s.io", "deviceclasses" | "resourceslices") => Rules::COUNTED,
        ("resource.k8s.io", "devicetaintrules" | "resourcepoolstatusrequests") => Rules::SPLIT,
        ("scheduling.k8s.io", "priorityclasses") => scheduling::PRIORITY_CLASS,
        ("scheduling.k8s.io", "podgroups") => Rules { status: StatusRule::Split, ..Rules::PLAIN },
        ("storage.k8s.io", "csidrivers") => {
            Rules { default: defaults::csi_driver, unconditional_update: false, ..Rules::PLAIN }
        }
        ("storage.k8s.io", "csinodes" | "csistoragecapacities") => {
            Rules { unconditional_update: false, ..Rules::PLAIN }
        }
        ("storage.k8s.io", "storageclasses") => Rules { default: defaults::storage_class, ..Rules::PLAIN },
        ("storage.k8s.io", "volumeattachments") => {
            Rules { status: StatusRule::Split, unconditional_update: false, ..Rules::PLAIN }
        }
        _ => Rules::PLAIN,
    }
}

fn registration(resource: &str) -> Rules {
    let base = Rules { unconditional_update: false, ..Rules::COUNTED };
    match resource {
        "validatingadmissionpolicies" => {
            Rules { default: defaults::admission_policy, status: StatusRule::Split, ..base }
        }
        "mutatingadmissionpolicies" => Rules { default: defaults::admission_policy, ..base },
        "validatingwebhookconfigurations" => Rules { default: defaults::validating_webhooks, ..base },
        "mutatingwebhookconfigurations" => Rules { default: defaults::mutating_webhooks, ..base },
        _ => Rules { default: defaults::admission_policy_binding, ..base },
    }
}
