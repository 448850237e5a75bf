//! Which address families a service has: from what it says, what it had, and what the cluster has.

use std::net::IpAddr;

use common::status::Status;
use serde_json::json;

use super::allocation::AddressRange;
use super::refused;
use crate::object::Object;
use crate::registry::tree::{field, has, set, strings, struct_mut, text};

/// Fills ipFamilyPolicy and ipFamilies.
pub(super) fn families(
    service: &mut Object,
    old: Option<&Object>,
    ranges: &[AddressRange],
) -> Result<(), Status> {
    let whole = service.clone();
    let Some(spec) = struct_mut(service, "spec") else { return Ok(()) };
    let selectorless = text(spec, "clusterIP") == "None"
        && field(spec, "selector").as_object().is_none_or(serde_json::Map::is_empty);
    if !has(spec, "ipFamilyPolicy") {
        let before = old.map(|o| text(field(o, "spec"), "ipFamilyPolicy")).filter(|p| !p.is_empty());
        let policy = before.unwrap_or(if selectorless { "RequireDualStack" } else { "SingleStack" });
        set(spec, "ipFamilyPolicy", policy);
    }
    let single = text(spec, "ipFamilyPolicy") == "SingleStack";
    if single && old.is_some() {
        for key in ["clusterIPs", "ipFamilies"] {
            let unchanged = old.is_some_and(|o| strings(field(o, "spec"), key) == strings(spec, key));
            if unchanged && let Some(list) = crate::registry::tree::list_mut(spec, key) {
                list.truncate(1);
            }
        }
    }
    if single && (strings(spec, "clusterIPs").len() == 2 || strings(spec, "ipFamilies").len() == 2) {
        let what = if strings(spec, "clusterIPs").len() == 2 { "cluster IPs" } else { "IP families" };
        return Err(refused(
            &whole,
            "spec.ipFamilyPolicy",
            &json!("SingleStack"),
            &format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"),
        ));
    }
    let mut chosen: Vec<String> = strings(spec, "ipFamilies").into_iter().map(str::to_owned).collect();
    let known = |family: &str| ranges.iter().any(|p| p.family() == family);
    for (i, ip) in strings(spec, "clusterIPs").iter().enumerate().skip(chosen.len()) {
        let Ok(ip) = ip.parse::<IpAddr>() else { break };
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        if !known(family) {
            return Err(refused(
                &whole,
                &format!("spec.clusterIPs[{i}]"),
                field(spec, "clusterIPs"),
                &format!("{family} is not configured on this cluster"),
            ));
        }
        chosen.push(family.to_owned());
    }
    let default = ranges.first().map_or("IPv4", AddressRange::family);
    if !selectorless {
        if text(spec, "ipFamilyPolicy") == "RequireDualStack" && ranges.len() < 2 {
            return Err(refused(
                &whole,
                "spec.ipFamilyPolicy",
                &json!("RequireDualStack"),
                "this cluster is not configured for dual-stack services",
            ));
        }
        if let Some((i, family)) = chosen.iter().enumerate().find(|(_, f)| !known(f)) {
            return Err(refused(
                &whole,
                &format!("spec.ipFamilies[{i}]"),
                &json!(family),
                "not configured on this cluster",
            ));
        }
    }
    if chosen.is_empty() {
        chosen.push(default.to_owned());
    }
    if !single && chosen.len() == 1 && (selectorless || ranges.len() == 2) {
        chosen.push(if chosen[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    set(spec, "ipFamilies", json!(chosen));
    Ok(())
}
