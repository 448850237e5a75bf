//! Warnings for clients about objects that are no pods: what is deprecated, ignored, or written in a way that others
//! may read otherwise.
//!
//! Answers to `pkg/api/*/util.go`, `pkg/api/service/warnings.go` and the `WarningsOn...` of upstream's strategies.

use serde_json::Value;

use super::checks::{At, address_advice, range_advice};
use super::pod_template::resources;
use super::pod_template::warnings::node_label;
use super::tree::{annotation, at, entries, field, has, items, same, text};
use crate::object::{self, Object};

type Old<'a> = Option<&'a Object>;

/// `path: advice` for every address of a list.
fn addresses(owner: &At<'_>, key: &str, out: &mut Vec<String>) {
    for (i, address) in owner.strings(key).iter().enumerate() {
        out.extend(address_advice(&format!("{}[{i}]", owner.under(key)), address));
    }
}

fn ranges(owner: &At<'_>, key: &str, out: &mut Vec<String>) {
    for (i, range) in owner.strings(key).iter().enumerate() {
        out.extend(range_advice(&format!("{}[{i}]", owner.under(key)), range));
    }
}

/// Written by one of these controllers, which write addresses as they should be.
fn managed_by(object: &Object, key: &str, controllers: &[&str]) -> bool {
    at(object, &["metadata", "labels", key]).as_str().is_some_and(|by| controllers.contains(&by))
}

pub fn of_endpoints(endpoints: &Object, _: Old<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if managed_by(endpoints, "endpoints.kubernetes.io/managed-by", &["endpoint-controller"]) {
        return out;
    }
    for subset in At::root(endpoints).each("subsets") {
        for address in subset.each("addresses").iter().chain(&subset.each("notReadyAddresses")) {
            out.extend(address_advice(&address.under("ip"), address.text("ip")));
        }
    }
    out
}

pub fn of_endpoint_slice(slice: &Object, old: Old<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if old.is_none() && text(slice, "addressType") == "FQDN" {
        out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let controllers = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
    if !managed_by(slice, "endpointslice.kubernetes.io/managed-by", &controllers) {
        At::root(slice).each("endpoints").iter().for_each(|one| addresses(one, "addresses", &mut out));
    }
    out
}

pub fn of_node(node: &Object, _: Old<'_>) -> Vec<String> {
    let spec = At::root(node).at("spec");
    let mut out = Vec::new();
    if spec.has("configSource") {
        out.push("spec.configSource: the feature is removed".to_owned());
    }
    if !spec.text("externalID").is_empty() {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    ranges(&spec, "podCIDRs", &mut out);
    out
}

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub fn of_volume(volume: &Object, _: Old<'_>) -> Vec<String> {
    let spec = At::root(volume).at("spec");
    let mut out = Vec::new();
    for (key, advice) in [
        (CLASS_ANNOTATION, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        (
            "volume.beta.kubernetes.io/mount-options",
            "deprecated since v1.31; use \"mountOptions\" attribute instead",
        ),
    ] {
        if annotation(volume, key).is_some() {
            out.push(format!("metadata.annotations[{key}]: {advice}"));
        }
    }
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
    }
    for term in spec.at("nodeAffinity").at("required").each("nodeSelectorTerms") {
        expression_keys(&term, &mut out);
    }
    for (source, shown, advice) in [
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ] {
        if spec.has(source) {
            out.push(format!("spec.{shown}: {advice}"));
        }
    }
    out
}

/// Deprecated labels of nodes as keys of expressions.
fn expression_keys(owner: &At<'_>, out: &mut Vec<String>) {
    for expression in owner.each("matchExpressions") {
        let key = expression.text("key");
        if let Some(advice) = node_label(key) {
            out.push(format!("{}: {key} is {advice}", expression.under("key")));
        }
    }
}

pub fn of_claim(claim: &Object, _: Old<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if annotation(claim, CLASS_ANNOTATION).is_some() {
        out.push(format!("metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute instead"));
    }
    for key in ["requests", "limits"] {
        let value = at(claim, &["spec", "resources", key, "storage"]);
        if let Some(amount) = resources::read(value).filter(|q| q.millis() % 1000 != 0) {
            out.push(format!(
                "spec.resources.{key}[storage]: fractional byte value \"{amount}\" is invalid, must be an integer"
            ));
        }
    }
    out
}

pub fn of_service_account(account: &Object, old: Old<'_>) -> Vec<String> {
    const KEY: &str = "kubernetes.io/enforce-mountable-secrets";
    let known = old.is_some_and(|old| annotation(old, KEY).is_some());
    if known || annotation(account, KEY).is_none() {
        return Vec::new();
    }
    vec![format!(
        "metadata.annotations[{KEY}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
    )]
}

pub fn of_service(service: &Object, _: Old<'_>) -> Vec<String> {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let spec = At::root(service).at("spec");
    let mut out = Vec::new();
    if annotation(service, HINTS).is_some() {
        out.push(format!("annotation {HINTS} is deprecated, please use {MODE} instead"));
    }
    let headless = spec.strings("clusterIPs") == ["None"] || spec.text("clusterIP") == "None";
    let external_name = spec.text("type") == "ExternalName";
    if !headless && !external_name && !matches!(spec.text("clusterIP"), "" | "None") {
        addresses(&spec, "clusterIPs", &mut out);
    }
    let external = !spec.strings("externalIPs").is_empty();
    if headless {
        if !spec.text("loadBalancerIP").is_empty() {
            out.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if external {
            out.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if spec.text("sessionAffinity") != "None" {
            out.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    addresses(&spec, "externalIPs", &mut out);
    if external && !headless && !external_name {
        out.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    if !spec.text("loadBalancerIP").is_empty() {
        out.extend(address_advice("spec.loadBalancerIP", spec.text("loadBalancerIP")));
    }
    ranges(&spec, "loadBalancerSourceRanges", &mut out);
    if external_name && external {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external_name && !spec.text("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        out.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
    out
}

pub fn of_pod_status(pod: &Object) -> Vec<String> {
    let status = At::root(pod).at("status");
    let listed = ["podIPs", "hostIPs"].into_iter().flat_map(|key| status.each(key));
    listed.filter_map(|entry| address_advice(&entry.under("ip"), entry.text("ip"))).collect()
}

/// Of a service or an ingress; upstream names the entry, not its field.
pub fn of_load_balancer(object: &Object) -> Vec<String> {
    let entries = At::root(object).at("status").at("loadBalancer").each("ingress");
    entries.iter().filter_map(|entry| address_advice(&entry.path, entry.text("ip"))).collect()
}

pub fn of_network_policy(policy: &Object, _: Old<'_>) -> Vec<String> {
    let spec = At::root(policy).at("spec");
    let mut out = Vec::new();
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for block in
            spec.each(direction).iter().flat_map(|rule| rule.each(peers)).map(|peer| peer.at("ipBlock"))
        {
            if block.present() {
                out.extend(range_advice(&block.under("cidr"), block.text("cidr")));
                ranges(&block, "except", &mut out);
            }
        }
    }
    out
}

pub fn of_runtime_class(class: &Object, _: Old<'_>) -> Vec<String> {
    let labels = entries(field(class, "scheduling"), "nodeSelector");
    labels.filter_map(|(key, _)| Some(format!("scheduling.nodeSelector: {}", node_label(key)?))).collect()
}

pub fn of_storage_class(class: &Object, _: Old<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for topology in At::root(class).each("allowedTopologies") {
        for expression in topology.each("matchLabelExpressions") {
            if let Some(advice) = node_label(expression.text("key")) {
                out.push(format!("{}: {advice}", expression.under("key")));
            }
        }
    }
    out
}

pub fn of_storage_capacity(capacity: &Object, _: Old<'_>) -> Vec<String> {
    let topology = At::root(capacity).at("nodeTopology");
    let mut out = Vec::new();
    expression_keys(&topology, &mut out);
    for (key, _) in entries(topology.value, "matchLabels") {
        if let Some(advice) = node_label(key) {
            out.push(format!("{}.{key}: {advice}", topology.under("matchLabels")));
        }
    }
    out
}

pub fn of_csi_driver(driver: &Object, old: Old<'_>) -> Vec<String> {
    let spec = field(driver, "spec");
    let requests = field(spec, "tokenRequests");
    let unchanged = old.is_some_and(|old| same(at(old, &["spec", "tokenRequests"]), requests));
    if unchanged || items(spec, "tokenRequests").is_empty() || has(spec, "serviceAccountTokenInSecrets") {
        return Vec::new();
    }
    vec!["spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".to_owned()]
}

pub fn of_quota(quota: &Object, old: Old<'_>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let hard = at(quota, &["spec", "hard"]);
    let amount = |name: &str| Some((name.to_owned(), resources::read(hard.get(name)?)?));
    let mut out = Vec::new();
    for resource in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let bare = || if matches!(resource, "cpu" | "memory") { amount(resource) } else { None };
        let request = amount(&format!("requests.{resource}")).or_else(bare);
        let limit = amount(&format!("limits.{resource}"));
        let (Some((request, wanted)), Some((limit, most))) = (request, limit) else { continue };
        if wanted > most {
            let shown = |name: &str| hard.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
            out.push(format!(
                "ResourceQuota {request} ({}) should be less than {limit} ({})",
                shown(&request),
                shown(&limit)
            ));
        }
    }
    out
}

/// Admission configuration whose name belongs to files.
pub fn of_admission(object: &Object, _: Old<'_>) -> Vec<String> {
    reserved_name(object::name(object)).map(|why| format!("metadata.name: {why}")).into_iter().collect()
}

/// What is said of a name that belongs to files.
pub fn reserved_name(name: &str) -> Option<String> {
    const SUFFIX: &str = ".static.k8s.io";
    let why = || {
        format!(
            "names ending with \"{SUFFIX}\" are reserved for static manifest-based configurations and cannot be managed via the API"
        )
    };
    name.ends_with(SUFFIX).then(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_in_a_status_are_commented() {
        let status = json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "FD00::1"}],
            "hostIPs": [{"ip": "010.0.0.1"}], "loadBalancer": {"ingress": [{"hostname": "a"}, {"ip": "::ffff:1.2.3.4"}]}}});
        assert_eq!(
            of_pod_status(&status),
            [
                "status.podIPs[1].ip: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
                "status.hostIPs[0].ip: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"",
            ]
        );
        assert_eq!(
            of_load_balancer(&status),
            [
                "status.loadBalancer.ingress[1]: non-standard IP address \"::ffff:1.2.3.4\" is invalid: use \"1.2.3.4\""
            ]
        );
    }

    #[test]
    fn objects_are_commented_in_upstreams_words() {
        let check = |warnings: fn(&Object, Old<'_>) -> Vec<String>, object: Value, expected: &[&str]| {
            assert_eq!(warnings(&object, None), expected, "{object}");
        };
        check(of_node, json!({"spec": {"podCIDRs": ["10.0.0.0/24", "fd00::/64"]}}), &[]);
        check(
            of_node,
            json!({"spec": {"externalID": "x", "podCIDRs": ["010.0.0.0/24", "10.0.0.1/24", "FD00::/64"]}}),
            &[
                "spec.externalID: this field is deprecated, and is unused by Kubernetes",
                "spec.podCIDRs[0]: non-standard CIDR value \"010.0.0.0/24\" is invalid: use \"10.0.0.0/24\"",
                "spec.podCIDRs[1]: CIDR value \"10.0.0.1/24\" is ambiguous in this context (should be \"10.0.0.0/24\" or \"10.0.0.1/32\"?)",
                "spec.podCIDRs[2]: IPv6 CIDR value \"FD00::/64\" should be in RFC 5952 canonical format (\"fd00::/64\")",
            ],
        );
        check(
            of_endpoints,
            json!({"subsets": [{"addresses": [{"ip": "010.0.0.1"}], "notReadyAddresses": [{"ip": "FD00::1"}]}]}),
            &[
                "subsets[0].addresses[0].ip: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"",
                "subsets[0].notReadyAddresses[0].ip: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
            ],
        );
        check(
            of_service,
            json!({"spec": {"clusterIP": "None", "externalIPs": ["1.2.3.4"], "sessionAffinity": "None",
                "trafficDistribution": "PreferClose"}}),
            &[
                "spec.externalIPs is ignored for headless services",
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ],
        );
        check(
            of_quota,
            json!({"spec": {"hard": {"cpu": "2", "limits.cpu": "1"}}}),
            &["ResourceQuota cpu (2) should be less than limits.cpu (1)"],
        );
        check(
            of_runtime_class,
            json!({"scheduling": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}),
            &["scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/os\" instead"],
        );
        check(
            of_volume,
            json!({"spec": {"persistentVolumeReclaimPolicy": "Retain", "rbd": {}, "nodeAffinity": {"required": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "beta.kubernetes.io/arch"}]}]}}}}),
            &[
                "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" instead",
                "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
            ],
        );
    }
}
