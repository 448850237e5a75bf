//! The networking group (`pkg/apis/networking`): ingresses and their classes, network policies, and the
//! addresses and ranges of services.

mod ingress;
mod network_policy;

pub use ingress::{INGRESS, INGRESS_CLASS};
pub use network_policy::NETWORK_POLICY;

use common::status::FieldErrors;
use serde_json::Value;

use super::checks::{At, parse_cidr, strict_cidr, strict_ip};
use super::core::IMMUTABLE;
use super::names;
use super::rules::{Rules, StatusRule};
use super::tolerance::NEVER;
use super::tree::{at, same};
use crate::object::Object;

pub const IP_ADDRESS: Rules = Rules {
    name: strict_ip,
    strict: NEVER,
    validate: |address, errors| {
        let parent = At::root(address).at("spec").at("parentRef");
        if !parent.present() {
            errors.required(&parent.path, "");
            return;
        }
        parent.shaped_if_set("group", names::dns1123_subdomain, errors);
        parent.required_shaped("resource", names::path_segment, errors);
        parent.required_shaped("name", names::path_segment, errors);
        parent.shaped_if_set("namespace", names::path_segment, errors);
    },
    validate_update: |new, old, errors| {
        super::core::immutable(new, old, &["spec", "parentRef"], errors);
    },
    ..Rules::PLAIN
};

pub const SERVICE_CIDR: Rules = Rules {
    validate: |cidr, errors| ranges(&At::root(cidr).at("spec"), errors),
    update_validates: false,
    validate_update: ranges_stay,
    strict: NEVER,
    status: StatusRule::Split,
    ..Rules::PLAIN
};

fn ranges(spec: &At<'_>, errors: &mut FieldErrors) {
    let all = spec.strings("cidrs");
    match all.as_slice() {
        [] => {
            spec.required("cidrs", "at least one CIDR required", errors);
            return;
        }
        [_, _, _, ..] => {
            errors.invalid(spec.under("cidrs"), spec.value, "may only hold up to 2 values");
            return;
        }
        _ => {}
    }
    for (i, cidr) in all.iter().enumerate() {
        for message in strict_cidr(cidr) {
            errors.invalid(format!("{}[{i}]", spec.under("cidrs")), cidr, message);
        }
    }
    let families: Vec<bool> =
        all.iter().filter_map(|cidr| parse_cidr(cidr)).map(|net| net.addr().is_ipv4()).collect();
    if matches!(families.as_slice(), [a, b] if a == b) {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        spec.invalid("cidrs", detail, errors);
    }
}

fn ranges_stay(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let path = ["spec", "cidrs"];
    let empty = Vec::new();
    let (now, then) = (at(new, &path), at(old, &path));
    let list = |value: &Value| value.as_array().unwrap_or(&empty).clone();
    let (after, before) = (list(now), list(then));
    let grows = before.len() == 1 && after.len() == 2;
    if after.len() != before.len() && !grows {
        errors.invalid("spec.cidrs", now, IMMUTABLE);
        return;
    }
    for (i, (a, b)) in after.iter().zip(&before).enumerate() {
        if !same(a, b) {
            errors.invalid(format!("spec.cidrs[{i}]"), a, IMMUTABLE);
        }
    }
    if grows {
        ranges(&At::root(new).at("spec"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use serde_json::json;

    #[test]
    fn bad_ranges_and_addresses() {
        let check = |cidrs: Value, expected: &[&str]| {
            assert_eq!(found(SERVICE_CIDR, &json!({"spec": {"cidrs": cidrs}})), expected);
        };
        check(json!(["10.0.0.0/8", "fd00::/112"]), &[]);
        check(json!([]), &["spec.cidrs: Required value: at least one CIDR required"]);
        check(
            json!(["10.0.0.1/8"]),
            &[
                "spec.cidrs[0]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
            ],
        );
        check(
            json!(["10.0.0.0/8", "11.0.0.0/8"]),
            &[
                "spec.cidrs: Invalid value: [\"10.0.0.0/8\",\"11.0.0.0/8\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            ],
        );
        let one = json!({"spec": {"cidrs": ["10.0.0.0/8"]}});
        assert!(
            found_on_update(SERVICE_CIDR, &one, |o| o["spec"]["cidrs"] = json!(["10.0.0.0/8", "fd00::/112"]))
                .is_empty()
        );
        assert_eq!(
            found_on_update(SERVICE_CIDR, &one, |o| o["spec"]["cidrs"] = json!(["11.0.0.0/8"])),
            ["spec.cidrs[0]: Invalid value: \"11.0.0.0/8\": field is immutable"]
        );
        assert_eq!(
            found(IP_ADDRESS, &json!({"spec": {"parentRef": {"name": "a"}}})),
            ["spec.parentRef.resource: Required value"]
        );
        assert_eq!(found(IP_ADDRESS, &json!({})), ["spec.parentRef: Required value"]);
    }
}
