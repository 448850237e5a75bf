//! Ingresses and ingress classes.

use common::status::{FieldError, FieldErrors};

use crate::object::Object;
use crate::registry::checks::{At, domain_prefixed_path, legacy_ip, wildcard_subdomain};
use crate::registry::names;
use crate::registry::others::defaults;
use crate::registry::rules::Rules;
use crate::registry::tree::{annotation, at, field};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const CONTROLLER_CHARACTERS_MAX: usize = 250;

pub const INGRESS: Rules = Rules {
    status_warnings: crate::registry::advice::of_load_balancer,
    validate: |ingress, errors| {
        spec_rules(&At::root(ingress).at("spec"), errors);
        let class = at(ingress, &["spec", "ingressClassName"]).as_str();
        if let (Some(annotated), Some(named)) = (annotation(ingress, CLASS_ANNOTATION), class)
            && annotated != named
        {
            errors.invalid(
                "annotations.kubernetes.io/ingress.class",
                annotated,
                "must match `ingressClassName` when both are specified",
            );
        }
    },
    update_validates: false,
    validate_update: |new, old, errors| {
        spec_rules(&At::root(new).at("spec"), errors);
        keep_wildcard_rules(new, old, errors);
    },
    tolerated: &[|error| error.field.ends_with(".secretName")],
    gated: |ingress, old, features, errors| {
        if !features.enabled("RelaxedServiceNameValidation") && !old.is_some_and(names_relaxed_service) {
            backends(ingress).iter().for_each(|backend| strict_service_name(&backend.at("service"), errors));
        }
    },
    validate_status,
    warnings: |ingress, old| {
        let named = at(ingress, &["spec", "ingressClassName"]).is_string();
        if old.is_none() && annotation(ingress, CLASS_ANNOTATION).is_some() && !named {
            vec![format!(
                "annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
            )]
        } else {
            Vec::new()
        }
    },
    ..Rules::SPLIT
};

pub const INGRESS_CLASS: Rules = Rules {
    default: defaults::ingress_class,
    validate: |class, errors| {
        let spec = At::root(class).at("spec");
        if spec.text("controller").len() > CONTROLLER_CHARACTERS_MAX {
            errors.too_long(spec.under("controller"), CONTROLLER_CHARACTERS_MAX);
        }
        domain_prefixed_path(&spec, "controller", errors);
        let parameters = spec.at("parameters");
        if parameters.present() {
            class_parameters(&parameters, errors);
        }
    },
    validate_update: |new, old, errors| {
        crate::registry::core::immutable(new, old, &["spec", "controller"], errors);
    },
    ..Rules::COUNTED
};

fn class_parameters(parameters: &At<'_>, errors: &mut FieldErrors) {
    typed_reference(parameters, errors);
    let scope = parameters.text("scope");
    match scope {
        "Namespace" if !parameters.has("namespace") => {
            parameters.required("namespace", "`parameters.scope` is set to 'Namespace'", errors);
        }
        "Namespace" => parameters.shaped("namespace", names::dns1123_label, errors),
        "Cluster" if parameters.has("namespace") => {
            parameters.forbidden("namespace", "`parameters.scope` is set to 'Cluster'", errors);
        }
        "Cluster" => {}
        _ => errors.not_supported(parameters.under("scope"), scope, &["Cluster", "Namespace"]),
    }
}

/// A reference by group, kind and name.
fn typed_reference(reference: &At<'_>, errors: &mut FieldErrors) {
    if reference.has("apiGroup") {
        reference.shaped("apiGroup", names::dns1123_subdomain, errors);
    }
    reference.required_shaped("kind", names::path_segment, errors);
    reference.required_shaped("name", names::path_segment, errors);
}

fn spec_rules(spec: &At<'_>, errors: &mut FieldErrors) {
    let rules = spec.each("rules");
    let backend = spec.at("defaultBackend");
    if rules.is_empty() && !backend.present() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(&spec.path, field(spec.value, "rules"), detail);
    }
    if backend.present() {
        backend_rules(&backend, errors);
    }
    for rule in &rules {
        host(rule, errors);
        let http = rule.at("http");
        if http.present() {
            let paths = http.each("paths");
            if paths.is_empty() {
                http.required("paths", "", errors);
            }
            for path in &paths {
                path_rules(path, errors);
            }
        }
    }
    for tls in spec.each("tls") {
        for (i, host) in tls.strings("hosts").into_iter().enumerate() {
            for message in host_messages(host) {
                errors.invalid(format!("{}[{i}]", tls.under("hosts")), host, message);
            }
        }
        tls.shaped_if_set("secretName", names::dns1123_subdomain, errors);
    }
    if spec.has("ingressClassName") {
        spec.shaped("ingressClassName", names::dns1123_subdomain, errors);
    }
}

/// Rules for wildcards were once not looked into: where the old ones are at fault, none is.
fn keep_wildcard_rules(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let of_wildcards = |ingress: &Object, error: &FieldError| {
        let rules = At::root(ingress).at("spec").each("rules");
        rules
            .iter()
            .any(|rule| rule.text("host").contains('*') && error.field.starts_with(&rule.under("http")))
    };
    if errors.is_empty() {
        return;
    }
    let mut before = FieldErrors::new();
    spec_rules(&At::root(old).at("spec"), &mut before);
    if before.0.iter().any(|error| of_wildcards(old, error)) {
        errors.0.retain(|error| !of_wildcards(new, error));
    }
}

fn host_messages(host: &str) -> Vec<String> {
    if host.contains('*') { wildcard_subdomain(host) } else { names::dns1123_subdomain(host) }
}

fn is_ip(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

const NOT_AN_ADDRESS: &str = "must be a DNS name, not an IP address";

fn host(rule: &At<'_>, errors: &mut FieldErrors) {
    let host = rule.text("host");
    if host.is_empty() {
        return;
    }
    if is_ip(host) {
        rule.invalid("host", NOT_AN_ADDRESS, errors);
    }
    rule.shaped("host", host_messages, errors);
}

const BAD_SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_SUFFIXES: [&str; 2] = ["/..", "/."];

fn path_rules(path: &At<'_>, errors: &mut FieldErrors) {
    let text = path.text("path");
    if !path.has("pathType") {
        path.required("pathType", "pathType must be specified", errors);
        return;
    }
    let mut bad = |detail: String| errors.invalid(path.under("path"), text, detail);
    match path.text("pathType") {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                bad("must be an absolute path".to_owned());
            }
            for sequence in BAD_SEQUENCES.iter().filter(|s| text.contains(**s)) {
                bad(format!("must not contain '{sequence}'"));
            }
            for suffix in BAD_SUFFIXES.iter().filter(|s| text.ends_with(**s)) {
                bad(format!("cannot end with '{suffix}'"));
            }
        }
        "ImplementationSpecific" if !text.is_empty() && !text.starts_with('/') => {
            bad("must be an absolute path".to_owned());
        }
        "ImplementationSpecific" => {}
        other => errors.not_supported(
            path.under("pathType"),
            other,
            &["Exact", "ImplementationSpecific", "Prefix"],
        ),
    }
    backend_rules(&path.at("backend"), errors);
}

fn backend_rules(backend: &At<'_>, errors: &mut FieldErrors) {
    let (resource, service) = (backend.at("resource"), backend.at("service"));
    match (resource.present(), service.present()) {
        (true, true) => {
            errors.invalid(&backend.path, "", "cannot set both resource and service backends");
        }
        (true, false) => typed_reference(&resource, errors),
        (false, true) => {
            service.required_shaped("name", names::dns1123_label, errors);
            let port = service.at("port");
            let number = port.int("number").unwrap_or(0);
            match (!port.text("name").is_empty(), number != 0) {
                (true, true) => {
                    errors.invalid(&backend.path, "", "cannot set both port name & port number");
                }
                (true, false) => port.shaped("name", names::port_name, errors),
                (false, true) => {
                    if let Some(message) = names::port_number(number) {
                        port.invalid("number", message, errors);
                    }
                }
                (false, false) => errors.required(&backend.path, "port name or number is required"),
            }
        }
        (false, false) => errors.invalid(&backend.path, "", "resource or service backend is required"),
    }
}

fn backends(ingress: &Object) -> Vec<At<'_>> {
    let spec = At::root(ingress).at("spec");
    let paths = spec.each("rules").into_iter().flat_map(|rule| rule.at("http").each("paths"));
    std::iter::once(spec.at("defaultBackend")).chain(paths.map(|path| path.at("backend"))).collect()
}

/// The name of a service that could not be made before `RelaxedServiceNameValidation`.
fn is_relaxed(name: &str) -> bool {
    names::dns1123_label(name).is_empty() && !names::dns1035_label(name).is_empty()
}

fn names_relaxed_service(ingress: &Object) -> bool {
    backends(ingress).iter().any(|backend| is_relaxed(backend.at("service").text("name")))
}

fn strict_service_name(service: &At<'_>, errors: &mut FieldErrors) {
    if is_relaxed(service.text("name")) {
        service.shaped("name", names::dns1035_label, errors);
    }
}

fn validate_status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let path = ["status", "loadBalancer"];
    let before = At { value: at(old, &path), path: String::new() };
    let known: Vec<&str> = before.each("ingress").iter().map(|point| point.text("ip")).collect();
    let balancer = At { value: at(new, &path), path: path.join(".") };
    for point in balancer.each("ingress") {
        if !known.contains(&point.text("ip")) {
            point.shaped_if_set("ip", legacy_ip, errors);
        }
        point.shaped_if_set("hostname", names::dns1123_subdomain, errors);
        if is_ip(point.text("hostname")) {
            point.invalid("hostname", NOT_AN_ADDRESS, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::found;
    use serde_json::{Value, json};

    fn check(spec: Value, expected: &[&str]) {
        assert_eq!(found(INGRESS, &json!({"metadata": {"name": "a"}, "spec": spec})), expected);
    }

    #[test]
    fn bad_ingresses_are_refused_in_upstreams_words() {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let with = |path: Value| json!({"rules": [{"host": "a.b", "http": {"paths": [path]}}]});
        check(json!({"defaultBackend": backend}), &[]);
        check(with(json!({"path": "/", "pathType": "Prefix", "backend": backend})), &[]);
        check(
            json!({}),
            &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
        );
        check(
            with(json!({"path": "/", "backend": backend})),
            &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
        );
        check(
            with(json!({"path": "a//b", "pathType": "Exact", "backend": backend})),
            &[
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
            ],
        );
        check(
            with(json!({"path": "/", "pathType": "Exact", "backend": {}})),
            &[
                "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
            ],
        );
        check(
            json!({"defaultBackend": {"service": {"name": "s"}}}),
            &["spec.defaultBackend: Required value: port name or number is required"],
        );
        check(
            json!({"rules": [{"host": "1.2.3.4"}]}),
            &["spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"],
        );
        check(
            json!({"defaultBackend": backend, "tls": [{"hosts": ["*a.b"]}]}),
            &[
                "spec.tls[0].hosts[0]: Invalid value: \"*a.b\": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ],
        );
    }

    #[test]
    fn bad_classes_are_refused_in_upstreams_words() {
        let check = |spec: Value, expected: &[&str]| {
            assert_eq!(found(INGRESS_CLASS, &json!({"spec": spec})), expected);
        };
        check(json!({"controller": "a.b/c"}), &[]);
        check(json!({}), &["spec.controller: Required value"]);
        check(
            json!({"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "scope": "Namespace"}}),
            &["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
        );
    }
}
