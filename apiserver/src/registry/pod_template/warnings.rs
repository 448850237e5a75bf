//! What is allowed in a pod spec and yet surely not meant: deprecated labels and volumes, definitions that hide
//! or repeat each other, amounts that are no whole bytes.
//!
//! Upstream: `pkg/api/pod/warnings.go`.

use serde_json::Value;

use super::resources;
use crate::registry::checks::At;
use crate::registry::tree::{at, field, has, same};

const LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// What to say of a label of nodes that should not be used any more.
pub fn node_label(key: &str) -> Option<&'static str> {
    LABELS.iter().find(|(label, _)| *label == key).map(|(_, advice)| *advice)
}

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

const VOLUMES: [(&str, &str, &str); 8] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
];

/// The warnings about the template at `path` of an object; none for an update that leaves it alone.
pub fn of_template(object: &Value, old: Option<&Value>, path: &[&str]) -> Vec<String> {
    let template = at(object, path);
    if old.is_some_and(|old| same(template, at(old, path))) {
        return Vec::new();
    }
    of_pod(&At { value: template, path: path.join(".") })
}

/// The warnings about a pod or template.
pub fn of_pod(pod: &At<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let (meta, spec) = (pod.at("metadata"), pod.at("spec"));
    labels(&spec, &mut out);
    let annotations = meta.at("annotations");
    for (key, message) in ANNOTATIONS.iter().filter(|(key, _)| annotations.has(key)) {
        out.push(format!("{}[{key}]: {message}", annotations.path));
    }
    for volume in spec.each("volumes") {
        for (_, shown, message) in VOLUMES.iter().filter(|(key, ..)| volume.has(key)) {
            out.push(format!("{}: {message}", volume.under(shown)));
        }
        if volume.has("rbd") {
            out.push(format!("{}: deprecated in v1.28, non-functional in v1.31+", volume.under("rbd")));
        }
    }
    repeated(&spec, "hostAliases", "ip", &mut out);
    repeated(&spec, "imagePullSecrets", "name", &mut out);
    for secret in spec.each("imagePullSecrets").iter().filter(|s| s.text("name").is_empty()) {
        out.push(format!("{}: invalid empty name \"\"", secret.under("name")));
    }
    fractions(&spec.at("overhead"), &mut out);
    if annotations.has("seccomp.security.alpha.kubernetes.io/pod")
        && !spec.at("securityContext").has("seccompProfile")
    {
        out.push(format!("{}[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \"seccompProfile\" field instead", annotations.path));
    }
    let containers: Vec<At<'_>> = ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|key| spec.each(key))
        .collect();
    for container in &containers {
        let resources = container.at("resources");
        fractions(&resources.at("limits"), &mut out);
        fractions(&resources.at("requests"), &mut out);
        hidden_variables(container, &mut out);
    }
    ports(&containers, &mut out);
    if spec.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        let path = spec.under("terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    pod_terms(&spec, &mut out);
    out
}

fn deprecated(label: &str) -> Option<&'static str> {
    LABELS.iter().find(|(key, _)| *key == label).map(|(_, message)| *message)
}

fn labels(spec: &At<'_>, out: &mut Vec<String>) {
    let selector = spec.at("nodeSelector");
    for (key, _) in selector.value.as_object().into_iter().flatten() {
        if let Some(message) = deprecated(key) {
            out.push(format!("{}[{key}]: {message}", selector.path));
        }
    }
    let node = spec.at("affinity").at("nodeAffinity");
    let required = node.at("requiredDuringSchedulingIgnoredDuringExecution").each("nodeSelectorTerms");
    let preferred = node.each("preferredDuringSchedulingIgnoredDuringExecution");
    for term in required.into_iter().chain(preferred.iter().map(|term| term.at("preference"))) {
        for expression in term.each("matchExpressions") {
            if let Some(message) = deprecated(expression.text("key")) {
                let key = expression.text("key");
                out.push(format!("{}: {key} is {message}", expression.under("key")));
            }
        }
    }
    for constraint in spec.each("topologySpreadConstraints") {
        let key = constraint.text("topologyKey");
        if let Some(message) = deprecated(key) {
            out.push(format!("{}: {key} is {message}", constraint.under("topologyKey")));
        }
        no_selector(&constraint, out);
    }
}

fn no_selector(owner: &At<'_>, out: &mut Vec<String>) {
    if !owner.has("labelSelector") {
        let path = owner.under("labelSelector");
        out.push(format!("{path}: a null labelSelector results in matching no pod"));
    }
}

fn pod_terms(spec: &At<'_>, out: &mut Vec<String>) {
    for key in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.at("affinity").at(key);
        for term in affinity.each("requiredDuringSchedulingIgnoredDuringExecution") {
            no_selector(&term, out);
        }
        for term in affinity.each("preferredDuringSchedulingIgnoredDuringExecution") {
            no_selector(&term.at("podAffinityTerm"), out);
        }
    }
}

fn repeated(spec: &At<'_>, list: &str, key: &str, out: &mut Vec<String>) {
    let all = spec.each(list);
    for (i, item) in all.iter().enumerate() {
        let value = item.text(key);
        if all[..i].iter().any(|other| other.text(key) == value) {
            out.push(format!("{}: duplicate {key} {value:?}", item.under(key)));
        }
    }
}

/// Memory in parts of a byte.
fn fractions(list: &At<'_>, out: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let Some(amount) = list.quantity(name).filter(|amount| amount.millis() % 1000 != 0) else { continue };
        let text = field(list.value, name).as_str().and_then(resources::canonical);
        let text = text.unwrap_or_else(|| amount.to_string());
        out.push(format!(
            "{}[{name}]: fractional byte value {text:?} is invalid, must be an integer",
            list.path
        ));
    }
}

/// A variable given twice is the later one, unless that builds on the earlier.
fn hidden_variables(container: &At<'_>, out: &mut Vec<String>) {
    let all = container.each("env");
    for (i, variable) in all.iter().enumerate() {
        let name = variable.text("name");
        if !all[..i].iter().any(|other| other.text("name") == name) {
            continue;
        }
        let (value, reference) = (variable.text("value"), format!("$({name})"));
        if has(variable.value, "valueFrom") || value == reference || !value.contains(&reference) {
            out.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                variable.path
            ));
        }
    }
}

fn ports(containers: &[At<'_>], out: &mut Vec<String>) {
    let all: Vec<At<'_>> = containers.iter().flat_map(|container| container.each("ports")).collect();
    for (i, port) in all.iter().enumerate() {
        let (ip, host) = (port.text("hostIP"), port.int("hostPort").unwrap_or(0));
        for other in &all[..i] {
            let same_port = other.int("containerPort") == port.int("containerPort")
                && other.text("protocol") == port.text("protocol");
            if !same_port {
                continue;
            }
            let (other_ip, other_host) = (other.text("hostIP"), other.int("hostPort").unwrap_or(0));
            let what = if ip == other_ip && host == other_host {
                "duplicate"
            } else if host == 0 || other_host == 0 {
                "overlapping"
            } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            out.push(format!("{}: {what} port definition with {}", port.path, other.path));
        }
    }
    for (i, port) in all.iter().enumerate() {
        let name = port.text("name");
        if let Some(first) = all[..i].iter().find(|other| !name.is_empty() && other.text("name") == name) {
            out.push(format!("{}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}", port.path, first = first.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strange_specs_are_told() {
        let check = |spec: Value, expected: &[&str]| {
            assert_eq!(of_template(&json!({"spec": spec}), None, &[]), expected);
        };
        check(json!({}), &[]);
        check(
            json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
            &[
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            ],
        );
        check(
            json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
            &["spec.imagePullSecrets[1].name: duplicate name \"a\""],
        );
        check(
            json!({"containers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]}),
            &[
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
            ],
        );
        check(
            json!({"containers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]}]}),
            &[],
        );
        check(
            json!({"containers": [{"resources": {"limits": {"memory": "100m"}}}]}),
            &[
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            ],
        );
        check(
            json!({"containers": [{"ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP"}]}]}),
            &["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
        );
    }
}
