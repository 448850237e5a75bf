//! API services as objects (`kube-aggregator/pkg/apis/apiregistration`).

use common::status::FieldErrors;

use super::checks::At;
use super::names;
use super::others::defaults;
use super::rules::{Rules, StatusRule};
use crate::object::{self, Object};

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;

pub const API_SERVICE: Rules = Rules {
    default: defaults::api_service,
    name: names::path_segment,
    validate,
    validate_status: |new, _, errors| {
        for condition in At::root(new).at("status").each("conditions") {
            let status = condition.text("status");
            if !matches!(status, "True" | "False" | "Unknown") {
                let known = ["True", "False", "Unknown"];
                errors.not_supported(condition.under("status"), status, &known);
            }
        }
    },
    status: StatusRule::Split,
    unconditional_update: false,
    ..Rules::PLAIN
};

fn validate(service: &Object, errors: &mut FieldErrors) {
    let spec = At::root(service).at("spec");
    let (group, version) = (spec.text("group"), spec.text("version"));
    let (name, wanted) = (object::name(service), format!("{version}.{group}"));
    if name != wanted && names::path_segment(name).is_empty() {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.invalid("metadata.name", name, detail);
    }
    if group.is_empty() && version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        spec.required("group", detail, errors);
    }
    spec.shaped_if_set("group", names::dns1123_subdomain, errors);
    spec.shaped("version", names::dns1035_label, errors);
    for (key, most) in
        [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)]
    {
        let priority = spec.int(key).unwrap_or(0);
        if !(1..=most).contains(&priority) {
            errors.invalid(spec.under(key), priority, format!("must be positive and less than {most}"));
        }
    }
    let bundle = spec.text("caBundle");
    let reference = spec.at("service");
    if !reference.present() {
        if !bundle.is_empty() {
            let bytes = bundle.trim_end_matches('=').len() * 3 / 4;
            let detail = "local APIServices may not have a caBundle";
            errors.invalid(spec.under("caBundle"), format!("{bytes} bytes"), detail);
        }
        if spec.flag("insecureSkipTLSVerify") {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            spec.invalid("insecureSkipTLSVerify", detail, errors);
        }
        return;
    }
    reference.required_text("namespace", errors);
    reference.required_text("name", errors);
    let port = reference.int("port").unwrap_or(0);
    if let Some(message) = names::port_number(port) {
        errors.invalid(reference.under("port"), port, format!("port is not valid: {message}"));
    }
    if spec.flag("insecureSkipTLSVerify") && !bundle.is_empty() {
        spec.invalid("insecureSkipTLSVerify", "may not be true if caBundle is present", errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::found;
    use serde_json::{Value, json};

    #[test]
    fn bad_services_are_refused_in_upstreams_words() {
        let check = |key: &str, value: Value, expected: &[&str]| {
            let mut service = json!({"metadata": {"name": "v1.a.b"}, "spec": {"group": "a.b", "version": "v1",
                "groupPriorityMinimum": 100, "versionPriority": 10,
                "service": {"name": "s", "namespace": "n"}}});
            super::super::tree::set(&mut service["spec"], key, value);
            assert_eq!(found(API_SERVICE, &service), expected, "{key}");
        };
        check("caBundle", json!("YQ=="), &[]);
        check(
            "version",
            json!("v2"),
            &[
                "metadata.name: Invalid value: \"v1.a.b\": must be `spec.version+\".\"+spec.group`: \"v2.a.b\"",
            ],
        );
        check(
            "groupPriorityMinimum",
            json!(0),
            &["spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000"],
        );
        check("service", json!({"name": "s"}), &["spec.service.namespace: Required value"]);
    }
}
