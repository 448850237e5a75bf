//! Network policies.

use common::status::FieldErrors;

use crate::object::Object;
use crate::registry::advice;
use crate::registry::checks::{At, legacy_cidr, parse_cidr};
use crate::registry::names;
use crate::registry::others::defaults;
use crate::registry::rules::Rules;
use crate::registry::tolerance::SELECTOR_VALUES;
use crate::registry::tree::field;

const TYPES: [&str; 2] = ["Ingress", "Egress"];
/// The two directions: the list of rules, and the list of peers in a rule.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

pub const NETWORK_POLICY: Rules = Rules {
    default: defaults::network_policy,
    warnings: advice::of_network_policy,
    validate: |policy, errors| spec_rules(policy, &[], errors),
    update_validates: false,
    validate_update: |new, old, errors| spec_rules(new, &ranges(old), errors),
    tolerated: &[SELECTOR_VALUES],
    ..Rules::COUNTED
};

/// Every range that a policy names: an update may keep a bad one.
fn ranges(policy: &Object) -> Vec<String> {
    let spec = At::root(policy).at("spec");
    let mut out = Vec::new();
    for (direction, peers) in DIRECTIONS {
        for block in spec.each(direction).iter().flat_map(|rule| rule.each(peers)).map(|p| p.at("ipBlock")) {
            out.push(block.text("cidr").to_owned());
            out.extend(block.strings("except").into_iter().map(str::to_owned));
        }
    }
    out
}

fn spec_rules(policy: &Object, known: &[String], errors: &mut FieldErrors) {
    let spec = At::root(policy).at("spec");
    spec.selector("podSelector", errors);
    for (direction, peers) in DIRECTIONS {
        for rule in spec.each(direction) {
            for port in rule.each("ports") {
                port_rules(&port, errors);
            }
            for peer in rule.each(peers) {
                peer_rules(&peer, known, errors);
            }
        }
    }
    let types = spec.strings("policyTypes");
    if types.len() > TYPES.len() {
        spec.invalid("policyTypes", "may not specify more than two policyTypes", errors);
        return;
    }
    for (i, kind) in types.iter().enumerate().filter(|(_, kind)| !TYPES.contains(kind)) {
        errors.not_supported(format!("{}[{i}]", spec.under("policyTypes")), kind, &TYPES);
    }
}

fn port_rules(port: &At<'_>, errors: &mut FieldErrors) {
    port.choice("protocol", &["TCP", "UDP", "SCTP"], errors);
    let end = port.int("endPort");
    let value = field(port.value, "port");
    if let Some(number) = value.as_i64() {
        if let Some(message) = names::port_number(number) {
            port.invalid("port", message, errors);
        }
        if let Some(end) = end {
            if end < number {
                errors.invalid(port.under("endPort"), number, "must be greater than or equal to `port`");
            }
            if let Some(message) = names::port_number(end) {
                port.invalid("endPort", message, errors);
            }
        }
    } else if let Some(name) = value.as_str() {
        if end.is_some() {
            port.invalid("endPort", "may not be specified when `port` is non-numeric", errors);
        }
        for message in names::port_name(name) {
            errors.invalid(port.under("port"), name, message);
        }
    } else if end.is_some() {
        port.invalid("endPort", "may not be specified when `port` is not specified", errors);
    }
}

fn peer_rules(peer: &At<'_>, known: &[String], errors: &mut FieldErrors) {
    for key in ["podSelector", "namespaceSelector"] {
        peer.selector(key, errors);
    }
    let block = peer.at("ipBlock");
    if block.present() {
        block_rules(&block, known, errors);
    }
    let others = peer.has("podSelector") || peer.has("namespaceSelector");
    match (block.present(), others) {
        (false, false) => errors.required(&peer.path, "must specify a peer"),
        (true, true) => errors.forbidden(&peer.path, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn block_rules(block: &At<'_>, known: &[String], errors: &mut FieldErrors) {
    let check = |range: &str| -> Vec<String> {
        if known.iter().any(|k| k == range) { Vec::new() } else { legacy_cidr(range) }
    };
    let range = block.text("cidr");
    if range.is_empty() {
        block.required("cidr", "", errors);
        return;
    }
    block.shaped("cidr", check, errors);
    let Some(whole) = parse_cidr(range) else { return };
    for (i, except) in block.strings("except").into_iter().enumerate() {
        let path = format!("{}[{i}]", block.under("except"));
        for message in check(except) {
            errors.invalid(&path, except, message);
        }
        let Some(part) = parse_cidr(except) else { continue };
        if !whole.contains(&part) || whole.prefix_len() >= part.prefix_len() {
            errors.invalid(path, except, "must be a strict subset of `cidr`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::found;
    use serde_json::{Value, json};

    #[test]
    fn bad_policies_are_refused_in_upstreams_words() {
        let check = |spec: Value, expected: &[&str]| {
            assert_eq!(found(NETWORK_POLICY, &json!({"spec": spec})), expected);
        };
        let from = |peer: Value| json!({"podSelector": {}, "ingress": [{"from": [peer]}]});
        check(from(json!({"podSelector": {}})), &[]);
        check(from(json!({})), &["spec.ingress[0].from[0]: Required value: must specify a peer"]);
        check(
            from(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
            &["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"],
        );
        check(
            from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}})),
            &[
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            ],
        );
        check(
            json!({"podSelector": {}, "egress": [{"ports": [{"port": 0}]}]}),
            &["spec.egress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
        );
        check(
            json!({"podSelector": {}, "egress": [{"ports": [{"port": "http", "endPort": 5}]}]}),
            &[
                "spec.egress[0].ports[0].endPort: Invalid value: 5: may not be specified when `port` is non-numeric",
            ],
        );
        check(
            json!({"podSelector": {}, "policyTypes": ["Both"]}),
            &["spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Egress\", \"Ingress\""],
        );
    }
}
