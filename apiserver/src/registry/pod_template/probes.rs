//! Probes and lifecycle handlers.

use common::status::FieldErrors;
use serde_json::Value;

use crate::registry::names;
use crate::registry::tree::{field, has, int, items, text};

/// The three probes of a container.
pub fn validate_all(container: &Value, grace: Option<i64>, path: &str, errors: &mut FieldErrors) {
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if !has(container, key) {
            continue;
        }
        let (probe, here) = (field(container, key), format!("{path}.{key}"));
        validate_probe(probe, grace, &here, errors);
        if key == "readinessProbe" {
            if let Some(seconds) = int(probe, "terminationGracePeriodSeconds") {
                let at = format!("{here}.terminationGracePeriodSeconds");
                errors.invalid(at, seconds, "must not be set for readinessProbes");
            }
        } else if int(probe, "successThreshold").unwrap_or(0) != 1 {
            let value = int(probe, "successThreshold").unwrap_or(0);
            errors.invalid(format!("{here}.successThreshold"), value, "must be 1");
        }
    }
}

fn validate_probe(probe: &Value, grace: Option<i64>, path: &str, errors: &mut FieldErrors) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], grace, path, errors);
    for key in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        if let Some(value) = int(probe, key).filter(|v| *v < 0) {
            errors.invalid(format!("{path}.{key}"), value, "must be greater than or equal to 0");
        }
    }
    if let Some(seconds) = int(probe, "terminationGracePeriodSeconds").filter(|s| *s <= 0) {
        errors.invalid(format!("{path}.terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

/// `lifecycle`, allowed in containers that keep running.
pub fn validate_lifecycle(
    lifecycle: &Value,
    grace: Option<i64>,
    os: &str,
    path: &str,
    errors: &mut FieldErrors,
) {
    for key in ["postStart", "preStop"] {
        if has(lifecycle, key) {
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            handler(field(lifecycle, key), &kinds, grace, &format!("{path}.{key}"), errors);
        }
    }
    if has(lifecycle, "stopSignal") && os.is_empty() {
        errors.forbidden(
            format!("{path}.stopSignal"),
            "may not be set for containers with empty `spec.os.name`",
        );
    }
}

fn handler(owner: &Value, kinds: &[&str], grace: Option<i64>, path: &str, errors: &mut FieldErrors) {
    let mut found = 0;
    for kind in kinds.iter().copied().filter(|k| has(owner, k)) {
        let here = format!("{path}.{kind}");
        found += 1;
        if found > 1 {
            errors.forbidden(here, "may not specify more than 1 handler type");
            continue;
        }
        let action = field(owner, kind);
        match kind {
            "exec" if items(action, "command").is_empty() => errors.required(format!("{here}.command"), ""),
            "httpGet" => http_get(action, &here, errors),
            "tcpSocket" | "grpc" => port(field(action, "port"), &format!("{here}.port"), errors),
            "sleep" => {
                let seconds = int(action, "seconds").unwrap_or(0);
                if let Some(grace) = grace.filter(|g| seconds < 0 || seconds > *g) {
                    errors.invalid(
                        here,
                        seconds,
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
                    );
                }
            }
            _ => {}
        }
    }
    if found == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn http_get(action: &Value, path: &str, errors: &mut FieldErrors) {
    if text(action, "path").is_empty() {
        errors.required(format!("{path}.path"), "");
    }
    port(field(action, "port"), &format!("{path}.port"), errors);
    let scheme = text(action, "scheme");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.not_supported(format!("{path}.scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in items(action, "httpHeaders") {
        let name = text(header, "name");
        let fits =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !fits {
            errors.invalid(format!("{path}.httpHeaders"), name, "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')");
        }
    }
}

/// A port by number or name.
pub fn port(port: &Value, path: &str, errors: &mut FieldErrors) {
    match port {
        Value::String(name) => {
            for message in names::port_name(name) {
                errors.invalid(path, name, message);
            }
        }
        other => {
            let number = other.as_i64().unwrap_or(0);
            if let Some(message) = names::port_number(number) {
                errors.invalid(path, number, message);
            }
        }
    }
}
