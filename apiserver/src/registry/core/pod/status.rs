//! `pods/status`: what kubelets, the scheduler and device drivers tell of a pod, and what they cannot.
//!
//! Answers to `podStatusStrategy` and to `ValidatePodStatusUpdate`.

use std::net::IpAddr;

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::{annotations, restarts};
use crate::features::Features;
use crate::object::Object;
use crate::registry::checks::{At, legacy_ip};
use crate::registry::names;
use crate::registry::pod_template::resources::read;
use crate::registry::pod_template::security;
use crate::registry::tree::{
    at, carry, default_zero, entries, field, has, int, items, items_mut, set, strings, struct_mut, text,
};

/// The lists of container statuses, and of the containers they are about.
const STATUSES: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
];

const IMAGE_REF_BYTES_MAX: usize = 256;
const HEALTH_MESSAGE_BYTES_MAX: usize = 1024;

/// What a status write cannot take away: owners, the class, the generation that was seen.
pub fn prepare(pod: &mut Object, old: &Object) {
    if let Some(metadata) = pod.get_mut("metadata") {
        carry(metadata, field(old, "metadata"), "ownerReferences");
    }
    let before = field(old, "status");
    let Some(status) = struct_mut(pod, "status") else { return };
    if has(before, "qosClass") {
        default_zero(status, "qosClass", field(before, "qosClass").clone());
    }
    one_address(status);
    if let Some(seen) = int(before, "observedGeneration") {
        default_zero(status, "observedGeneration", seen);
    }
    let mut known: Vec<(&str, i64)> = items(before, "conditions")
        .iter()
        .map(|c| (text(c, "type"), int(c, "observedGeneration").unwrap_or(0)))
        .collect();
    // There may be several of a type: the first new one follows the first old one.
    for condition in items_mut(status, "conditions") {
        let kind = text(condition, "type").to_owned();
        let Some(found) = known.iter().position(|(of, _)| *of == kind) else { continue };
        let (_, seen) = known.remove(found);
        if seen != 0 {
            default_zero(condition, "observedGeneration", seen);
        }
    }
}

/// `podIP` and the first of `podIPs` are one: where they differ the older field counts.
fn one_address(status: &mut Value) {
    let first = items(status, "podIPs").first().map(|ip| text(ip, "ip").to_owned());
    let alone = text(status, "podIP").to_owned();
    match first {
        Some(first) if alone.is_empty() => set(status, "podIP", first),
        Some(first) if first == alone => {}
        _ if alone.is_empty() => {}
        _ => set(status, "podIPs", json!([{"ip": alone}])),
    }
}

/// Rules without a gate.
pub fn validate(new: &Object, old: &Object, errors: &mut FieldErrors) {
    annotations::changes(new, old, errors);
    let status = At::root(new).at("status");
    let before = field(old, "status");
    conditions(&status, errors);
    let nominated = status.text("nominatedNodeName");
    if nominated != text(before, "nominatedNodeName") {
        status.shaped_if_set("nominatedNodeName", names::dns1123_subdomain, errors);
    }
    if status.int("observedGeneration").is_some_and(|seen| seen < 0) {
        status.invalid("observedGeneration", "must be a non-negative integer", errors);
    }
    status.immutable(&At::root(old).at("status"), &["qosClass"], errors);
    restarts::none(status.value, before, "ephemeralContainerStatuses", errors);
    let spec = field(new, "spec");
    claims(&status, spec, errors);
    extended_claim(&status.at("extendedResourceClaimStatus"), spec, errors);
    node_claims(&status, spec, errors);
    addresses(&status, before, "podIPs", errors);
    if let Some(first) = status.each("hostIPs").first() {
        if first.text("ip") != status.text("hostIP") {
            first.invalid("ip", "must be equal to `hostIP`", errors);
        }
        addresses(&status, before, "hostIPs", errors);
    }
    for (list, of) in STATUSES {
        for told in status.each(list) {
            users(&told, text(field(spec, "os"), "name"), errors);
            let health = told.each("allocatedResourcesStatus");
            if list == "ephemeralContainerStatuses" {
                if !health.is_empty() {
                    told.forbidden(
                        "allocatedResourcesStatus",
                        "must not be specified in container status",
                        errors,
                    );
                }
                continue;
            }
            let container = items(spec, of).iter().find(|c| text(c, "name") == told.text("name"));
            health.iter().for_each(|resource| resource_health(resource, container, errors));
        }
    }
}

/// Rules that depend on gates: restarts, the node a bound pod may be nominated for, digests of image volumes.
pub fn gated(new: &Object, old: &Object, features: &Features, errors: &mut FieldErrors) {
    let (status, before) = (field(new, "status"), field(old, "status"));
    let nominated = text(status, "nominatedNodeName");
    if features.enabled("ClearingNominatedNodeNameAfterBinding")
        && !text(field(old, "spec"), "nodeName").is_empty()
        && !nominated.is_empty()
        && nominated != text(before, "nominatedNodeName")
    {
        errors
            .forbidden("status.nominatedNodeName", "may not be set on pods that are already bound to a node");
    }
    restarts::validate(new, old, features, errors);
    let digests = |status: &Value| {
        let all = STATUSES.iter().flat_map(|(list, _)| items(status, list));
        all.flat_map(|told| items(told, "volumeMounts")).any(|mount| has(mount, "volumeStatus"))
    };
    if features.enabled("ImageVolumeWithDigest") || digests(before) {
        for (list, _) in STATUSES {
            for told in At::root(new).at("status").each(list) {
                told.each("volumeMounts").iter().for_each(|mount| digest(mount, errors));
            }
        }
    }
}

fn digest(mount: &At<'_>, errors: &mut FieldErrors) {
    let status = mount.at("volumeStatus");
    if !status.has("image") {
        return;
    }
    // Upstream's path names the type, not the field.
    let path = status.under("imageVolumeStatus.imageRef");
    match text(field(status.value, "image"), "imageRef") {
        "" => errors.required(path, "imageRef must not be empty"),
        long if long.len() > IMAGE_REF_BYTES_MAX => errors.too_long(path, IMAGE_REF_BYTES_MAX),
        _ => {}
    }
}

fn conditions(status: &At<'_>, errors: &mut FieldErrors) {
    for condition in status.each("conditions") {
        if condition.int("observedGeneration").is_some_and(|seen| seen < 0) {
            condition.invalid("observedGeneration", "must be a non-negative integer", errors);
        }
        let kind = condition.text("type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            for message in names::qualified_name(kind) {
                errors.invalid(condition.under("Type"), kind, message);
            }
        }
    }
}

fn addresses(status: &At<'_>, before: &Value, key: &str, errors: &mut FieldErrors) {
    let known: Vec<&str> = items(before, key).iter().map(|ip| text(ip, "ip")).collect();
    let all: Vec<&str> = items(status.value, key).iter().map(|ip| text(ip, "ip")).collect();
    for (i, ip) in all.iter().enumerate().filter(|(_, ip)| !known.contains(ip)) {
        for message in legacy_ip(ip) {
            errors.invalid(format!("{}[{i}]", status.under(key)), ip, message);
        }
    }
    let read: Vec<IpAddr> = all.iter().filter_map(|ip| ip.parse().ok()).collect();
    let both = read.iter().any(IpAddr::is_ipv4) && read.iter().any(IpAddr::is_ipv6);
    if all.len() > 2 || (all.len() == 2 && !both) {
        status.invalid(key, "may specify no more than one IP for each IP family", errors);
    }
}

/// `resourceClaimStatuses`: of claims that the pod has, once each.
fn claims(status: &At<'_>, spec: &Value, errors: &mut FieldErrors) {
    let known: Vec<&str> = items(spec, "resourceClaims").iter().map(|c| text(c, "name")).collect();
    let mut seen = Vec::new();
    for told in status.each("resourceClaimStatuses") {
        let name = told.text("name");
        if !known.contains(&name) {
            told.invalid("name", "must match the name of an entry in `spec.resourceClaims`", errors);
        }
        if seen.contains(&name) {
            errors.duplicate(told.under("name"), name);
        }
        seen.push(name);
        if told.has("resourceClaimName") {
            told.shaped("resourceClaimName", names::dns1123_subdomain, errors);
        }
    }
}

/// `extendedResourceClaimStatus`: which request of the claim stands for which container's resource.
fn extended_claim(told: &At<'_>, spec: &Value, errors: &mut FieldErrors) {
    if !told.present() {
        return;
    }
    let containers = || items(spec, "containers").iter().chain(items(spec, "initContainers"));
    let mappings = told.each("requestMappings");
    if mappings.is_empty() {
        told.required("requestMappings", "at least one request mapping is required", errors);
    }
    let mut seen = Vec::new();
    for mapping in &mappings {
        let (name, resource) = (mapping.text("containerName"), mapping.text("resourceName"));
        match containers().find(|c| text(c, "name") == name) {
            None => {
                let detail =
                    "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                mapping.invalid("containerName", detail, errors);
            }
            Some(container) if !has(at(container, &["resources", "requests"]), resource) => {
                let detail = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                mapping.invalid("resourceName", detail, errors);
            }
            Some(_) => {}
        }
        let request = mapping.text("requestName");
        for message in names::dns1123_label(request) {
            errors.invalid(told.under("requestName"), request, message);
        }
        let whole = (name, resource, request);
        if seen.contains(&whole) {
            for key in ["containerName", "resourceName", "requestName"] {
                errors.duplicate(mapping.under(key), mapping.text(key));
            }
        }
        seen.push(whole);
    }
    told.required_shaped("resourceClaimName", names::dns1123_subdomain, errors);
}

/// `nodeAllocatableResourceClaimStatuses`: what claims take of the node's own resources.
fn node_claims(status: &At<'_>, spec: &Value, errors: &mut FieldErrors) {
    for told in status.each("nodeAllocatableResourceClaimStatuses") {
        let name = told.text("resourceClaimName");
        if name.is_empty() {
            told.required("resourceClaimName", "must not be empty", errors);
        }
        let mut known =
            items(spec, "resourceClaims").iter().chain(items(status.value, "resourceClaimStatuses"));
        if !known.any(|claim| field(claim, "resourceClaimName").as_str() == Some(name)) {
            told.invalid("resourceClaimName", "no mapping found in pod reference", errors);
        }
        if strings(told.value, "containers").is_empty() {
            told.required("containers", "must not be empty", errors);
        }
        if entries(told.value, "resources").next().is_none() {
            told.required("resources", "must not be empty", errors);
        }
        for (name, quantity) in entries(told.value, "resources") {
            let path = format!("{}[{name}]", told.under("resources"));
            if name.contains('/') && !name.contains("kubernetes.io/") {
                errors.invalid(&path, name, "must be a node allocatable resource name");
            }
            if let Some(negative) = read(quantity).filter(|q| q.is_negative()) {
                errors.invalid(&path, negative.to_string(), "must be non-negative");
            }
        }
    }
}

fn users(told: &At<'_>, os: &str, errors: &mut FieldErrors) {
    let user = told.at("user");
    if !user.has("linux") {
        return;
    }
    if os == "windows" {
        user.forbidden("linux", "cannot be set for a windows pod", errors);
        return;
    }
    let linux = user.at("linux");
    for key in ["uid", "gid"] {
        security::id(linux.int(key), linux.under(key), errors);
    }
    for (i, group) in items(linux.value, "supplementalGroups").iter().enumerate() {
        security::id(group.as_i64(), format!("{}[{i}]", linux.under("supplementalGroups")), errors);
    }
}

/// `allocatedResourcesStatus`: resources that the container asked for, each device once.
fn resource_health(told: &At<'_>, container: Option<&Value>, errors: &mut FieldErrors) {
    let name = told.text("name");
    // A status may be of a container that is no more.
    if let Some(resources) = container.map(|container| field(container, "resources")) {
        let claimed = |claim: &Value| match text(claim, "request") {
            "" => format!("claim:{}", text(claim, "name")),
            request => format!("claim:{}/{request}", text(claim, "name")),
        };
        if name.starts_with("claim:") {
            if !items(resources, "claims").iter().any(|claim| claimed(claim) == name) {
                let detail = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";
                told.invalid("name", detail, errors);
            }
        } else if !has(field(resources, "requests"), name) {
            told.invalid("name", "must match one of the container's resource requests", errors);
        }
    }
    let mut seen = Vec::new();
    for device in told.each("resources") {
        let health = ["Healthy", "Unhealthy", "Unknown"];
        if !health.contains(&device.text("health")) {
            errors.not_supported(device.under("health"), device.text("health"), &health);
        }
        if device.has("message") {
            match device.text("message").len() {
                0 => device.required("message", "must be non-empty if specified", errors),
                n if n > HEALTH_MESSAGE_BYTES_MAX => {
                    errors.too_long(device.under("message"), HEALTH_MESSAGE_BYTES_MAX);
                }
                _ => {}
            }
        }
        let id = device.text("resourceID");
        if seen.contains(&id) {
            errors.duplicate(device.under("resourceID"), id);
        }
        seen.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::gated::Gated;
    use crate::registry::rules::StatusStrategy;
    use crate::resources::Strategy;

    fn found(features: Features, old: &Object, mut new: Object) -> Vec<String> {
        let gated = Gated::new(std::sync::Arc::new(features), "", "pods");
        let strategy = StatusStrategy::new(super::super::RULES, &[]).gated(gated);
        strategy.prepare_for_update(&mut new, old);
        strategy.validate_update(&new, old).0.iter().map(ToString::to_string).collect()
    }

    /// A status written over the pod's own, with the gates at their defaults.
    fn check(status: Value, expected: &[&str]) {
        let mut old = super::super::tests::pod();
        old["spec"]["resourceClaims"] = json!([{"name": "r"}]);
        old["spec"]["containers"][0]["resources"] = json!({"requests": {"example.com/d": "1"}});
        let mut new = old.clone();
        for (key, value) in status.as_object().expect("fields") {
            new["status"][key] = value.clone();
        }
        assert_eq!(found(Features::default(), &old, new), expected);
    }

    #[test]
    fn addresses_are_one_of_each_family() {
        check(json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}), &[]);
        check(
            json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}),
            &[
                "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may specify no more than one IP for each IP family",
            ],
        );
        check(
            json!({"podIP": "x"}),
            &[
                "status.podIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        );
        check(
            json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]}),
            &["status.hostIPs[0].ip: Invalid value: \"10.0.0.2\": must be equal to `hostIP`"],
        );
    }

    #[test]
    fn what_is_told_is_checked() {
        check(json!({"conditions": [{"type": "example.com/x", "status": "True"}]}), &[]);
        check(
            json!({"conditions": [{"type": "a b", "status": "True", "observedGeneration": -1}],
                "observedGeneration": -2}),
            &[
                "status.conditions[0].observedGeneration: Invalid value: -1: must be a non-negative integer",
                "status.conditions[0].Type: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                "status.observedGeneration: Invalid value: -2: must be a non-negative integer",
            ],
        );
        check(
            json!({"qosClass": "Guaranteed"}),
            &["status.qosClass: Invalid value: \"Guaranteed\": field is immutable"],
        );
        check(
            json!({"nominatedNodeName": "m"}),
            &["status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node"],
        );
        check(
            json!({"resourceClaimStatuses": [{"name": "r"}, {"name": "r"}, {"name": "q"}]}),
            &[
                "status.resourceClaimStatuses[1].name: Duplicate value: \"r\"",
                "status.resourceClaimStatuses[2].name: Invalid value: \"q\": must match the name of an entry in `spec.resourceClaims`",
            ],
        );
        check(
            json!({"extendedResourceClaimStatus": {"resourceClaimName": "c", "requestMappings": [
                {"containerName": "c", "resourceName": "example.com/d", "requestName": "a"},
                {"containerName": "x", "resourceName": "example.com/d", "requestName": "b"}]}}),
            &[
                "status.extendedResourceClaimStatus.requestMappings[1].containerName: Invalid value: \"x\": must match the name of an entry in spec.initContainers.name or spec.containers.name",
            ],
        );
        check(
            json!({"containerStatuses": [{"name": "c", "user": {"linux": {"uid": -1, "gid": 0}},
                "allocatedResourcesStatus": [{"name": "example.com/d", "resources": [
                    {"resourceID": "1", "health": "Healthy"}, {"resourceID": "1", "health": "Fine"}]},
                    {"name": "claim:r"}]}]}),
            &[
                "status.containerStatuses[0].user.linux.uid: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "status.containerStatuses[0].allocatedResourcesStatus[0].resources[1].health: Unsupported value: \"Fine\": supported values: \"Healthy\", \"Unhealthy\", \"Unknown\"",
                "status.containerStatuses[0].allocatedResourcesStatus[0].resources[1].resourceID: Duplicate value: \"1\"",
                "status.containerStatuses[0].allocatedResourcesStatus[1].name: Invalid value: \"claim:r\": must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
            ],
        );
    }

    #[test]
    fn what_was_seen_is_not_taken_away() {
        let mut old = super::super::tests::pod();
        old["status"]["observedGeneration"] = json!(4);
        let of = |kind: &str, seen: i64| json!({"type": kind, "status": "True", "observedGeneration": seen});
        old["status"]["conditions"] = json!([of("Ready", 3), of("Ready", 2), of("a.b/c", 1)]);
        let mut new = old.clone();
        new["status"] = json!({"podIPs": [{"ip": "10.0.0.1"}], "conditions": [
            {"type": "Ready", "status": "False"}, of("Ready", 5), {"type": "new", "status": "True"}]});
        prepare(&mut new, &old);
        let status = &new["status"];
        assert_eq!(status["observedGeneration"], 4);
        assert_eq!(status["qosClass"], "BestEffort");
        assert_eq!(status["podIP"], "10.0.0.1");
        let seen: Vec<&Value> =
            items(status, "conditions").iter().map(|c| field(c, "observedGeneration")).collect();
        assert_eq!(seen, [&json!(3), &json!(5), &Value::Null]);
    }

    #[test]
    fn digests_are_of_image_volumes_with_the_gate() {
        let old = super::super::tests::pod();
        let mut new = old.clone();
        let mount = json!({"name": "v", "mountPath": "/v", "volumeStatus": {"image": {"imageRef": ""}}});
        new["status"]["containerStatuses"] = json!([{"name": "c", "volumeMounts": [mount]}]);
        assert_eq!(found(Features::default(), &old, new.clone()), [""; 0], "dropped");
        assert_eq!(
            found(Features::default().with("ImageVolumeWithDigest", true), &old, new),
            [
                "status.containerStatuses[0].volumeMounts[0].volumeStatus.imageVolumeStatus.imageRef: Required value: imageRef must not be empty"
            ]
        );
    }
}
