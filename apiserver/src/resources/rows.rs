//! The rows: every built-in kind, one literal line of facts each.
//!
//! Order is that of discovery: groups by upstream's priority, the preferred version first.

use super::convert::{self, EVENTS, HORIZONTAL_POD_AUTOSCALERS};
use super::fields::{self, Selectable};
use super::{Conversion, GroupResource};

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const VIEW: &[&str] = &["get", "patch", "update"];

/// One served version of one built-in resource.
#[derive(Clone, Copy)]
pub struct Row {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub resource: &'static str,
    pub singular: &'static str,
    pub namespaced: bool,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub verbs: &'static [&'static str],
    pub subresources: &'static [SubresourceRow],
    pub fields: &'static Selectable,
    pub storage: Storage,
    /// A delete at once answers with the object instead of a Status (`ReturnDeletedObject` upstream).
    pub returns_deleted: bool,
    /// The feature gate without which it is not served.
    pub gate: Option<&'static str>,
}

/// How a row is kept.
#[derive(Clone, Copy)]
pub enum Storage {
    /// In its own form, at this path below the prefix.
    Own(&'static str),
    /// In the form of another row.
    As { group: &'static str, version: &'static str, resource: &'static str, conversion: &'static Conversion },
    /// Not at all: a custom handler answers.
    None,
}

/// One subresource of a row.
#[derive(Clone, Copy)]
pub struct SubresourceRow {
    pub name: &'static str,
    /// Empty for the kind of the resource itself.
    pub kind: &'static str,
    /// Group and version of `kind` where they are not the resource's.
    pub group_version: Option<(&'static str, &'static str)>,
    pub verbs: &'static [&'static str],
    /// A view of the object, served by the generic handlers; otherwise a custom handler.
    pub view: bool,
}

/// What a store must know of a stored resource.
#[derive(Clone)]
pub struct StoredResource {
    pub id: GroupResource,
    pub version: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    /// Below the prefix: `pods`, `minions`, `services/specs`.
    pub storage_prefix: &'static str,
    /// Selectable fields beside metadata.name and metadata.namespace, read from the stored form.
    pub selectable_fields: fn(&crate::object::Object) -> Vec<(&'static str, String)>,
    pub selectable_field_names: &'static [&'static str],
}

/// Every row, in discovery order.
pub fn rows() -> &'static [Row] {
    ROWS
}

/// Every stored resource: one store each.
pub fn stored() -> impl Iterator<Item = StoredResource> {
    ROWS.iter().filter_map(|row| match row.storage {
        Storage::Own(storage_prefix) => Some(StoredResource {
            id: GroupResource::new(row.group, row.resource),
            version: row.version,
            kind: row.kind,
            namespaced: row.namespaced,
            storage_prefix,
            selectable_fields: row.fields.read,
            selectable_field_names: row.fields.names,
        }),
        Storage::As { .. } | Storage::None => None,
    })
}

impl Row {
    /// The group, version and resource in whose form and place objects of this row are kept.
    pub fn stored_at(&self) -> Option<(&'static str, &'static str, &'static str)> {
        match self.storage {
            Storage::Own(_) => Some((self.group, self.version, self.resource)),
            Storage::As { group, version, resource, .. } => Some((group, version, resource)),
            Storage::None => None,
        }
    }

    const fn gate(mut self, name: &'static str) -> Self {
        self.gate = Some(name);
        self
    }

    const fn unstored(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self.storage = Storage::None;
        self
    }

    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    const fn categories(mut self, names: &'static [&'static str]) -> Self {
        self.categories = names;
        self
    }

    const fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }

    const fn review(mut self) -> Self {
        self.verbs = &["create"];
        self.storage = Storage::None;
        self
    }

    const fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    const fn prefix(mut self, path: &'static str) -> Self {
        self.storage = Storage::Own(path);
        self
    }

    const fn fields(mut self, fields: &'static Selectable) -> Self {
        self.fields = fields;
        self
    }

    const fn stored_as(
        mut self,
        group: &'static str,
        version: &'static str,
        resource: &'static str,
        conversion: &'static Conversion,
    ) -> Self {
        self.storage = Storage::As { group, version, resource, conversion };
        self
    }

    const fn subresources(mut self, rows: &'static [SubresourceRow]) -> Self {
        self.subresources = rows;
        self
    }
}

impl SubresourceRow {
    const fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }

    const fn of(mut self, group: &'static str, version: &'static str) -> Self {
        self.group_version = Some((group, version));
        self
    }
}

const fn row(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    resource: &'static str,
    singular: &'static str,
    namespaced: bool,
) -> Row {
    Row {
        group,
        version,
        kind,
        resource,
        singular,
        namespaced,
        short_names: &[],
        categories: &[],
        verbs: ALL,
        subresources: &[],
        fields: &fields::NONE,
        storage: Storage::Own(resource),
        returns_deleted: false,
        gate: None,
    }
}

const fn namespaced(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    resource: &'static str,
    singular: &'static str,
) -> Row {
    row(group, version, kind, resource, singular, true)
}

const fn cluster(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    resource: &'static str,
    singular: &'static str,
) -> Row {
    row(group, version, kind, resource, singular, false)
}

const fn object(name: &'static str) -> SubresourceRow {
    SubresourceRow { name, kind: "", group_version: None, verbs: VIEW, view: true }
}

const fn custom(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> SubresourceRow {
    SubresourceRow { name, kind, group_version: None, verbs, view: false }
}

const SCALE: SubresourceRow = custom("scale", "Scale", VIEW).of("autoscaling", "v1");
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    namespaced("", "v1", "Binding", "bindings", "binding").review(),
    cluster("", "v1", "ComponentStatus", "componentstatuses", "componentstatus").unstored(&["get", "list"]).short(&["cs"]),
    namespaced("", "v1", "ConfigMap", "configmaps", "configmap").short(&["cm"]),
    namespaced("", "v1", "Endpoints", "endpoints", "endpoints").short(&["ep"]).prefix("services/endpoints"),
    namespaced("", "v1", "Event", "events", "event").short(&["ev"]).fields(&fields::EVENT),
    namespaced("", "v1", "LimitRange", "limitranges", "limitrange").short(&["limits"]),
    cluster("", "v1", "Namespace", "namespaces", "namespace").returns_deleted().short(&["ns"]).verbs(&["create", "delete", "get", "list", "patch", "update", "watch"]).fields(&fields::NAMESPACE).subresources(&[object("finalize").verbs(&["update"]), object("status")]),
    cluster("", "v1", "Node", "nodes", "node").short(&["no"]).prefix("minions").fields(&fields::NODE).subresources(&[custom("proxy", "NodeProxyOptions", PROXY), object("status")]),
    namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim").returns_deleted().short(&["pvc"]).subresources(&[object("status")]),
    cluster("", "v1", "PersistentVolume", "persistentvolumes", "persistentvolume").returns_deleted().short(&["pv"]).subresources(&[object("status")]),
    namespaced("", "v1", "Pod", "pods", "pod").returns_deleted().short(&["po"]).categories(&["all"]).fields(&fields::POD).subresources(&[custom("attach", "PodAttachOptions", &["create", "get"]), custom("binding", "Binding", &["create"]), object("ephemeralcontainers"), custom("eviction", "Eviction", &["create"]).of("policy", "v1"), custom("exec", "PodExecOptions", &["create", "get"]), custom("log", "Pod", &["get"]), custom("portforward", "PodPortForwardOptions", &["create", "get"]), custom("proxy", "PodProxyOptions", PROXY), object("resize"), object("status")]),
    namespaced("", "v1", "PodTemplate", "podtemplates", "podtemplate").returns_deleted(),
    namespaced("", "v1", "ReplicationController", "replicationcontrollers", "replicationcontroller").short(&["rc"]).categories(&["all"]).prefix("controllers").fields(&fields::REPLICAS).subresources(&[SCALE, object("status")]),
    namespaced("", "v1", "ResourceQuota", "resourcequotas", "resourcequota").returns_deleted().short(&["quota"]).subresources(&[object("status")]),
    namespaced("", "v1", "Secret", "secrets", "secret").fields(&fields::SECRET),
    namespaced("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount").returns_deleted().short(&["sa"]).subresources(&[custom("token", "TokenRequest", &["create"]).of("authentication.k8s.io", "v1")]),
    namespaced("", "v1", "Service", "services", "service").returns_deleted().short(&["svc"]).categories(&["all"]).prefix("services/specs").fields(&fields::SERVICE).subresources(&[custom("proxy", "ServiceProxyOptions", PROXY), object("status")]),
    cluster("apiregistration.k8s.io", "v1", "APIService", "apiservices", "apiservice").categories(&["api-extensions"]).prefix("apiregistration.k8s.io/apiservices").subresources(&[object("status")]),
    namespaced("apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision"),
    namespaced("apps", "v1", "DaemonSet", "daemonsets", "daemonset").short(&["ds"]).categories(&["all"]).subresources(&[object("status")]),
    namespaced("apps", "v1", "Deployment", "deployments", "deployment").short(&["deploy"]).categories(&["all"]).subresources(&[SCALE, object("status")]),
    namespaced("apps", "v1", "ReplicaSet", "replicasets", "replicaset").short(&["rs"]).categories(&["all"]).fields(&fields::REPLICAS).subresources(&[SCALE, object("status")]),
    namespaced("apps", "v1", "StatefulSet", "statefulsets", "statefulset").short(&["sts"]).categories(&["all"]).subresources(&[SCALE, object("status")]),
    namespaced("events.k8s.io", "v1", "Event", "events", "event").short(&["ev"]).fields(&fields::EVENTS_V1).stored_as("", "v1", "events", &EVENTS),
    cluster("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview").review(),
    cluster("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", "tokenreview").review(),
    namespaced("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview").review(),
    cluster("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview").review(),
    cluster("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview").review(),
    cluster("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview").review(),
    namespaced("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler").short(&["hpa"]).categories(&["all"]).subresources(&[object("status")]),
    namespaced("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler").short(&["hpa"]).categories(&["all"]).stored_as("autoscaling", "v2", "horizontalpodautoscalers", &HORIZONTAL_POD_AUTOSCALERS).subresources(&[object("status")]),
    namespaced("batch", "v1", "CronJob", "cronjobs", "cronjob").short(&["cj"]).categories(&["all"]).subresources(&[object("status")]),
    namespaced("batch", "v1", "Job", "jobs", "job").categories(&["all"]).fields(&fields::JOB).subresources(&[object("status")]),
    cluster("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", "certificatesigningrequest").short(&["csr"]).fields(&fields::CSR).subresources(&[object("approval"), object("status")]),
    cluster("certificates.k8s.io", "v1beta1", "ClusterTrustBundle", "clustertrustbundles", "clustertrustbundle").gate("ClusterTrustBundle").fields(&fields::TRUST_BUNDLE),
    namespaced("certificates.k8s.io", "v1beta1", "PodCertificateRequest", "podcertificaterequests", "podcertificaterequest").gate("PodCertificateRequest").fields(&fields::POD_CERTIFICATE).subresources(&[object("status")]),
    cluster("certificates.k8s.io", "v1alpha1", "ClusterTrustBundle", "clustertrustbundles", "clustertrustbundle").gate("ClusterTrustBundle").fields(&fields::TRUST_BUNDLE).stored_as("certificates.k8s.io", "v1beta1", "clustertrustbundles", &convert::CERTIFICATES_V1ALPHA1),
    cluster("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "ingressclass"),
    namespaced("networking.k8s.io", "v1", "Ingress", "ingresses", "ingress").short(&["ing"]).prefix("ingress").subresources(&[object("status")]),
    cluster("networking.k8s.io", "v1", "IPAddress", "ipaddresses", "ipaddress").short(&["ip"]),
    namespaced("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "networkpolicy").short(&["netpol"]),
    cluster("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", "servicecidr").subresources(&[object("status")]),
    cluster("networking.k8s.io", "v1beta1", "IPAddress", "ipaddresses", "ipaddress").short(&["ip"]).stored_as("networking.k8s.io", "v1", "ipaddresses", &convert::NETWORKING_V1BETA1),
    cluster("networking.k8s.io", "v1beta1", "ServiceCIDR", "servicecidrs", "servicecidr").stored_as("networking.k8s.io", "v1", "servicecidrs", &convert::NETWORKING_V1BETA1).subresources(&[object("status")]),
    namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "poddisruptionbudget").short(&["pdb"]).subresources(&[object("status")]),
    cluster("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding"),
    cluster("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "clusterrole"),
    namespaced("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "rolebinding"),
    namespaced("rbac.authorization.k8s.io", "v1", "Role", "roles", "role"),
    cluster("storage.k8s.io", "v1", "CSIDriver", "csidrivers", "csidriver").returns_deleted(),
    cluster("storage.k8s.io", "v1", "CSINode", "csinodes", "csinode").returns_deleted(),
    namespaced("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities", "csistoragecapacity"),
    cluster("storage.k8s.io", "v1", "StorageClass", "storageclasses", "storageclass").returns_deleted().short(&["sc"]),
    cluster("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", "volumeattachment").returns_deleted().subresources(&[object("status")]),
    cluster("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses", "volumeattributesclass").short(&["vac"]).returns_deleted(),
    cluster("storage.k8s.io", "v1beta1", "VolumeAttributesClass", "volumeattributesclasses", "volumeattributesclass").short(&["vac"]).returns_deleted().stored_as("storage.k8s.io", "v1", "volumeattributesclasses", &convert::STORAGE_V1BETA1),
    cluster("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", "mutatingadmissionpolicy").categories(&["api-extensions"]).stored_as("admissionregistration.k8s.io", "v1beta1", "mutatingadmissionpolicies", &convert::ADMISSION_V1),
    cluster("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding").categories(&["api-extensions"]).stored_as("admissionregistration.k8s.io", "v1beta1", "mutatingadmissionpolicybindings", &convert::ADMISSION_V1),
    cluster("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "mutatingwebhookconfiguration").categories(&["api-extensions"]),
    cluster("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", "validatingadmissionpolicy").categories(&["api-extensions"]).subresources(&[object("status")]),
    cluster("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "validatingadmissionpolicybinding").categories(&["api-extensions"]),
    cluster("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "validatingwebhookconfiguration").categories(&["api-extensions"]),
    cluster("admissionregistration.k8s.io", "v1beta1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", "mutatingadmissionpolicy").categories(&["api-extensions"]),
    cluster("admissionregistration.k8s.io", "v1beta1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding").categories(&["api-extensions"]),
    cluster("admissionregistration.k8s.io", "v1alpha1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", "mutatingadmissionpolicy").categories(&["api-extensions"]).stored_as("admissionregistration.k8s.io", "v1beta1", "mutatingadmissionpolicies", &convert::ADMISSION_V1ALPHA1),
    cluster("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", "customresourcedefinition").short(&["crd", "crds"]).categories(&["api-extensions"]).prefix("apiextensions.k8s.io/customresourcedefinitions").subresources(&[object("status")]),
    cluster("admissionregistration.k8s.io", "v1alpha1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding").categories(&["api-extensions"]).stored_as("admissionregistration.k8s.io", "v1beta1", "mutatingadmissionpolicybindings", &convert::ADMISSION_V1ALPHA1),
    cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "priorityclass").short(&["pc"]),
    namespaced("scheduling.k8s.io", "v1alpha2", "PodGroup", "podgroups", "podgroup").subresources(&[object("status")]).gate("GenericWorkload"),
    namespaced("scheduling.k8s.io", "v1alpha2", "Workload", "workloads", "workload").gate("GenericWorkload"),
    namespaced("coordination.k8s.io", "v1", "Lease", "leases", "lease"),
    namespaced("coordination.k8s.io", "v1beta1", "LeaseCandidate", "leasecandidates", "leasecandidate").fields(&fields::LEASE_CANDIDATE),
    namespaced("coordination.k8s.io", "v1alpha2", "LeaseCandidate", "leasecandidates", "leasecandidate").fields(&fields::LEASE_CANDIDATE).stored_as("coordination.k8s.io", "v1beta1", "leasecandidates", &convert::COORDINATION_V1ALPHA2),
    cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "runtimeclass"),
    namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice"),
    cluster("resource.k8s.io", "v1", "DeviceClass", "deviceclasses", "deviceclass").returns_deleted(),
    namespaced("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims", "resourceclaim").subresources(&[object("status")]).returns_deleted(),
    namespaced("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates", "resourceclaimtemplate").returns_deleted(),
    cluster("resource.k8s.io", "v1", "ResourceSlice", "resourceslices", "resourceslice").returns_deleted().fields(&fields::RESOURCE_SLICE),
    cluster("resource.k8s.io", "v1beta2", "DeviceClass", "deviceclasses", "deviceclass").returns_deleted().stored_as("resource.k8s.io", "v1", "deviceclasses", &convert::RESOURCE_V1BETA2),
    cluster("resource.k8s.io", "v1beta2", "DeviceTaintRule", "devicetaintrules", "devicetaintrule").subresources(&[object("status")]).returns_deleted().stored_as("resource.k8s.io", "v1alpha3", "devicetaintrules", &convert::TAINT_RULES_V1BETA2),
    namespaced("resource.k8s.io", "v1beta2", "ResourceClaim", "resourceclaims", "resourceclaim").subresources(&[object("status")]).returns_deleted().stored_as("resource.k8s.io", "v1", "resourceclaims", &convert::RESOURCE_V1BETA2),
    namespaced("resource.k8s.io", "v1beta2", "ResourceClaimTemplate", "resourceclaimtemplates", "resourceclaimtemplate").returns_deleted().stored_as("resource.k8s.io", "v1", "resourceclaimtemplates", &convert::RESOURCE_V1BETA2),
    cluster("resource.k8s.io", "v1beta2", "ResourceSlice", "resourceslices", "resourceslice").returns_deleted().fields(&fields::RESOURCE_SLICE).stored_as("resource.k8s.io", "v1", "resourceslices", &convert::RESOURCE_V1BETA2),
    cluster("resource.k8s.io", "v1beta1", "DeviceClass", "deviceclasses", "deviceclass").returns_deleted().stored_as("resource.k8s.io", "v1", "deviceclasses", &convert::RESOURCE_V1BETA1),
    namespaced("resource.k8s.io", "v1beta1", "ResourceClaim", "resourceclaims", "resourceclaim").subresources(&[object("status")]).returns_deleted().stored_as("resource.k8s.io", "v1", "resourceclaims", &convert::CLAIMS_V1BETA1),
    namespaced("resource.k8s.io", "v1beta1", "ResourceClaimTemplate", "resourceclaimtemplates", "resourceclaimtemplate").returns_deleted().stored_as("resource.k8s.io", "v1", "resourceclaimtemplates", &convert::CLAIM_TEMPLATES_V1BETA1),
    cluster("resource.k8s.io", "v1beta1", "ResourceSlice", "resourceslices", "resourceslice").returns_deleted().fields(&fields::RESOURCE_SLICE).stored_as("resource.k8s.io", "v1", "resourceslices", &convert::SLICES_V1BETA1),
    cluster("resource.k8s.io", "v1alpha3", "DeviceTaintRule", "devicetaintrules", "devicetaintrule").subresources(&[object("status")]).returns_deleted(),
    cluster("resource.k8s.io", "v1alpha3", "ResourcePoolStatusRequest", "resourcepoolstatusrequests", "resourcepoolstatusrequest").subresources(&[object("status")]).returns_deleted(),
    cluster("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas", "flowschema").subresources(&[object("status")]),
    cluster("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", "prioritylevelconfiguration").subresources(&[object("status")]),
    cluster("internal.apiserver.k8s.io", "v1alpha1", "StorageVersion", "storageversions", "storageversion").subresources(&[object("status")]),
    cluster("storagemigration.k8s.io", "v1beta1", "StorageVersionMigration", "storageversionmigrations", "storageversionmigration").subresources(&[object("status")]).gate("StorageVersionMigrator"),
];

#[cfg(test)]
mod tests;
