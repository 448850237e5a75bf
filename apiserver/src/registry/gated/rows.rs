//! The table: gate, kinds, fields, and what is use by the old object.
//!
//! `pkg/api/pod/util.go`, `pkg/api/{persistentvolumeclaim,resourceclaimspec}/util.go` and the strategies.

/// Fields that are there only with their gates.
pub(super) struct Row {
    /// All must be on.
    pub gates: &'static [&'static str],
    pub kinds: &'static [Place],
    /// Counted from the kind's root, as [`super::path`] reads them.
    pub fields: &'static [&'static str],
    /// What the old object must have for all of them to stay; the fields themselves when empty.
    pub in_use: &'static [&'static str],
    /// Nothing is dropped by writes through status and other views.
    pub main_only: bool,
}

impl Row {
    const NONE: Row = Row { gates: &[], kinds: &[], fields: &[], in_use: &[], main_only: false };

    pub(super) fn used_when(&self) -> &'static [&'static str] {
        if self.in_use.is_empty() { self.fields } else { self.in_use }
    }
}

/// A stored resource, and where in it the fields begin.
pub(super) struct Place {
    pub group: &'static str,
    pub resource: &'static str,
    pub root: &'static str,
}

const fn place(group: &'static str, resource: &'static str, root: &'static str) -> Place {
    Place { group, resource, root }
}

/// Every place that holds a pod's spec.
const POD_SPECS: &[Place] = &[
    place("", "pods", "spec"),
    place("", "podtemplates", "template.spec"),
    place("", "replicationcontrollers", "spec.template.spec"),
    place("apps", "daemonsets", "spec.template.spec"),
    place("apps", "deployments", "spec.template.spec"),
    place("apps", "replicasets", "spec.template.spec"),
    place("apps", "statefulsets", "spec.template.spec"),
    place("batch", "cronjobs", "spec.jobTemplate.spec.template.spec"),
    place("batch", "jobs", "spec.template.spec"),
];

const POD_STATUS: &[Place] = &[place("", "pods", "status")];
const CLAIM_SPECS: &[Place] = &[
    place("resource.k8s.io", "resourceclaims", "spec"),
    place("resource.k8s.io", "resourceclaimtemplates", "spec.spec"),
];
const CLAIMS: &[Place] = &[place("resource.k8s.io", "resourceclaims", "")];
const SLICES: &[Place] = &[place("resource.k8s.io", "resourceslices", "spec")];
const POD_GROUPS: &[Place] = &[place("scheduling.k8s.io", "podgroups", "")];
/// Of both, one pod group; a workload's templates are compared one by one.
const POD_GROUP_SPECS: &[Place] = &[
    place("scheduling.k8s.io", "podgroups", "spec"),
    place("scheduling.k8s.io", "workloads", "spec.podGroupTemplates[]"),
];
const NODES: &[Place] = &[place("", "nodes", "")];

/// The gate of a feature that was taken out: it is off for good.
const DYNAMIC_KUBELET_CONFIG: &[&str] = &["DynamicKubeletConfig"];

pub(super) const ROWS: &[Row] = &[
    // pods and their templates
    Row {
        gates: &["PodLevelResources"],
        kinds: POD_SPECS,
        fields: &["resources"],
        in_use: &["resources.requests{}", "resources.limits{}"],
        ..Row::NONE
    },
    Row {
        gates: &["MatchLabelKeysInPodTopologySpread"],
        kinds: POD_SPECS,
        fields: &["topologySpreadConstraints[].matchLabelKeys"],
        ..Row::NONE
    },
    Row {
        gates: &["ClusterTrustBundleProjection"],
        kinds: POD_SPECS,
        fields: &["volumes[].projected.sources[].clusterTrustBundle"],
        ..Row::NONE
    },
    Row {
        gates: &["PodCertificateRequest"],
        kinds: POD_SPECS,
        fields: &["volumes[].projected.sources[].podCertificate"],
        ..Row::NONE
    },
    Row { gates: &["GenericWorkload"], kinds: POD_SPECS, fields: &["schedulingGroup"], ..Row::NONE },
    Row {
        gates: &["ContainerRestartRules"],
        kinds: POD_SPECS,
        fields: &[
            "initContainers[].restartPolicy!=Always",
            "initContainers[].restartPolicyRules",
            "containers[].restartPolicy",
            "containers[].restartPolicyRules",
            "ephemeralContainers[].restartPolicy",
            "ephemeralContainers[].restartPolicyRules",
        ],
        in_use: &[
            "initContainers[].restartPolicy!=Always",
            "initContainers[].restartPolicyRules",
            "containers[].restartPolicy",
        ],
        ..Row::NONE
    },
    Row { gates: &["HostnameOverride"], kinds: POD_SPECS, fields: &["hostnameOverride"], ..Row::NONE },
    Row {
        gates: &["EnvFiles"],
        kinds: POD_SPECS,
        fields: &[
            "containers[].env[].valueFrom.fileKeyRef",
            "initContainers[].env[].valueFrom.fileKeyRef",
            "ephemeralContainers[].env[].valueFrom.fileKeyRef",
        ],
        ..Row::NONE
    },
    Row {
        gates: &["ContainerStopSignals"],
        kinds: POD_SPECS,
        fields: &[
            "containers[].lifecycle?.stopSignal",
            "initContainers[].lifecycle?.stopSignal",
            "ephemeralContainers[].lifecycle?.stopSignal",
        ],
        ..Row::NONE
    },
    // what kubelets and the scheduler tell of pods
    Row {
        gates: &["InPlacePodLevelResourcesVerticalScaling"],
        kinds: POD_STATUS,
        fields: &["resources", "allocatedResources"],
        ..Row::NONE
    },
    Row {
        gates: &["DRAExtendedResource"],
        kinds: POD_STATUS,
        fields: &["extendedResourceClaimStatus"],
        ..Row::NONE
    },
    Row {
        gates: &["ResourceHealthStatus"],
        kinds: POD_STATUS,
        fields: &[
            "containerStatuses[].allocatedResourcesStatus",
            "initContainerStatuses[].allocatedResourcesStatus",
            "ephemeralContainerStatuses[].allocatedResourcesStatus",
        ],
        ..Row::NONE
    },
    Row {
        gates: &["ResourceHealthStatusMessage"],
        kinds: POD_STATUS,
        fields: &[
            "containerStatuses[].allocatedResourcesStatus[].resources[].message",
            "initContainerStatuses[].allocatedResourcesStatus[].resources[].message",
            "ephemeralContainerStatuses[].allocatedResourcesStatus[].resources[].message",
        ],
        ..Row::NONE
    },
    Row {
        gates: &["ImageVolumeWithDigest"],
        kinds: POD_STATUS,
        fields: &[
            "containerStatuses[].volumeMounts[].volumeStatus",
            "initContainerStatuses[].volumeMounts[].volumeStatus",
            "ephemeralContainerStatuses[].volumeMounts[].volumeStatus",
        ],
        ..Row::NONE
    },
    Row {
        gates: &["DRANodeAllocatableResources"],
        kinds: POD_STATUS,
        fields: &["nodeAllocatableResourceClaimStatuses"],
        ..Row::NONE
    },
    // workloads
    Row {
        gates: &["MaxUnavailableStatefulSet"],
        kinds: &[place("apps", "statefulsets", "spec")],
        fields: &["updateStrategy.rollingUpdate.maxUnavailable"],
        ..Row::NONE
    },
    Row {
        gates: &["DeploymentReplicaSetTerminatingReplicas"],
        kinds: &[place("apps", "deployments", "status"), place("apps", "replicasets", "status")],
        fields: &["terminatingReplicas"],
        ..Row::NONE
    },
    Row {
        gates: &["HPAConfigurableTolerance"],
        kinds: &[place("autoscaling", "horizontalpodautoscalers", "spec.behavior")],
        fields: &["scaleUp.tolerance", "scaleDown.tolerance"],
        ..Row::NONE
    },
    Row {
        gates: &["TopologyAwareWorkloadScheduling"],
        kinds: POD_GROUP_SPECS,
        fields: &["schedulingConstraints"],
        ..Row::NONE
    },
    Row {
        gates: &["DRAWorkloadResourceClaims"],
        kinds: POD_GROUP_SPECS,
        fields: &["resourceClaims"],
        ..Row::NONE
    },
    Row {
        gates: &["DRAWorkloadResourceClaims"],
        kinds: POD_GROUPS,
        fields: &["status.resourceClaimStatuses"],
        in_use: &["spec.resourceClaims"],
        ..Row::NONE
    },
    Row {
        gates: &["WorkloadAwarePreemption"],
        kinds: POD_GROUP_SPECS,
        fields: &["disruptionMode"],
        ..Row::NONE
    },
    Row {
        gates: &["WorkloadAwarePreemption"],
        kinds: POD_GROUP_SPECS,
        fields: &["priorityClassName"],
        ..Row::NONE
    },
    Row { gates: &["WorkloadAwarePreemption"], kinds: POD_GROUP_SPECS, fields: &["priority"], ..Row::NONE },
    // nodes, leases, storage
    Row {
        gates: &["NodeDeclaredFeatures"],
        kinds: NODES,
        fields: &["status.declaredFeatures"],
        main_only: true,
        ..Row::NONE
    },
    Row { gates: DYNAMIC_KUBELET_CONFIG, kinds: NODES, fields: &["spec.configSource"], ..Row::NONE },
    Row { gates: DYNAMIC_KUBELET_CONFIG, kinds: NODES, fields: &["status.config"], ..Row::NONE },
    Row {
        gates: &["CoordinatedLeaderElection"],
        kinds: &[place("coordination.k8s.io", "leases", "spec")],
        fields: &["strategy"],
        ..Row::NONE
    },
    Row {
        gates: &["CoordinatedLeaderElection"],
        kinds: &[place("coordination.k8s.io", "leases", "spec")],
        fields: &["preferredHolder"],
        ..Row::NONE
    },
    Row {
        gates: &["CrossNamespaceVolumeDataSource"],
        kinds: &[place("", "persistentvolumeclaims", "spec")],
        fields: &["dataSourceRef(namespace)"],
        in_use: &["dataSourceRef"],
        ..Row::NONE
    },
    Row {
        gates: &["VolumeLimitScaling"],
        kinds: &[place("storage.k8s.io", "csidrivers", "spec")],
        fields: &["preventPodSchedulingIfMissing"],
        ..Row::NONE
    },
    Row {
        gates: &["CRDObservedGenerationTracking"],
        kinds: &[place("apiextensions.k8s.io", "customresourcedefinitions", "status")],
        fields: &["observedGeneration", "conditions[].observedGeneration"],
        ..Row::NONE
    },
    // device claims
    Row {
        gates: &["DRAPrioritizedList"],
        kinds: CLAIM_SPECS,
        fields: &["devices.requests[].firstAvailable"],
        ..Row::NONE
    },
    Row {
        gates: &["DRADeviceTaints"],
        kinds: CLAIM_SPECS,
        fields: &[
            "devices.requests[].exactly.tolerations",
            "devices.requests[].firstAvailable[].tolerations",
        ],
        ..Row::NONE
    },
    Row {
        gates: &["DRAConsumableCapacity"],
        kinds: CLAIM_SPECS,
        fields: &[
            "devices.constraints[].distinctAttribute",
            "devices.requests[].exactly.capacity",
            "devices.requests[].firstAvailable[].capacity",
        ],
        ..Row::NONE
    },
    Row { gates: &["DRAResourceClaimDeviceStatus"], kinds: CLAIMS, fields: &["status.devices"], ..Row::NONE },
    Row {
        gates: &["DRAConsumableCapacity"],
        kinds: CLAIMS,
        fields: &[
            "status.allocation.devices.results[].shareID",
            "status.allocation.devices.results[].consumedCapacity",
            "status.devices[].shareID",
        ],
        in_use: &[
            "spec.devices.constraints[].distinctAttribute",
            "spec.devices.requests[].exactly.capacity",
            "spec.devices.requests[].firstAvailable[].capacity",
            "status.allocation.devices.results[].shareID",
            "status.allocation.devices.results[].consumedCapacity",
            "status.devices[].shareID",
        ],
        ..Row::NONE
    },
    Row {
        gates: &["DRADeviceBindingConditions"],
        kinds: CLAIMS,
        fields: &[
            "status.allocation.devices.results[].bindingConditions",
            "status.allocation.devices.results[].bindingFailureConditions",
        ],
        ..Row::NONE
    },
    // devices
    Row {
        gates: &["DRAExtendedResource"],
        kinds: &[place("resource.k8s.io", "deviceclasses", "spec")],
        fields: &["extendedResourceName"],
        ..Row::NONE
    },
    Row { gates: &["DRADeviceTaints"], kinds: SLICES, fields: &["devices[].taints"], ..Row::NONE },
    Row {
        gates: &["DRAPartitionableDevices"],
        kinds: SLICES,
        fields: &[
            "sharedCounters",
            "perDeviceNodeSelection",
            "devices[].consumesCounters",
            "devices[].nodeName",
            "devices[].nodeSelector",
            "devices[].allNodes",
        ],
        ..Row::NONE
    },
    Row {
        gates: &["DRADeviceBindingConditions", "DRAResourceClaimDeviceStatus"],
        kinds: SLICES,
        fields: &[
            "devices[].bindingConditions",
            "devices[].bindingFailureConditions",
            "devices[].bindsToNode",
        ],
        ..Row::NONE
    },
    Row {
        gates: &["DRAConsumableCapacity"],
        kinds: SLICES,
        fields: &["devices[].allowMultipleAllocations", "devices[].capacity{}.requestPolicy"],
        ..Row::NONE
    },
    Row {
        gates: &["DRANodeAllocatableResources"],
        kinds: SLICES,
        fields: &["devices[].nodeAllocatableResourceMappings"],
        ..Row::NONE
    },
    Row {
        gates: &["DRAListTypeAttributes"],
        kinds: SLICES,
        fields: &[
            "devices[].attributes{}.bools",
            "devices[].attributes{}.ints",
            "devices[].attributes{}.strings",
            "devices[].attributes{}.versions",
        ],
        ..Row::NONE
    },
];
