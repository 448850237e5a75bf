//! Which address families a service has: from what it says, what it had, and what the cluster has.
//!
//! What a cluster has is what `--service-cluster-ip-range` says: a ServiceCIDR of another family adds none.

use common::status::{FieldErrors, Status};
use serde_json::{Value, json};

use super::allocation::family_of;
use super::{is_headless, needs_cluster_ip, validation};
use crate::object::{self, Object};
use crate::registry::checks::{STRICT_ONLY, sloppy_ip};
use crate::registry::tree::{field, has, list_mut, set, strings, struct_mut, text};

/// A service that wants two families where there are, unchanged in what it says of them: it neither gains nor
/// loses an address because the cluster did.
pub(super) fn stays_preferring(service: &Object, old: &Object) -> bool {
    let (spec, before) = (field(service, "spec"), field(old, "spec"));
    let prefers = |spec: &Value| text(spec, "ipFamilyPolicy") == "PreferDualStack";
    let same = |key: &str| strings(spec, key) == strings(before, key);
    text(spec, "type") == text(before, "type")
        && needs_cluster_ip(spec)
        && prefers(spec)
        && (prefers(before) || !has(before, "ipFamilyPolicy"))
        && same("clusterIPs")
        && same("ipFamilies")
}

/// Fills ipFamilyPolicy and ipFamilies. `known` are the cluster's families, the default first.
///
/// # Errors
/// A combination that cannot be, as an Invalid.
pub(super) fn families(
    service: &mut Object,
    old: Option<&Object>,
    known: &[&'static str],
) -> Result<(), Status> {
    if old.is_some_and(|old| stays_preferring(service, old)) {
        return Ok(());
    }
    let name = object::name(service).to_owned();
    let refused = |errors: &FieldErrors| Err(Status::invalid("", "Service", &name, errors));
    let Some(spec) = struct_mut(service, "spec") else { return Ok(()) };
    let anything_goes = text(spec, "clusterIP") == "None"
        && field(spec, "selector").as_object().is_none_or(serde_json::Map::is_empty);
    if !has(spec, "ipFamilyPolicy") {
        let before = old.map(|o| text(field(o, "spec"), "ipFamilyPolicy")).filter(|p| !p.is_empty());
        let policy = before.unwrap_or(if anything_goes { "RequireDualStack" } else { "SingleStack" });
        set(spec, "ipFamilyPolicy", policy);
    }
    let mut errors = FieldErrors::new();
    validation::addresses(spec, &mut errors);
    // Old forms are for validation to judge, which knows the gate and what was there.
    errors.0.retain(|error| !STRICT_ONLY.contains(&error.detail.as_str()));
    if !errors.is_empty() {
        return refused(&errors);
    }
    let policy = text(spec, "ipFamilyPolicy").to_owned();
    let single = policy == "SingleStack";
    if let Some(old) = old {
        narrow(spec, field(old, "spec"), &policy, &mut errors);
    }
    for (key, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if single && strings(spec, key).len() == 2 {
            let detail = "must be 'RequireDualStack' or 'PreferDualStack' when multiple";
            errors.invalid("spec.ipFamilyPolicy", &policy, format!("{detail} {what} are specified"));
        }
    }
    let mut chosen: Vec<String> = strings(spec, "ipFamilies").into_iter().map(str::to_owned).collect();
    let given = strings(spec, "clusterIPs");
    for (i, ip) in given.iter().enumerate().skip(chosen.len()) {
        let Some(ip) = sloppy_ip(ip) else { break };
        let family = family_of(ip);
        if known.contains(&family) {
            chosen.push(family.to_owned());
        } else {
            let path = format!("spec.clusterIPs[{i}]");
            errors.invalid(path, &given, format!("{family} is not configured on this cluster"));
        }
    }
    if !errors.is_empty() {
        return refused(&errors);
    }
    if !anything_goes {
        if policy == "RequireDualStack" && known.len() < 2 {
            errors.invalid(
                "spec.ipFamilyPolicy",
                &policy,
                "this cluster is not configured for dual-stack services",
            );
        }
        for (i, family) in chosen.iter().enumerate().filter(|(_, f)| !known.contains(&f.as_str())) {
            errors.invalid(format!("spec.ipFamilies[{i}]"), family, "not configured on this cluster");
        }
        if !errors.is_empty() {
            return refused(&errors);
        }
    }
    if chosen.is_empty() {
        chosen.push((*known.first().unwrap_or(&"IPv4")).to_owned());
    }
    if !single && chosen.len() == 1 && (anything_goes || known.len() == 2) {
        chosen.push(if chosen[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    set(spec, "ipFamilies", json!(chosen));
    Ok(())
}

/// SingleStack drops the second of what was left as it was; with another policy nothing may be dropped.
fn narrow(spec: &mut Value, before: &Value, policy: &str, errors: &mut FieldErrors) {
    for (key, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (now, then) = (strings(spec, key), strings(before, key));
        if policy == "SingleStack" {
            if now == then
                && let Some(list) = list_mut(spec, key)
            {
                list.truncate(1);
            }
        } else if !now.is_empty() && now.len() < then.len() {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            errors.invalid("spec.ipFamilyPolicy", policy, detail);
        }
    }
}

/// An address that a service must be given: its place in `clusterIPs`, and what the client asks for, if it does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub index: usize,
    pub family: String,
    pub asked: Option<String>,
}

/// Which addresses a write needs. An update needs some only when a service stops being an ExternalName, or
/// becomes dual-stack; other changes are for validation to refuse.
pub(super) fn wanted(service: &Object, old: Option<&Object>) -> Vec<Wanted> {
    let spec = field(service, "spec");
    let (ips, families) = (strings(spec, "clusterIPs"), strings(spec, "ipFamilies"));
    let from = match old.map(|old| (old, field(old, "spec"))) {
        None => 0,
        Some((old, _)) if stays_preferring(service, old) => return Vec::new(),
        Some((_, before)) if text(before, "type") == "ExternalName" => 0,
        Some((_, before)) if is_headless(before) => return Vec::new(),
        Some((_, before)) if strings(before, "ipFamilies").len() == 1 && families.len() == 2 => 1,
        Some(_) => return Vec::new(),
    };
    if !needs_cluster_ip(spec) || is_headless(spec) {
        return Vec::new();
    }
    let want = |(index, family): (usize, &&str)| Wanted {
        index,
        family: (*family).to_owned(),
        asked: ips.get(index).filter(|ip| !ip.is_empty()).map(|ip| (*ip).to_owned()),
    };
    families.iter().enumerate().skip(from).map(want).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[&str] = &["IPv4", "IPv6"];

    fn service(spec: Value) -> Object {
        let mut service = json!({"metadata": {"name": "a"}, "spec": spec});
        (super::super::RULES.default)(&mut service);
        service
    }

    /// The families and the policy, or the error.
    fn check(spec: Value, old: Option<Value>, known: &[&'static str], expected: &str) {
        let old = old.map(service);
        let mut service = service(spec);
        let got = match families(&mut service, old.as_ref(), known) {
            Ok(()) => {
                let spec = &service["spec"];
                format!("{} {}", text(spec, "ipFamilyPolicy"), strings(spec, "ipFamilies").join(","))
            }
            Err(status) => status.message.trim_start_matches("Service \"a\" is invalid: ").to_owned(),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn a_new_service_gets_the_families_it_asks_for() {
        check(json!({}), None, BOTH, "SingleStack IPv4");
        check(json!({}), None, &["IPv6"], "SingleStack IPv6");
        check(json!({"ipFamilyPolicy": "PreferDualStack"}), None, &["IPv4"], "PreferDualStack IPv4");
        check(json!({"ipFamilyPolicy": "PreferDualStack"}), None, BOTH, "PreferDualStack IPv4,IPv6");
        let six_first = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]});
        check(six_first.clone(), None, BOTH, "RequireDualStack IPv6,IPv4");
        check(
            six_first,
            None,
            &["IPv6"],
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        );
        let headless = json!({"clusterIP": "None", "clusterIPs": ["None"]});
        check(headless, None, &["IPv4"], "RequireDualStack IPv4,IPv6");
        let two = json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]});
        check(
            two,
            None,
            BOTH,
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
        );
        let six = json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]});
        check(
            six,
            None,
            &["IPv4"],
            "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster",
        );
    }

    fn dual(policy: &str) -> Value {
        json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilyPolicy": policy,
            "ipFamilies": ["IPv4", "IPv6"]})
    }

    fn single(policy: &str) -> Value {
        json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilyPolicy": policy,
            "ipFamilies": ["IPv4"]})
    }

    #[test]
    fn a_second_family_comes_and_goes_by_policy_only() {
        check(dual("SingleStack"), Some(dual("RequireDualStack")), BOTH, "SingleStack IPv4");
        check(single("RequireDualStack"), Some(single("SingleStack")), BOTH, "RequireDualStack IPv4,IPv6");
        check(single("PreferDualStack"), Some(single("PreferDualStack")), BOTH, "PreferDualStack IPv4");
        check(dual("PreferDualStack"), Some(dual("PreferDualStack")), &["IPv4"], "PreferDualStack IPv4,IPv6");
        check(
            single("RequireDualStack"),
            Some(dual("RequireDualStack")),
            BOTH,
            "[spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary cluster IP, spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary IP family]",
        );
    }

    #[test]
    fn an_update_needs_an_address_only_where_there_was_none() {
        let want = |new: Value, old: Option<Value>| {
            let (old, mut new) = (old.map(service), service(new));
            families(&mut new, old.as_ref(), BOTH).expect("families");
            let list = wanted(&new, old.as_ref()).into_iter();
            list.map(|w| format!("{}{}{}", w.index, w.family, w.asked.unwrap_or_default()))
                .collect::<Vec<_>>()
        };
        assert_eq!(want(json!({}), None), ["0IPv4"]);
        assert_eq!(want(single("SingleStack"), None), ["0IPv410.0.0.1"]);
        assert!(want(single("SingleStack"), Some(single("SingleStack"))).is_empty());
        assert_eq!(want(single("RequireDualStack"), Some(single("SingleStack"))), ["1IPv6"]);
        assert_eq!(want(dual("RequireDualStack"), Some(single("SingleStack"))), ["1IPv6fd00::1"]);
        assert!(want(dual("SingleStack"), Some(dual("RequireDualStack"))).is_empty());
        let external = json!({"type": "ExternalName", "externalName": "a.example"});
        assert_eq!(want(json!({}), Some(external)), ["0IPv4"]);
        assert!(want(json!({"clusterIP": "None", "clusterIPs": ["None"]}), None).is_empty());
    }
}
