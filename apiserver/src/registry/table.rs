//! One row per kind: which rules it has.

use super::names;
use super::rules::{Generation, Rules, StatusRule};

/// The rules of one stored resource.
pub fn rules(group: &str, resource: &str) -> Rules {
    match (group, resource) {
        ("", "nodes") => Rules { status: StatusRule::KeptOnCreate, ..Rules::PLAIN },
        ("", "services") => Rules {
            name: names::dns1035_label,
            create_on_update: true,
            status: StatusRule::Split,
            ..Rules::PLAIN
        },
        ("", "namespaces" | "persistentvolumes" | "persistentvolumeclaims" | "resourcequotas") => {
            Rules { status: StatusRule::Split, ..Rules::PLAIN }
        }
        ("", "endpoints" | "events" | "limitranges") => Rules { create_on_update: true, ..Rules::PLAIN },
        ("", "pods" | "replicationcontrollers") => Rules::SPLIT,
        ("", "podtemplates") => Rules::COUNTED,
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            Rules { unconditional_update: false, ..Rules::SPLIT }
        }
        ("admissionregistration.k8s.io", _) => Rules { unconditional_update: false, ..Rules::COUNTED },
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            Rules { unconditional_update: false, ..Rules::SPLIT }
        }
        ("apiregistration.k8s.io", "apiservices") => {
            Rules { status: StatusRule::Split, unconditional_update: false, ..Rules::PLAIN }
        }
        ("apps", "deployments") => Rules { generation: Generation::SpecOrAnnotations, ..Rules::SPLIT },
        ("apps", "statefulsets") => Rules { name: names::dns1123_label, ..Rules::SPLIT },
        ("apps", "daemonsets" | "replicasets") | ("batch", _) => Rules::SPLIT,
        ("autoscaling", _) => Rules { status: StatusRule::Split, ..Rules::PLAIN },
        ("certificates.k8s.io", "certificatesigningrequests") => {
            Rules { status: StatusRule::Split, ..Rules::PLAIN }
        }
        ("certificates.k8s.io", "podcertificaterequests") => {
            Rules { status: StatusRule::Split, unconditional_update: false, ..Rules::PLAIN }
        }
        ("coordination.k8s.io", _) => {
            Rules { create_on_update: true, unconditional_update: false, ..Rules::PLAIN }
        }
        ("discovery.k8s.io", "endpointslices") => {
            Rules { generation: Generation::SpecOrLabels, ..Rules::PLAIN }
        }
        ("flowcontrol.apiserver.k8s.io", _) => Rules::SPLIT,
        ("networking.k8s.io", "ingresses") => Rules::SPLIT,
        ("networking.k8s.io", "networkpolicies" | "ingressclasses") => Rules::COUNTED,
        ("networking.k8s.io", "servicecidrs") => Rules { status: StatusRule::Split, ..Rules::PLAIN },
        ("node.k8s.io", "runtimeclasses") => {
            Rules { create_on_update: true, unconditional_update: false, ..Rules::PLAIN }
        }
        ("policy", "poddisruptionbudgets") => Rules { unconditional_update: false, ..Rules::SPLIT },
        ("rbac.authorization.k8s.io", _) => {
            Rules { name: names::path_segment, create_on_update: true, ..Rules::PLAIN }
        }
        ("resource.k8s.io", "resourceclaims") => Rules { status: StatusRule::Split, ..Rules::PLAIN },
        ("resource.k8s.io", "deviceclasses" | "resourceslices") => Rules::COUNTED,
        ("resource.k8s.io", "devicetaintrules" | "resourcepoolstatusrequests") => Rules::SPLIT,
        ("scheduling.k8s.io", "priorityclasses") => Rules::COUNTED,
        ("scheduling.k8s.io", "podgroups") => Rules { status: StatusRule::Split, ..Rules::PLAIN },
        ("storage.k8s.io", "volumeattachments") => {
            Rules { status: StatusRule::Split, unconditional_update: false, ..Rules::PLAIN }
        }
        ("storage.k8s.io", "csidrivers" | "csinodes" | "csistoragecapacities") => {
            Rules { unconditional_update: false, ..Rules::PLAIN }
        }
        ("internal.apiserver.k8s.io" | "storagemigration.k8s.io", _) => {
            Rules { status: StatusRule::Split, unconditional_update: false, ..Rules::PLAIN }
        }
        _ => Rules::PLAIN,
    }
}
