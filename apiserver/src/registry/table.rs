//! One row per kind: which rules it has.

use super::core::{config, endpoints, event, namespace, node, pod, quotas, service, volumes};
use super::others::{
    LEASE, LEASE_CANDIDATE, certificates, pod_certificates, pod_groups, scheduling, storage_versions,
    trust_bundles,
};
use super::rules::Rules;
use super::{
    admission_registration, aggregation, apps, autoscaling, batch, devices, flow_control, networking, policy,
    rbac, storage,
};

/// The rules of one stored resource.
pub fn rules(group: &str, resource: &str) -> Rules {
    match (group, resource) {
        ("", "configmaps") => config::CONFIG_MAP,
        ("", "endpoints") => endpoints::ENDPOINTS,
        ("", "events") => event::RULES,
        ("events.k8s.io", "events") => event::STRICT,
        ("", "limitranges") => quotas::LIMIT_RANGE,
        ("", "namespaces") => namespace::RULES,
        ("", "nodes") => node::RULES,
        ("", "persistentvolumeclaims") => volumes::CLAIM,
        ("", "persistentvolumes") => volumes::VOLUME,
        ("", "pods") => pod::RULES,
        ("", "podtemplates") => apps::POD_TEMPLATE,
        ("", "replicationcontrollers") => apps::REPLICATION_CONTROLLER,
        ("", "resourcequotas") => quotas::RESOURCE_QUOTA,
        ("", "secrets") => config::SECRET,
        ("", "serviceaccounts") => config::SERVICE_ACCOUNT,
        ("", "services") => service::RULES,
        ("admissionregistration.k8s.io", kind) => registration(kind),
        ("apiextensions.k8s.io", "customresourcedefinitions") => crate::apiextensions::definition::RULES,
        ("apiregistration.k8s.io", "apiservices") => aggregation::API_SERVICE,
        ("apps", "controllerrevisions") => apps::CONTROLLER_REVISION,
        ("apps", "daemonsets") => apps::DAEMON_SET,
        ("apps", "deployments") => apps::DEPLOYMENT,
        ("apps", "replicasets") => apps::REPLICA_SET,
        ("apps", "statefulsets") => apps::STATEFUL_SET,
        ("autoscaling", _) => autoscaling::HORIZONTAL_POD_AUTOSCALER,
        ("batch", "cronjobs") => batch::CRON_JOB,
        ("batch", "jobs") => batch::JOB,
        ("certificates.k8s.io", "certificatesigningrequests") => certificates::RULES,
        ("certificates.k8s.io", "clustertrustbundles") => trust_bundles::CLUSTER_TRUST_BUNDLE,
        ("certificates.k8s.io", "podcertificaterequests") => pod_certificates::POD_CERTIFICATE_REQUEST,
        ("coordination.k8s.io", "leases") => LEASE,
        ("coordination.k8s.io", _) => LEASE_CANDIDATE,
        ("discovery.k8s.io", "endpointslices") => endpoints::SLICE,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => flow_control::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", _) => flow_control::PRIORITY_LEVEL,
        ("internal.apiserver.k8s.io", _) => storage_versions::STORAGE_VERSION,
        ("storagemigration.k8s.io", _) => storage_versions::MIGRATION,
        ("networking.k8s.io", "ingresses") => networking::INGRESS,
        ("networking.k8s.io", "ingressclasses") => networking::INGRESS_CLASS,
        ("networking.k8s.io", "ipaddresses") => networking::IP_ADDRESS,
        ("networking.k8s.io", "networkpolicies") => networking::NETWORK_POLICY,
        ("networking.k8s.io", "servicecidrs") => networking::SERVICE_CIDR,
        ("node.k8s.io", "runtimeclasses") => scheduling::RUNTIME_CLASS,
        ("policy", "poddisruptionbudgets") => policy::POD_DISRUPTION_BUDGET,
        ("rbac.authorization.k8s.io", "clusterrolebindings") => rbac::CLUSTER_BINDING,
        ("rbac.authorization.k8s.io", "clusterroles") => rbac::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "rolebindings") => rbac::BINDING,
        ("rbac.authorization.k8s.io", "roles") => rbac::ROLE,
        ("resource.k8s.io", "deviceclasses") => devices::DEVICE_CLASS,
        ("resource.k8s.io", "resourceclaims") => devices::CLAIM,
        ("resource.k8s.io", "resourceclaimtemplates") => devices::CLAIM_TEMPLATE,
        ("resource.k8s.io", "resourceslices") => devices::SLICE,
        ("resource.k8s.io", "devicetaintrules") => devices::TAINT_RULE,
        ("resource.k8s.io", "resourcepoolstatusrequests") => devices::POOL_STATUS_REQUEST,
        ("scheduling.k8s.io", "priorityclasses") => scheduling::PRIORITY_CLASS,
        ("scheduling.k8s.io", "podgroups") => pod_groups::POD_GROUP,
        ("scheduling.k8s.io", "workloads") => pod_groups::WORKLOAD,
        ("storage.k8s.io", "csidrivers") => storage::CSI_DRIVER,
        ("storage.k8s.io", "csinodes") => storage::CSI_NODE,
        ("storage.k8s.io", "csistoragecapacities") => storage::CSI_STORAGE_CAPACITY,
        ("storage.k8s.io", "storageclasses") => storage::STORAGE_CLASS,
        ("storage.k8s.io", "volumeattachments") => storage::VOLUME_ATTACHMENT,
        ("storage.k8s.io", "volumeattributesclasses") => storage::VOLUME_ATTRIBUTES_CLASS,
        _ => Rules::PLAIN,
    }
}

fn registration(resource: &str) -> Rules {
    match resource {
        "validatingadmissionpolicies" => admission_registration::POLICY,
        "mutatingadmissionpolicies" => admission_registration::MUTATING_POLICY,
        "validatingwebhookconfigurations" => admission_registration::VALIDATING_WEBHOOKS,
        "mutatingwebhookconfigurations" => admission_registration::MUTATING_WEBHOOKS,
        "mutatingadmissionpolicybindings" => admission_registration::MUTATING_BINDING,
        _ => admission_registration::BINDING,
    }
}
