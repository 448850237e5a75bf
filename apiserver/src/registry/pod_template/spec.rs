//! The pod spec as a whole.

use common::status::FieldErrors;
use serde_json::Value;

use super::containers::{self, Surroundings, one_of};
use super::metadata::labels;
use super::{affinity, platform, pod_resources, resources, security, tolerations, volumes};
use crate::registry::checks::{At, legacy_ip};
use crate::registry::names;
use crate::registry::tree::{at, field, flag, has, int, is_zero, items, strings, text};

/// Checks a PodSpec at `path`; `meta` is the metadata of the pod or template around it.
pub fn validate(spec: &Value, _meta: &Value, path: &str, errors: &mut FieldErrors) {
    if !has(spec, "terminationGracePeriodSeconds") {
        errors.required(format!("{path}.terminationGracePeriodSeconds"), "");
    }
    let host_users = !has(spec, "hostUsers") || flag(spec, "hostUsers");
    let good = volumes::validate(spec, &format!("{path}.volumes"), errors);
    let claims = resource_claims(spec, &format!("{path}.resourceClaims"), errors);
    let around = Surroundings {
        volumes: &good,
        claims: &claims,
        grace: int(spec, "terminationGracePeriodSeconds"),
        os: text(field(spec, "os"), "name"),
        restart_policy: text(spec, "restartPolicy"),
        host_users,
    };
    containers::validate(spec, &around, &format!("{path}.containers"), errors);
    containers::validate_init(spec, &around, &format!("{path}.initContainers"), errors);
    containers::validate_ephemeral(spec, &around, &format!("{path}.ephemeralContainers"), errors);
    let here = At { value: spec, path: path.to_owned() };
    pod_resources::validate(&here, errors);
    host_network(spec, path, errors);
    one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], path, errors);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(spec, "dnsPolicy", &policies, path, errors);
    labels(field(spec, "nodeSelector"), &format!("{path}.nodeSelector"), errors);
    security::validate_pod(spec, &format!("{path}.securityContext"), errors);
    affinity::validate(field(spec, "affinity"), &format!("{path}.affinity"), errors);
    dns_config(spec, &format!("{path}.dnsConfig"), errors);
    gates(spec, path, errors);
    affinity::validate_spread(spec, &format!("{path}.topologySpreadConstraints"), errors);
    platform::host_process(&here, errors);
    if !host_users {
        user_namespace(spec, path, errors);
    }
    named(spec, path, errors);
    if let Some(seconds) =
        int(spec, "activeDeadlineSeconds").filter(|s| !(1..=i64::from(i32::MAX)).contains(s))
    {
        errors.invalid(
            format!("{path}.activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        );
    }
    tolerations::validate(spec, &format!("{path}.tolerations"), errors);
    host_aliases(spec, &format!("{path}.hostAliases"), errors);
    if has(spec, "preemptionPolicy") {
        one_of(spec, "preemptionPolicy", &["PreemptLowerPriority", "Never"], path, errors);
    }
    let overhead = field(spec, "overhead");
    if !overhead.is_null() {
        let limits = serde_json::json!({"limits": overhead});
        resources::validate(&limits, &[], &format!("{path}.overhead"), errors);
    }
    platform::validate(&here, errors);
    if has(spec, "schedulingGroup") {
        let group = here.at("schedulingGroup");
        if group.has("podGroupName") {
            group.shaped("podGroupName", names::dns1123_subdomain, errors);
        } else {
            group.invalid("podGroupName", "must specify one of: `podGroupName`", errors);
        }
    }
}

fn resource_claims<'a>(spec: &'a Value, path: &str, errors: &mut FieldErrors) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for (i, claim) in items(spec, "resourceClaims").iter().enumerate() {
        let here = format!("{path}[{i}]");
        let name = text(claim, "name");
        if name.is_empty() {
            errors.required(format!("{here}.name"), "");
        } else if seen.contains(&name) {
            errors.duplicate(format!("{here}.name"), name);
        } else {
            for message in names::dns1123_label(name) {
                errors.invalid(format!("{here}.name"), name, message);
            }
            seen.push(name);
        }
        let keys = ["resourceClaimName", "resourceClaimTemplateName"];
        match keys.iter().filter(|k| has(claim, k)).count() {
            0 => errors.invalid(
                &here,
                claim,
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            1 => {}
            _ => errors.invalid(
                &here,
                claim,
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
        }
        for key in keys.iter().filter(|k| has(claim, k)) {
            for message in names::dns1123_subdomain(text(claim, key)) {
                errors.invalid(format!("{here}.{key}"), text(claim, key), message);
            }
        }
    }
    seen
}

/// In the host's network a container's port is the node's. A template may leave it open: the pod made of it gets it
/// by default, as every pod does.
fn host_network(spec: &Value, path: &str, errors: &mut FieldErrors) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    for (i, container) in items(spec, "containers").iter().enumerate() {
        for (j, port) in items(container, "ports").iter().enumerate() {
            let host = int(port, "hostPort").unwrap_or(0);
            if host != 0 && host != int(port, "containerPort").unwrap_or(0) {
                let message = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(format!("{path}.containers[{i}].ports[{j}].hostPort"), host, message);
            }
        }
    }
}

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;

fn dns_config(spec: &Value, path: &str, errors: &mut FieldErrors) {
    let config = field(spec, "dnsConfig");
    let servers = strings(config, "nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if !has(spec, "dnsConfig") {
            errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            errors.required(
                format!("{path}.nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
            return;
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        errors.invalid(
            format!("{path}.nameservers"),
            &servers,
            format!("must not have more than {NAMESERVERS_MAX} nameservers"),
        );
    }
    for (i, server) in servers.iter().enumerate() {
        for message in legacy_ip(server) {
            errors.invalid(format!("{path}.nameservers[{i}]"), server, message);
        }
    }
    let searches = strings(config, "searches");
    if searches.len() > SEARCHES_MAX {
        errors.invalid(
            format!("{path}.searches"),
            &searches,
            format!("must not have more than {SEARCHES_MAX} search paths"),
        );
    }
    if searches.join(" ").len() > SEARCH_CHARACTERS_MAX {
        errors.invalid(
            format!("{path}.searches"),
            &searches,
            format!(
                "must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in the search list"
            ),
        );
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| **s != ".") {
        let plain = search.trim_end_matches('.').replace('_', "a");
        for message in names::dns1123_subdomain(&plain) {
            errors.invalid(format!("{path}.searches[{i}]"), search, message);
        }
    }
    for (i, option) in items(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.required(format!("{path}.options[{i}]"), "must not be empty");
        }
    }
}

fn gates(spec: &Value, path: &str, errors: &mut FieldErrors) {
    for (i, gate) in items(spec, "readinessGates").iter().enumerate() {
        let kind = text(gate, "conditionType");
        for message in names::qualified_name(kind) {
            errors.invalid(format!("{path}.readinessGates[{i}].conditionType"), kind, message);
        }
    }
    let mut seen = Vec::new();
    for (i, gate) in items(spec, "schedulingGates").iter().enumerate() {
        let here = format!("{path}.schedulingGates[{i}]");
        let name = text(gate, "name");
        for message in names::qualified_name(name) {
            errors.invalid(&here, name, message);
        }
        if seen.contains(&name) {
            errors.duplicate(&here, name);
        }
        seen.push(name);
    }
}

fn user_namespace(spec: &Value, path: &str, errors: &mut FieldErrors) {
    for (key, shown) in [("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if flag(spec, key) {
            errors.forbidden(format!("{path}.{shown}"), "when `hostUsers` is false");
        }
    }
}

fn named(spec: &Value, path: &str, errors: &mut FieldErrors) {
    let label: fn(&str) -> Vec<String> = names::dns1123_label;
    let subdomain: fn(&str) -> Vec<String> = names::dns1123_subdomain;
    for (key, check) in [
        ("serviceAccountName", subdomain),
        ("nodeName", subdomain),
        ("hostname", label),
        ("subdomain", label),
        ("priorityClassName", subdomain),
        ("runtimeClassName", subdomain),
    ] {
        let value = text(spec, key);
        if !value.is_empty() {
            for message in check(value) {
                errors.invalid(format!("{path}.{key}"), value, message);
            }
        }
    }
    for (i, secret) in items(spec, "imagePullSecrets").iter().enumerate() {
        let extra = secret.as_object().is_some_and(|m| m.iter().any(|(k, v)| k != "name" && !is_zero(v)));
        if extra {
            errors.invalid(format!("{path}.imagePullSecrets[{i}]"), secret, "only name may be set");
        }
    }
    if at(spec, &["hostnameOverride"]).is_string() && flag(spec, "setHostnameAsFQDN") {
        errors.forbidden(
            format!("{path}.hostnameOverride"),
            "may not be specified when setHostnameAsFQDN is true",
        );
    }
}

fn host_aliases(spec: &Value, path: &str, errors: &mut FieldErrors) {
    for (i, alias) in items(spec, "hostAliases").iter().enumerate() {
        let ip = text(alias, "ip");
        for message in legacy_ip(ip) {
            errors.invalid(format!("{path}[{i}].ip"), ip, message);
        }
        for (j, host) in strings(alias, "hostnames").iter().enumerate() {
            for message in names::dns1123_subdomain(host) {
                errors.invalid(format!("{path}[{i}].hostnames[{j}]"), host, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(mut spec: Value, expected: &[&str]) {
        super::super::defaults::pod_spec(&mut spec);
        let mut errors = FieldErrors::new();
        validate(&spec, &Value::Null, "spec", &mut errors);
        let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{spec}");
    }

    #[test]
    fn messages_are_upstreams() {
        check(json!({"containers": [{"name": "a", "image": "b"}]}), &[]);
        check(json!({}), &["spec.containers: Required value"]);
        check(
            json!({"containers": [{"name": "a"}, {"name": "a", "image": "x"}]}),
            &["spec.containers[0].image: Required value", "spec.containers[1].name: Duplicate value: \"a\""],
        );
        check(
            json!({"hostNetwork": true, "containers": [{"name": "a", "image": "b",
                "ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 82}]}]}),
            &[
                "spec.containers[0].ports[1].hostPort: Invalid value: 82: must match `containerPort` when `hostNetwork` is true",
            ],
        );
        check(
            json!({"restartPolicy": "Sometimes", "containers": [{"name": "a", "image": "b"}]}),
            &[
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            ],
        );
        check(
            json!({"containers": [{"name": "a", "image": "b",
                "volumeMounts": [{"name": "v", "mountPath": "/x"}]}]}),
            &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
        );
        check(
            json!({"containers": [{"name": "a", "image": "b", "livenessProbe": {}}]}),
            &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
        );
        check(
            json!({"containers": [{"name": "a", "image": "b"}], "tolerations": [{"operator": "Equal"}]}),
            &[
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ],
        );
    }
}
