//! One published type as a schema of a document.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use super::facts::{Facts, FieldFacts, Kind};

/// Which OpenAPI a document speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Swagger 2.0: no defaults, no alternatives, `$ref` beside other keys.
    V2,
    /// OpenAPI 3.0: a `$ref` with anything beside it is wrapped in `allOf`.
    V3,
}

impl Dialect {
    /// `#/definitions/io.k8s.api.core.v1.Pod`.
    pub(super) fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }
}

/// Kinds that belong to every group version.
const EVERYWHERE: &[&str] = &["DeleteOptions", "WatchEvent"];

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Fields beside `metadata`, `spec` and `status` that hold a struct by value: their default is the empty one.
/// Upstream derives this from the Go types.
const BY_VALUE: &[(&str, &str)] = &[
    ("APIGroup", "preferredVersion"),
    ("AllocationResult", "devices"),
    ("Binding", "target"),
    ("ClusterRoleBinding", "roleRef"),
    ("Container", "resources"),
    ("ContainerResourceMetricSource", "target"),
    ("ContainerResourceMetricStatus", "current"),
    ("ContainerStatus", "lastState"),
    ("ContainerStatus", "state"),
    ("CronJobSpec", "jobTemplate"),
    ("CustomResourceDefinitionSpec", "names"),
    ("CustomResourceDefinitionStatus", "acceptedNames"),
    ("DaemonSetSpec", "template"),
    ("DaemonSetSpec", "updateStrategy"),
    ("DeploymentSpec", "strategy"),
    ("DeploymentSpec", "template"),
    ("DeviceTaintRuleSpec", "taint"),
    ("Endpoint", "conditions"),
    ("EphemeralContainer", "resources"),
    ("Event", "deprecatedSource"),
    ("Event", "involvedObject"),
    ("Event", "regarding"),
    ("Event", "source"),
    ("ExternalMetricSource", "metric"),
    ("ExternalMetricSource", "target"),
    ("ExternalMetricStatus", "current"),
    ("ExternalMetricStatus", "metric"),
    ("FlowSchemaSpec", "priorityLevelConfiguration"),
    ("HTTPIngressPath", "backend"),
    ("HorizontalPodAutoscalerSpec", "scaleTargetRef"),
    ("IngressServiceBackend", "port"),
    ("IngressStatus", "loadBalancer"),
    ("JobSpec", "template"),
    ("LimitedPriorityLevelConfiguration", "limitResponse"),
    ("MutatingWebhook", "clientConfig"),
    ("NetworkPolicySpec", "podSelector"),
    ("NodeDaemonEndpoints", "kubeletEndpoint"),
    ("NodeStatus", "daemonEndpoints"),
    ("NodeStatus", "nodeInfo"),
    ("ObjectMetricSource", "describedObject"),
    ("ObjectMetricSource", "metric"),
    ("ObjectMetricSource", "target"),
    ("ObjectMetricStatus", "current"),
    ("ObjectMetricStatus", "describedObject"),
    ("ObjectMetricStatus", "metric"),
    ("PersistentVolumeClaimSpec", "resources"),
    ("PodGroupSpec", "schedulingPolicy"),
    ("PodGroupTemplate", "schedulingPolicy"),
    ("PodTemplate", "template"),
    ("PodsMetricSource", "metric"),
    ("PodsMetricSource", "target"),
    ("PodsMetricStatus", "current"),
    ("PodsMetricStatus", "metric"),
    ("PreferredSchedulingTerm", "preference"),
    ("ReplicaSetSpec", "template"),
    ("ResourceClaimSpec", "devices"),
    ("ResourceMetricSource", "target"),
    ("ResourceMetricStatus", "current"),
    ("ResourceSliceSpec", "pool"),
    ("RoleBinding", "roleRef"),
    ("SelfSubjectReviewStatus", "userInfo"),
    ("ServiceStatus", "loadBalancer"),
    ("StatefulSetSpec", "template"),
    ("StatefulSetSpec", "updateStrategy"),
    ("StorageVersionMigrationSpec", "resource"),
    ("TokenReviewStatus", "user"),
    ("ValidatingWebhook", "clientConfig"),
    ("VolumeAttachmentSpec", "source"),
    ("WeightedPodAffinityTerm", "podAffinityTerm"),
];

/// Fields of those names that are pointers after all.
const BY_POINTER: &[(&str, &str)] =
    &[("CustomResourceSubresources", "status"), ("ResourcePoolStatusRequest", "status")];

/// Writes schemas of one document.
pub(super) struct Schemas<'a> {
    pub facts: &'a Facts,
    pub descriptions: &'a Descriptions,
    pub dialect: Dialect,
    /// The group versions of the document.
    pub group_versions: &'a BTreeSet<(String, String)>,
}

impl Schemas<'_> {
    /// The schema of a type; `None` for a name that is no type.
    pub(super) fn schema(&self, name: &str) -> Option<Value> {
        let facts = self.facts.get(name)?;
        let mut out = match facts.t {
            Some(alias) => self.of(alias),
            None => json!({"type": "object"}),
        };
        let map = out.as_object_mut()?;
        if let Some(text) = self.descriptions.of_type(name) {
            map.insert("description".to_owned(), text.into());
        }
        if !facts.fields.is_empty() {
            let properties: Map<String, Value> = facts
                .fields
                .iter()
                .map(|(field, f)| ((*field).to_owned(), self.property(name, field, f)))
                .collect();
            map.insert("properties".to_owned(), properties.into());
        }
        if !facts.required.is_empty() {
            map.insert("required".to_owned(), json!(facts.required));
        }
        if let Some(map_type) = facts.map_type {
            map.insert("x-kubernetes-map-type".to_owned(), map_type.into());
        }
        if let Some(unions) = &facts.unions {
            map.insert("x-kubernetes-unions".to_owned(), unions.clone());
        }
        let kinds = self.kinds(name, &facts.gvk);
        if !kinds.is_empty() {
            map.insert("x-kubernetes-group-version-kind".to_owned(), kinds.into());
        }
        Some(out)
    }

    fn kinds(&self, name: &str, own: &[Kind]) -> Vec<Value> {
        let mut out: Vec<Value> = own.iter().map(|(g, v, k)| group_version_kind(g, v, k)).collect();
        if let Some(kind) = name.strip_prefix(META).filter(|kind| EVERYWHERE.contains(kind)) {
            for (group, version) in self.group_versions {
                let shown = group_version_kind(group, version, kind);
                if !out.contains(&shown) {
                    out.push(shown);
                }
            }
        }
        out
    }

    fn property(&self, owner: &str, name: &str, facts: &FieldFacts<'static>) -> Value {
        let schema = self.of(facts.ty());
        let mut beside = Map::new();
        if let Some(text) = self.descriptions.of_field(owner, name) {
            beside.insert("description".to_owned(), text.into());
        }
        let full = facts.full();
        if self.dialect == Dialect::V3 {
            let default = full.and_then(|f| f.default.clone());
            let empty = || self.is_by_value(owner, name, facts.ty()).then(|| json!({}));
            if let Some(default) = default.or_else(empty) {
                beside.insert("default".to_owned(), default);
            }
        }
        if let Some(full) = full {
            let mut extension = |key: &str, value: Option<&str>| {
                if let Some(value) = value {
                    beside.insert(format!("x-kubernetes-{key}"), value.into());
                }
            };
            extension("list-type", full.list_type);
            extension("map-type", full.map_type);
            extension("patch-strategy", full.patch_strategy);
            extension("patch-merge-key", full.patch_merge_key);
            if !full.list_map_keys.is_empty() {
                beside.insert("x-kubernetes-list-map-keys".to_owned(), json!(full.list_map_keys));
            }
        }
        if beside.is_empty() {
            return schema;
        }
        match schema {
            reference if reference.get("$ref").is_some() && self.dialect == Dialect::V3 => {
                beside.insert("allOf".to_owned(), json!([reference]));
            }
            Value::Object(schema) => beside.extend(schema),
            _ => {}
        }
        beside.into()
    }

    /// A struct held by value defaults to the empty one.
    fn is_by_value(&self, owner: &str, field: &str, ty: &str) -> bool {
        let listed = |list: &[(&str, &str)]| {
            list.iter().any(|(t, f)| *f == field && owner.strip_suffix(t).is_some_and(|p| p.ends_with('.')))
        };
        let is_struct = self.facts.get(ty).is_some_and(|t| !t.fields.is_empty());
        if matches!(field, "metadata" | "spec" | "status") {
            return is_struct && !listed(BY_POINTER);
        }
        is_struct && listed(BY_VALUE)
    }

    /// The schema of a type expression: `[]string`, `map:io.k8s...Quantity`.
    fn of(&self, ty: &str) -> Value {
        if let Some(inner) = ty.strip_prefix("[]") {
            return json!({"type": "array", "items": self.of(inner)});
        }
        if let Some(inner) = ty.strip_prefix("map:") {
            return json!({"type": "object", "additionalProperties": self.of(inner)});
        }
        match ty {
            "any" => json!({}),
            "None:int-or-string" => match self.dialect {
                Dialect::V2 => json!({"type": "string", "format": "int-or-string"}),
                Dialect::V3 => {
                    json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
                }
            },
            "oneOf:string|number" => match self.dialect {
                Dialect::V2 => json!({"type": "string"}),
                Dialect::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            },
            name if self.facts.get(name).is_some() => self.dialect.reference(name),
            scalar => match scalar.split_once(':') {
                Some((ty, format)) => json!({"type": ty, "format": format}),
                None => json!({"type": scalar}),
            },
        }
    }
}

/// As the extension `x-kubernetes-group-version-kind` shows it.
pub(super) fn group_version_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}
