//! One valid, minimal object of every kind: the table that the walk takes its objects from.
//!
//! The objects do nothing in a cluster that is in use: nothing runs, nothing matches, nobody feels responsible.
//! What is replaced as a whole has its defaults written out, and what kubectl always sends anew is left
//! out: applied again, every object is unchanged.

/// An object of one version of a kind.
pub struct Sample {
    pub api_version: &'static str,
    pub kind: &'static str,
    /// Where the kind restricts names; else the name is made from the resource and its version.
    pub name: Option<&'static str>,
    /// What is beside apiVersion, kind and metadata, in YAML. `$NS` is the test's namespace, [`PODS`] and [`ONCE`]
    /// stand for themselves.
    pub fields: &'static str,
}

const fn of(api_version: &'static str, kind: &'static str, fields: &'static str) -> Sample {
    Sample { api_version, kind, name: None, fields }
}

impl Sample {
    const fn named(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }
}

/// What `$PODS` stands for, and for what runs once `$ONCE`. No pod is made of it: the kinds that have it want none,
/// are suspended, or need a node that is not there.
pub const PODS: &str = "template: {metadata: {labels: {kinds: none}}, spec: {nodeSelector: {kinds: none}, containers: [{name: c, image: none}]}}";
pub const ONCE: &str = "template: {spec: {restartPolicy: Never, containers: [{name: c, image: none}]}}";

/// A pod that nobody schedules, for the Binding to bind.
pub const BOUND: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: bound}\nspec: {schedulerName: nobody, containers: [{name: c, image: none}]}";

/// The group of the custom kind, and of what is named and is not there.
pub const GROUP: &str = "kinds.example.com";

/// The definition of the custom kind.
pub const WIDGETS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.kinds.example.com}
spec:
  group: kinds.example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList, shortNames: [wdg], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        description: A thing to try.
        properties:
          spec: {type: object, properties: {size: {type: integer, default: 1, description: How large it is.}}}
          status: {type: object}
";

/// By group, in the order of names.
#[rustfmt::skip]
pub const SAMPLES: &[Sample] = &[
    of("v1", "Binding", "target: {kind: Node, name: nowhere}").named("bound"),
    of("v1", "ConfigMap", "data: {a: b}"),
    of("v1", "Endpoints", "subsets: [{addresses: [{ip: 192.0.2.1}], ports: [{port: 80, protocol: TCP}]}]"),
    of("v1", "Event", "involvedObject: {kind: Pod, name: none, namespace: $NS}"),
    of("v1", "LimitRange", "spec: {limits: [{type: PersistentVolumeClaim, max: {storage: 1Ti}}]}"),
    of("v1", "Namespace", ""),
    of("v1", "Node", "spec: {unschedulable: true}"),
    of("v1", "PersistentVolume", "spec: {capacity: {storage: 1Mi}, accessModes: [ReadWriteOnce], storageClassName: kinds-none, hostPath: {path: /none}, claimRef: {namespace: $NS, name: none}}"),
    of("v1", "PersistentVolumeClaim", "spec: {accessModes: [ReadWriteOnce], storageClassName: kinds-nothing, resources: {requests: {storage: 1Mi}}}"),
    of("v1", "Pod", "spec: {schedulingGates: [{name: kinds.example.com/never}], containers: [{name: c, image: none}]}"),
    of("v1", "PodTemplate", "$PODS"),
    of("v1", "ReplicationController", "spec: {replicas: 0, selector: {kinds: none}, $PODS}"),
    of("v1", "ResourceQuota", "spec: {hard: {pods: \"100\"}}"),
    of("v1", "Secret", "data: {a: Yg==}"),
    of("v1", "Service", "spec: {ports: [{port: 80}]}"),
    of("v1", "ServiceAccount", ""),
    of("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", MUTATING),
    of("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding", "spec: {policyName: none}"),
    of("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", WEBHOOK),
    of("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "spec: {matchConstraints: {matchPolicy: Equivalent, namespaceSelector: {}, objectSelector: {}, resourceRules: [{apiGroups: [kinds.example.com], apiVersions: [v9], operations: [CREATE], resources: [none], scope: \"*\"}]}, validations: [{expression: \"true\"}]}"),
    of("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "spec: {policyName: none, validationActions: [Warn]}"),
    of("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", WEBHOOK),
    of("admissionregistration.k8s.io/v1beta1", "MutatingAdmissionPolicy", MUTATING),
    of("admissionregistration.k8s.io/v1beta1", "MutatingAdmissionPolicyBinding", "spec: {policyName: none}"),
    of("admissionregistration.k8s.io/v1alpha1", "MutatingAdmissionPolicy", MUTATING),
    of("admissionregistration.k8s.io/v1alpha1", "MutatingAdmissionPolicyBinding", "spec: {policyName: none}"),
    of("apiextensions.k8s.io/v1", "CustomResourceDefinition", "spec: {group: kinds.example.com, scope: Cluster, names: {plural: others, singular: other, kind: Other, listKind: OtherList}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}").named("others.kinds.example.com"),
    of("apiregistration.k8s.io/v1", "APIService", "spec: {group: none.kinds.example.com, version: v1, groupPriorityMinimum: 1000, versionPriority: 15}").named("v1.none.kinds.example.com"),
    of("apps/v1", "ControllerRevision", "revision: 1\ndata: {a: b}"),
    of("apps/v1", "DaemonSet", "spec: {selector: {matchLabels: {kinds: none}}, $PODS}"),
    of("apps/v1", "Deployment", "spec: {replicas: 0, selector: {matchLabels: {kinds: none}}, $PODS}"),
    of("apps/v1", "ReplicaSet", "spec: {replicas: 0, selector: {matchLabels: {kinds: none}}, $PODS}"),
    of("apps/v1", "StatefulSet", "spec: {replicas: 0, serviceName: none, selector: {matchLabels: {kinds: none}}, $PODS}"),
    of("authentication.k8s.io/v1", "SelfSubjectReview", ""),
    of("authentication.k8s.io/v1", "TokenReview", "spec: {token: none}"),
    of("authorization.k8s.io/v1", "LocalSubjectAccessReview", "spec: {user: none, resourceAttributes: {namespace: $NS, verb: get, resource: pods}}"),
    of("authorization.k8s.io/v1", "SelfSubjectAccessReview", "spec: {resourceAttributes: {verb: get, resource: pods}}"),
    of("authorization.k8s.io/v1", "SelfSubjectRulesReview", "spec: {namespace: $NS}"),
    of("authorization.k8s.io/v1", "SubjectAccessReview", "spec: {user: none, nonResourceAttributes: {verb: get, path: /none}}"),
    of("autoscaling/v1", "HorizontalPodAutoscaler", "spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: none}, maxReplicas: 2}"),
    of("autoscaling/v2", "HorizontalPodAutoscaler", "spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: none}, maxReplicas: 2}"),
    of("batch/v1", "CronJob", "spec: {schedule: \"0 0 1 1 *\", suspend: true, jobTemplate: {spec: {$ONCE}}}"),
    of("batch/v1", "Job", "spec: {suspend: true, $ONCE}"),
    of("certificates.k8s.io/v1", "CertificateSigningRequest", "spec: {signerName: kinds.example.com/none, usages: [client auth], request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlITE1ISUNBUUF3RURFT01Bd0dBMVVFQXd3RmEybHVaSE13V1RBVEJnY3Foa2pPUFFJQkJnZ3Foa2pPUFFNQgpCd05DQUFSbmw1VkFLTkZPcU9MVW02RDNCK3JKc0x6V3VFSFQ0WUFRLzU2UUVQMlE0d0pIZ1N2S0U5Sitqa1N3CkJlYzJlbG5aREZYS3p1eXc5VldxTmtwMWlLQUdvQUF3Q2dZSUtvWkl6ajBFQXdJRFNRQXdSZ0loQVBDQnBlRU8KSGdxR0dZSW1MVnh1YzJ3bE5leGt1MkhHZ1pGSTB5QVYvSFFFQWlFQStGajBBbjRjN3NGWFpyTktxa202OEhGTgpYRkpuREg0Tkk1ZXdLeENPeUlZPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K}"),
    of("certificates.k8s.io/v1beta1", "ClusterTrustBundle", TRUST),
    of("certificates.k8s.io/v1beta1", "PodCertificateRequest", "spec: {signerName: kinds.example.com/none, podName: none, podUID: none, serviceAccountName: none, serviceAccountUID: none, nodeName: none, nodeUID: none, maxExpirationSeconds: 86400, stubPKCS10Request: MIG6MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGeXlUAo0U6o4tSboPcH6smwvNa4QdPhgBD/npAQ/ZDjAkeBK8oT0n6ORLAF5zZ6WdkMVcrO7LD1Vao2SnWIoAagADAKBggqhkjOPQQDAgNIADBFAiEAqzCjQ2sdUUFb0NxvSOT78wgNdR8RQoIOYeTCmKk3D64CICNOdVoFJ36I8zz5/5ZPTq0d+5lwkr7kNSe1ob693i7P}"),
    of("certificates.k8s.io/v1alpha1", "ClusterTrustBundle", TRUST),
    of("coordination.k8s.io/v1", "Lease", "spec: {holderIdentity: none, leaseDurationSeconds: 10}"),
    of("coordination.k8s.io/v1beta1", "LeaseCandidate", "spec: {leaseName: none, binaryVersion: 1.36.0, emulationVersion: 1.36.0, strategy: OldestEmulationVersion}"),
    of("coordination.k8s.io/v1alpha2", "LeaseCandidate", "spec: {leaseName: none, binaryVersion: 1.36.0, emulationVersion: 1.36.0, strategy: OldestEmulationVersion}"),
    of("discovery.k8s.io/v1", "EndpointSlice", "addressType: IPv4\nendpoints: [{addresses: [192.0.2.1], conditions: {}}]\nports: [{name: \"\", port: 80, protocol: TCP}]"),
    of("events.k8s.io/v1", "Event", "eventTime: \"2026-01-01T00:00:00.000000Z\"\naction: none\nreason: None\ntype: Normal\nreportingController: kinds.example.com/none\nreportingInstance: none\nregarding: {kind: Pod, name: none, namespace: $NS}"),
    of("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", "spec: {priorityLevelConfiguration: {name: workload-low}, matchingPrecedence: 9999}"),
    of("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", "spec: {type: Limited, limited: {nominalConcurrencyShares: 1, limitResponse: {type: Reject}}}"),
    of("internal.apiserver.k8s.io/v1alpha1", "StorageVersion", "spec: {}").named("kinds.example.com.none"),
    of("networking.k8s.io/v1", "IPAddress", "spec: {parentRef: {resource: services, namespace: $NS, name: none}}").named("192.0.2.201"),
    of("networking.k8s.io/v1", "Ingress", "spec: {defaultBackend: {service: {name: none, port: {number: 80}}}}"),
    of("networking.k8s.io/v1", "IngressClass", "spec: {controller: kinds.example.com/none}"),
    of("networking.k8s.io/v1", "NetworkPolicy", "spec: {podSelector: {matchLabels: {kinds: none}}}"),
    of("networking.k8s.io/v1", "ServiceCIDR", "spec: {cidrs: [198.51.100.0/25]}"),
    of("networking.k8s.io/v1beta1", "IPAddress", "spec: {parentRef: {resource: services, namespace: $NS, name: none}}").named("192.0.2.202"),
    of("networking.k8s.io/v1beta1", "ServiceCIDR", "spec: {cidrs: [198.51.100.128/25]}"),
    of("node.k8s.io/v1", "RuntimeClass", "handler: none"),
    of("policy/v1", "PodDisruptionBudget", "spec: {minAvailable: 1}"),
    of("rbac.authorization.k8s.io/v1", "ClusterRole", "rules: [{apiGroups: [kinds.example.com], resources: [none], verbs: [get]}]"),
    of("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: none}\nsubjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: none}]"),
    of("rbac.authorization.k8s.io/v1", "Role", "rules: [{apiGroups: [kinds.example.com], resources: [none], verbs: [get]}]"),
    of("rbac.authorization.k8s.io/v1", "RoleBinding", "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: none}\nsubjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: none}]"),
    of("resource.k8s.io/v1", "DeviceClass", "spec: {}"),
    of("resource.k8s.io/v1", "ResourceClaim", "spec: {devices: {requests: [{name: r, exactly: {deviceClassName: none, allocationMode: ExactCount, count: 1}}]}}"),
    of("resource.k8s.io/v1", "ResourceClaimTemplate", "spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: none, allocationMode: ExactCount, count: 1}}]}}}"),
    of("resource.k8s.io/v1", "ResourceSlice", "spec: {driver: kinds.example.com, pool: {name: one, generation: 1, resourceSliceCount: 1}, allNodes: true, devices: [{name: d}]}"),
    of("resource.k8s.io/v1beta2", "DeviceClass", "spec: {}"),
    of("resource.k8s.io/v1beta2", "DeviceTaintRule", "spec: {deviceSelector: {driver: kinds.example.com}, taint: {key: kinds.example.com/none, effect: NoSchedule}}"),
    of("resource.k8s.io/v1beta2", "ResourceClaim", "spec: {devices: {requests: [{name: r, exactly: {deviceClassName: none, allocationMode: ExactCount, count: 1}}]}}"),
    of("resource.k8s.io/v1beta2", "ResourceClaimTemplate", "spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: none, allocationMode: ExactCount, count: 1}}]}}}"),
    of("resource.k8s.io/v1beta2", "ResourceSlice", "spec: {driver: kinds.example.com, pool: {name: two, generation: 1, resourceSliceCount: 1}, allNodes: true, devices: [{name: d}]}"),
    of("resource.k8s.io/v1beta1", "DeviceClass", "spec: {}"),
    of("resource.k8s.io/v1beta1", "ResourceClaim", "spec: {devices: {requests: [{name: r, deviceClassName: none, allocationMode: ExactCount, count: 1}]}}"),
    of("resource.k8s.io/v1beta1", "ResourceClaimTemplate", "spec: {spec: {devices: {requests: [{name: r, deviceClassName: none, allocationMode: ExactCount, count: 1}]}}}"),
    of("resource.k8s.io/v1beta1", "ResourceSlice", "spec: {driver: kinds.example.com, pool: {name: three, generation: 1, resourceSliceCount: 1}, allNodes: true, devices: [{name: d, basic: {}}]}"),
    of("resource.k8s.io/v1alpha3", "DeviceTaintRule", "spec: {deviceSelector: {driver: kinds.example.com}, taint: {key: kinds.example.com/none, effect: NoSchedule}}"),
    of("resource.k8s.io/v1alpha3", "ResourcePoolStatusRequest", "spec: {driver: kinds.example.com}"),
    of("scheduling.k8s.io/v1", "PriorityClass", "value: 1"),
    of("scheduling.k8s.io/v1alpha2", "PodGroup", "spec: {schedulingPolicy: {basic: {}}}"),
    of("scheduling.k8s.io/v1alpha2", "Workload", "spec: {podGroupTemplates: [{name: g, schedulingPolicy: {basic: {}}}]}"),
    of("storage.k8s.io/v1", "CSIDriver", "spec: {}"),
    of("storage.k8s.io/v1", "CSINode", "spec: {drivers: []}"),
    of("storage.k8s.io/v1", "CSIStorageCapacity", "storageClassName: none"),
    of("storage.k8s.io/v1", "StorageClass", "provisioner: kinds.example.com/none"),
    of("storage.k8s.io/v1", "VolumeAttachment", "spec: {attacher: kinds.example.com, nodeName: none, source: {persistentVolumeName: none}}"),
    of("storage.k8s.io/v1", "VolumeAttributesClass", "driverName: kinds.example.com\nparameters: {a: b}"),
    of("storage.k8s.io/v1beta1", "VolumeAttributesClass", "driverName: kinds.example.com\nparameters: {a: b}"),
    of("storagemigration.k8s.io/v1beta1", "StorageVersionMigration", "spec: {resource: {group: kinds.example.com, resource: none}}"),
    of("kinds.example.com/v1", "Widget", "spec: {size: 2}"),
];

/// A certificate authority that signs nothing.
const TRUST: &str = "spec: {trustBundle: \"-----BEGIN CERTIFICATE-----\\nMIIBeDCCAR2gAwIBAgIUDzFfcrYXzhAfhXC2jHq/l/LLX9UwCgYIKoZIzj0EAwIw\\nEDEOMAwGA1UEAwwFa2luZHMwIBcNMjYxMTI5MDU0NjA1WhgPMjEyNjExMDUwNTQ2\\nMDVaMBAxDjAMBgNVBAMMBWtpbmRzMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\\nZ5eVQCjRTqji1Jug9wfqybC81rhB0+GAEP+ekBD9kOMCR4EryhPSfo5EsAXnNnpZ\\n2QxVys7ssPVVqjZKdYigBqNTMFEwHQYDVR0OBBYEFPbae0qGsoxKQJYL0avoCw34\\nlgkkMB8GA1UdIwQYMBaAFPbae0qGsoxKQJYL0avoCw34lgkkMA8GA1UdEwEB/wQF\\nMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhALsdViXqayMC6nyJRTU0bflGl9w0Y40q\\nnQ8/z8XD9liqAiEA/iKJBchYAyvVldoHyQp/B0cuaS952BHGnob7JKTYZ04=\\n-----END CERTIFICATE-----\"}";

const MUTATING: &str = "spec: {reinvocationPolicy: Never, matchConstraints: {matchPolicy: Equivalent, namespaceSelector: {}, objectSelector: {}, resourceRules: [{apiGroups: [kinds.example.com], apiVersions: [v9], operations: [CREATE], resources: [none], scope: \"*\"}]}, mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: \"Object{}\"}}]}";

const WEBHOOK: &str = "webhooks: [{name: kinds.example.com, clientConfig: {url: \"https://192.0.2.1/\"}, rules: [{apiGroups: [kinds.example.com], apiVersions: [v9], operations: [CREATE], resources: [none], scope: \"*\"}], sideEffects: None, admissionReviewVersions: [v1]}]";
