//! Containers of the three kinds.

use common::status::FieldErrors;
use serde_json::Value;

use super::{env, probes, resources, security, volumes};
use crate::registry::names;
use crate::registry::tree::{field, has, int, is_zero, items, text};

/// What containers are checked against.
pub struct Surroundings<'a> {
    pub volumes: &'a [(&'a str, &'a Value)],
    pub claims: &'a [&'a str],
    pub grace: Option<i64>,
    pub os: &'a str,
    pub restart_policy: &'a str,
    pub host_users: bool,
}

/// `containers`.
pub fn validate(spec: &Value, around: &Surroundings<'_>, path: &str, errors: &mut FieldErrors) {
    let all = items(spec, "containers");
    if all.is_empty() {
        errors.required(path, "");
        return;
    }
    let mut seen = Vec::new();
    for (i, container) in all.iter().enumerate() {
        let here = format!("{path}[{i}]");
        common(container, around, &here, errors);
        let name = text(container, "name");
        if seen.contains(&name) {
            errors.duplicate(format!("{here}.name"), name);
        }
        seen.push(name);
        running(container, around, &here, errors);
        restart_rules(container, &here, errors);
    }
    host_ports(all, path, errors);
}

/// `initContainers`.
pub fn validate_init(spec: &Value, around: &Surroundings<'_>, path: &str, errors: &mut FieldErrors) {
    let mut seen: Vec<&str> = items(spec, "containers").iter().map(|c| text(c, "name")).collect();
    for (i, container) in items(spec, "initContainers").iter().enumerate() {
        let here = format!("{path}[{i}]");
        common(container, around, &here, errors);
        restart_rules(container, &here, errors);
        let name = text(container, "name");
        if seen.contains(&name) {
            errors.duplicate(format!("{here}.name"), name);
        } else if !name.is_empty() {
            seen.push(name);
        }
        host_ports(std::slice::from_ref(container), path, errors);
        if text(container, "restartPolicy") == "Always" {
            running(container, around, &here, errors);
        } else {
            for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if has(container, key) {
                    errors.forbidden(
                        format!("{here}.{key}"),
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
        }
    }
}

const EPHEMERAL_FIELDS: [&str; 18] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "env",
    "envFrom",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "resizePolicy",
    "targetContainerName",
];

/// `ephemeralContainers`.
pub fn validate_ephemeral(spec: &Value, around: &Surroundings<'_>, path: &str, errors: &mut FieldErrors) {
    let others: Vec<&str> = items(spec, "containers")
        .iter()
        .chain(items(spec, "initContainers"))
        .map(|c| text(c, "name"))
        .collect();
    let mut seen = others.clone();
    for (i, container) in items(spec, "ephemeralContainers").iter().enumerate() {
        let here = format!("{path}[{i}]");
        common(container, around, &here, errors);
        let name = text(container, "name");
        if seen.contains(&name) {
            errors.duplicate(format!("{here}.name"), name);
        } else {
            seen.push(name);
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(&target) {
            errors.not_found(format!("{here}.targetContainerName"), target);
        }
        for (key, value) in container.as_object().into_iter().flatten() {
            if !EPHEMERAL_FIELDS.contains(&key.as_str()) && !is_zero(value) {
                errors.forbidden(format!("{here}.{key}"), "cannot be set for an Ephemeral Container");
            }
        }
        for (j, mount) in items(container, "volumeMounts").iter().enumerate() {
            for key in ["subPath", "subPathExpr"] {
                if !text(mount, key).is_empty() {
                    errors.forbidden(
                        format!("{here}.volumeMounts[{j}].{key}"),
                        "cannot be set for an Ephemeral Container",
                    );
                }
            }
        }
    }
}

fn running(container: &Value, around: &Surroundings<'_>, path: &str, errors: &mut FieldErrors) {
    if has(container, "lifecycle") {
        let here = format!("{path}.lifecycle");
        probes::validate_lifecycle(field(container, "lifecycle"), around.grace, around.os, &here, errors);
    }
    probes::validate_all(container, around.grace, path, errors);
}

fn common(container: &Value, around: &Surroundings<'_>, path: &str, errors: &mut FieldErrors) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.required(format!("{path}.name"), "");
    } else {
        for message in names::dns1123_label(name) {
            errors.invalid(format!("{path}.name"), name, message);
        }
    }
    if text(container, "image").is_empty() {
        errors.required(format!("{path}.image"), "");
    }
    one_of(container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], path, errors);
    ports(container, path, errors);
    env::validate_env(container, path, errors);
    env::validate_env_from(container, path, errors);
    volumes::validate_mounts(container, around.volumes, path, errors);
    volumes::validate_devices(container, around.volumes, path, errors);
    one_of(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
    let here = format!("{path}.resources");
    resources::validate(field(container, "resources"), around.claims, &here, errors);
    resize_policy(container, around.restart_policy, &format!("{path}.resizePolicy"), errors);
    let here = format!("{path}.securityContext");
    security::validate_container(field(container, "securityContext"), around.host_users, &here, errors);
}

/// A required choice.
pub fn one_of(owner: &Value, key: &str, allowed: &[&str], path: &str, errors: &mut FieldErrors) {
    match text(owner, key) {
        "" => errors.required(format!("{path}.{key}"), ""),
        value if allowed.contains(&value) => {}
        value => errors.not_supported(format!("{path}.{key}"), value, allowed),
    }
}

fn ports(container: &Value, path: &str, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (i, port) in items(container, "ports").iter().enumerate() {
        let here = format!("{path}.ports[{i}]");
        let name = text(port, "name");
        if !name.is_empty() {
            let messages = names::port_name(name);
            if messages.is_empty() && seen.contains(&name) {
                errors.duplicate(format!("{here}.name"), name);
            }
            for message in &messages {
                errors.invalid(format!("{here}.name"), name, message.clone());
            }
            seen.push(name);
        }
        match int(port, "containerPort").unwrap_or(0) {
            0 => errors.required(format!("{here}.containerPort"), ""),
            number => {
                if let Some(message) = names::port_number(number) {
                    errors.invalid(format!("{here}.containerPort"), number, message);
                }
            }
        }
        let host = int(port, "hostPort").unwrap_or(0);
        if host != 0
            && let Some(message) = names::port_number(host)
        {
            errors.invalid(format!("{here}.hostPort"), host, message);
        }
        one_of(port, "protocol", &["TCP", "UDP", "SCTP"], &here, errors);
    }
}

fn host_ports(containers: &[Value], path: &str, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in items(container, "ports").iter().enumerate() {
            let number = int(port, "hostPort").unwrap_or(0);
            if number == 0 {
                continue;
            }
            let taken = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if seen.contains(&taken) {
                errors.duplicate(format!("{path}[{i}].ports[{j}].hostPort"), taken);
            } else {
                seen.push(taken);
            }
        }
    }
}

fn resize_policy(container: &Value, pod_policy: &str, path: &str, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (i, policy) in items(container, "resizePolicy").iter().enumerate() {
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if seen.contains(&resource) {
            errors.duplicate(format!("{path}[{i}]"), resource);
        }
        seen.push(resource);
        match resource {
            "cpu" | "memory" => {}
            "" => errors.required(path, ""),
            other => errors.not_supported(path, other, &["cpu", "memory"]),
        }
        match restart {
            "NotRequired" | "RestartContainer" => {}
            "" => errors.required(path, ""),
            other => errors.not_supported(path, other, &["NotRequired", "RestartContainer"]),
        }
        if pod_policy == "Never" && restart != "NotRequired" {
            errors.invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

fn restart_rules(container: &Value, path: &str, errors: &mut FieldErrors) {
    let rules = items(container, "restartPolicyRules");
    if has(container, "restartPolicy") {
        let policy = text(container, "restartPolicy");
        let known = ["Always", "Never", "OnFailure"];
        if !known.contains(&policy) {
            errors.not_supported(format!("{path}.restartPolicy"), policy, &known);
        }
    } else if !rules.is_empty() {
        errors.required(
            format!("{path}.restartPolicy"),
            "must specify restartPolicy when restart rules are used",
        );
    }
    if rules.len() > RESTART_RULES_MAX {
        errors.too_many(format!("{path}.restartPolicyRules"), rules.len(), RESTART_RULES_MAX);
    }
    for (i, rule) in rules.iter().enumerate() {
        let here = format!("{path}.restartPolicyRules[{i}]");
        let action = text(rule, "action");
        if !matches!(action, "Restart" | "RestartAllContainers") {
            errors.not_supported(format!("{here}.action"), action, &["Restart", "RestartAllContainers"]);
        }
        if !has(rule, "exitCodes") {
            errors.required(format!("{here}.exitCodes"), "must be specified");
            continue;
        }
        let codes = field(rule, "exitCodes");
        let operator = text(codes, "operator");
        if !matches!(operator, "In" | "NotIn") {
            errors.not_supported(format!("{here}.exitCodes.operator"), operator, &["In", "NotIn"]);
        }
        let count = items(codes, "values").len();
        if count > EXIT_CODES_MAX {
            errors.too_many(format!("{here}.exitCodes.values"), count, EXIT_CODES_MAX);
        }
    }
}
