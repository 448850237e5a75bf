//! The status of a claim: what was allocated, for whom it is reserved, and what drivers say of the devices.

use common::status::FieldErrors;
use serde::Serialize;
use serde_json::Value;

use super::binding::binding_conditions;
use super::capacity::default_quantities;
use super::claim::default_tolerations;
use super::configuration::{CONFIGS_MAX, json_object, opaque};
use super::lists::{distinct, within};
use super::names::pool_name;
use super::requests::{REQUESTS_MAX, RequestNames};
use crate::object::{self, Object};
use crate::registry::checks::{At, interface_address};
use crate::registry::conditions::conditions;
use crate::registry::core::immutable;
use crate::registry::names;
use crate::registry::pod_template::affinity::node_selector;
use crate::registry::pod_template::volume_sources::csi_driver_name;
use crate::registry::tree::{at, child_mut, field, is_zero, items, items_mut, remove, text};

const RESERVATIONS_MAX: usize = 256;
const CONDITIONS_MAX: usize = 8;
const ADDRESSES_MAX: usize = 16;
const INTERFACE_NAME_BYTES_MAX: usize = 256;
const HARDWARE_ADDRESS_BYTES_MAX: usize = 128;

/// A device, or a share of one. Errors show it in this form.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DeviceId<'a> {
    driver: &'a str,
    pool: &'a str,
    device: &'a str,
    #[serde(rename = "ShareID")]
    share_id: &'a str,
}

impl<'a> DeviceId<'a> {
    /// From a result of allocation, or from a device's status.
    fn of(value: &'a Value) -> Self {
        let part = |key| text(value, key);
        Self { driver: part("driver"), pool: part("pool"), device: part("device"), share_id: part("shareID") }
    }
}

fn results(claim: &Object) -> &[Value] {
    items(at(claim, &["status", "allocation", "devices"]), "results")
}

pub(super) fn default_status(claim: &mut Object) {
    let Some(status) = child_mut(claim, "status") else { return };
    let Some(devices) = child_mut(status, "allocation").and_then(|a| child_mut(a, "devices")) else { return };
    for result in items_mut(devices, "results") {
        default_tolerations(result);
        if let Some(consumed) = child_mut(result, "consumedCapacity") {
            default_quantities(consumed);
        }
    }
}

/// What drivers said of devices goes when the devices do, for the sake of clients that do not know of it.
pub(super) fn drop_deallocated(new: &mut Object, old: &Object) {
    let kept: Vec<Value> = {
        let now: Vec<DeviceId<'_>> = results(new).iter().map(DeviceId::of).collect();
        let gone: Vec<DeviceId<'_>> =
            results(old).iter().map(DeviceId::of).filter(|id| !now.contains(id)).collect();
        let said = items(field(new, "status"), "devices");
        said.iter().filter(|device| !gone.contains(&DeviceId::of(device))).cloned().collect()
    };
    let Some(status) = child_mut(new, "status") else { return };
    if kept.is_empty() {
        remove(status, "devices");
    } else {
        crate::registry::tree::set(status, "devices", Value::Array(kept));
    }
}

pub(super) fn claim_status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let status = At::root(new).at("status");
    let reserved = status.each("reservedFor");
    if within(&status, "reservedFor", RESERVATIONS_MAX, errors) {
        for consumer in &reserved {
            for key in ["resource", "name", "uid"] {
                consumer.required_text(key, errors);
            }
        }
        distinct(&reserved, "uid", errors);
    }
    device_statuses(&status, results(new), errors);
    let (allocation, before) = (status.at("allocation"), at(old, &["status", "allocation"]));
    if !reserved.is_empty() {
        if !allocation.present() {
            status.forbidden("reservedFor", "may not be specified when `allocated` is not set", errors);
        } else if !object::str_at(new, &["metadata", "deletionTimestamp"]).is_empty() {
            let known = items(field(old, "status"), "reservedFor");
            if reserved.iter().any(|consumer| !known.contains(consumer.value)) {
                let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
                status.forbidden("reservedFor", detail, errors);
            }
        }
    }
    if allocation.present() && !before.is_null() {
        // Not checked again: results are held to more than they once were.
        immutable(new, old, &["status", "allocation"], errors);
    } else if allocation.present() {
        let known = RequestNames::of(&At::root(new).at("spec").at("devices"));
        allocated(&allocation, &known, errors);
    }
}

fn allocated(allocation: &At<'_>, known: &RequestNames<'_>, errors: &mut FieldErrors) {
    let devices = allocation.at("devices");
    if within(&devices, "results", REQUESTS_MAX, errors) {
        for result in devices.each("results") {
            known.check(result.text("request"), &result.under("request"), errors);
            device_names(&result, errors);
            binding_conditions(&result, errors);
            if result.has("shareID") {
                uid(&result, "shareID", errors);
            }
        }
    }
    // Of the class and of the claim.
    if within(&devices, "config", 2 * CONFIGS_MAX, errors) {
        for config in devices.each("config") {
            config.required_choice("source", &["FromClaim", "FromClass"], errors);
            known.check_all(&config, errors);
            opaque(&config, false, errors);
        }
    }
    let selector = allocation.at("nodeSelector");
    if selector.present() {
        node_selector(selector.value, &selector.path, errors);
    }
}

fn device_names(owner: &At<'_>, errors: &mut FieldErrors) {
    csi_driver_name(owner, "driver", errors);
    pool_name(owner, "pool", errors);
    owner.shaped("device", names::dns1123_label, errors);
}

fn device_statuses(status: &At<'_>, results: &[Value], errors: &mut FieldErrors) {
    let devices = status.each("devices");
    for device in &devices {
        device_names(device, errors);
        if device.has("shareID") {
            uid(device, "shareID", errors);
        }
        let id = DeviceId::of(device.value);
        if !results.iter().any(|result| DeviceId::of(result) == id) {
            errors.invalid(&device.path, &id, "must be an allocated device in the claim");
        }
        within(device, "conditions", CONDITIONS_MAX, errors);
        conditions(device, errors);
        if device.has("data") {
            json_object(&device.at("data"), false, errors);
        }
        network(&device.at("networkData"), errors);
    }
    for (i, device) in devices.iter().enumerate() {
        let id = DeviceId::of(device.value);
        if devices[..i].iter().any(|other| DeviceId::of(other.value) == id) {
            errors.duplicate(&device.path, &id);
        }
    }
}

fn network(data: &At<'_>, errors: &mut FieldErrors) {
    for (key, most) in
        [("interfaceName", INTERFACE_NAME_BYTES_MAX), ("hardwareAddress", HARDWARE_ADDRESS_BYTES_MAX)]
    {
        if data.text(key).len() > most {
            errors.too_long(data.under(key), most);
        }
    }
    if is_zero(field(data.value, "ips")) || !within(data, "ips", ADDRESSES_MAX, errors) {
        return;
    }
    let addresses = data.strings("ips");
    let path = |i: usize| format!("{}[{i}]", data.under("ips"));
    for (i, address) in addresses.iter().enumerate() {
        for message in interface_address(address) {
            errors.invalid(path(i), address, message);
        }
    }
    for (i, address) in addresses.iter().enumerate() {
        if addresses[..i].contains(address) {
            errors.duplicate(path(i), address);
        }
    }
}

/// A UUID as RFC 4122 writes it, in lower case.
fn uid(owner: &At<'_>, key: &str, errors: &mut FieldErrors) {
    const NORMAL: &str = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
    const FORMAT: &str = "invalid UUID format";
    let uid = owner.text(key);
    let dashed = |uid: &str| {
        uid.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
    };
    let wrong = match (uid.len(), uid) {
        (36, uid) => (!dashed(uid)).then(|| FORMAT.to_owned()),
        (32, uid) => (!uid.bytes().all(|b| b.is_ascii_hexdigit())).then(|| FORMAT.to_owned()),
        // Written as a URN or in braces: known, but not normal.
        (38, uid) if uid.starts_with('{') && uid.ends_with('}') => None,
        (45, uid) if uid.to_lowercase().starts_with("urn:uuid:") => None,
        (length, _) => Some(format!("invalid UUID length: {length}")),
    };
    if let Some(wrong) = wrong {
        owner.invalid(key, format!("error validating uid: {wrong}"), errors);
    } else if uid.len() != 36 || uid.chars().any(|c| c.is_ascii_uppercase()) {
        owner.invalid(key, NORMAL, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::devices::CLAIM;
    use crate::registry::rules::StatusStrategy;
    use crate::resources::Strategy;
    use serde_json::json;

    fn claim(status: Value) -> Value {
        json!({"metadata": {"name": "c"}, "status": status, "spec": {"devices": {"requests": [
            {"name": "r", "firstAvailable": [{"name": "s", "deviceClassName": "c"}]},
            {"name": "q", "exactly": {"deviceClassName": "c"}}]}}})
    }

    fn found(old: Value, new: Value) -> Vec<String> {
        let (old, mut new) = (claim(old), claim(new));
        let strategy = StatusStrategy::new(CLAIM, &[]);
        strategy.default(&mut new);
        strategy.prepare_for_update(&mut new, &old);
        strategy.validate_update(&new, &old).0.iter().map(ToString::to_string).collect()
    }

    fn result(device: &str) -> Value {
        json!({"request": "r/s", "driver": "d", "pool": "p", "device": device})
    }

    fn allocation(results: Value) -> Value {
        json!({"allocation": {"devices": {"results": results}}})
    }

    #[test]
    fn an_allocation_is_checked_once_and_stays() {
        let good = allocation(json!([result("a")]));
        assert_eq!(found(json!({}), good.clone()), [""; 0]);
        assert_eq!(found(good.clone(), json!({})), [""; 0]);
        let errors = found(good, allocation(json!([result("b")])));
        assert!(
            errors[0].starts_with("status.allocation: Invalid value: ") && errors.len() == 1,
            "{errors:?}"
        );
        let mut bad = result("a");
        bad["request"] = json!("r/t");
        bad["shareID"] = json!("x");
        assert_eq!(
            found(json!({}), allocation(json!([bad]))),
            [
                "status.allocation.devices.results[0].request: Invalid value: \"r/t\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                "status.allocation.devices.results[0].shareID: Invalid value: \"x\": error validating uid: invalid UUID length: 1",
            ]
        );
        let config =
            json!([{"source": "", "requests": ["q", "q"], "opaque": {"driver": "d", "parameters": {}}}]);
        let mut with_config = allocation(json!([]));
        with_config["allocation"]["devices"]["config"] = config;
        assert_eq!(
            found(json!({}), with_config),
            [
                "status.allocation.devices.config[0].source: Required value",
                "status.allocation.devices.config[0].requests[1]: Duplicate value: \"q\"",
            ]
        );
    }

    #[test]
    fn uids_of_shares_are_in_normal_form() {
        let check = |uid: &str, detail: &str| {
            let mut one = result("a");
            one["shareID"] = json!(uid);
            let errors = found(json!({}), allocation(json!([one])));
            let wrong = errors.first().map_or("", String::as_str);
            assert!(wrong.ends_with(detail) && wrong.is_empty() == detail.is_empty(), "{uid}: {errors:?}");
        };
        check("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "");
        check("6BA7B810-9dad-11d1-80b4-00c04fd430c8", "with lowercase hexadecimal characters");
        check("6ba7b8109dad11d180b400c04fd430c8", "with lowercase hexadecimal characters");
        check("6ba7b810-9dad-11d1-80b4-00c04fd430cg", "invalid UUID format");
    }

    #[test]
    fn drivers_speak_of_allocated_devices_only() {
        let with = |devices: Value| {
            let mut status = allocation(json!([result("a")]));
            status["devices"] = devices;
            status
        };
        let device = json!({"driver": "d", "pool": "p", "device": "a"});
        assert_eq!(found(json!({}), with(json!([device]))), [""; 0]);
        assert_eq!(
            found(json!({}), with(json!([device, device, {"driver": "d", "pool": "p", "device": "b"}]))),
            [
                "status.devices[2]: Invalid value: {\"Driver\":\"d\",\"Pool\":\"p\",\"Device\":\"b\",\"ShareID\":\"\"}: must be an allocated device in the claim",
                "status.devices[1]: Duplicate value: {\"Driver\":\"d\",\"Pool\":\"p\",\"Device\":\"a\",\"ShareID\":\"\"}",
            ]
        );
        let mut network = device.clone();
        network["networkData"] =
            json!({"interfaceName": "e".repeat(257), "ips": ["10.0.0.1/24", "10.0.0.1"]});
        network["data"] = json!([1]);
        assert_eq!(
            found(json!({}), with(json!([network]))),
            [
                "status.devices[0].data: Invalid value: \"<value omitted>\": must be a valid JSON object",
                "status.devices[0].networkData.interfaceName: Too long: may not be more than 256 bytes",
                "status.devices[0].networkData.ips[1]: Invalid value: \"10.0.0.1\": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
            ]
        );
    }

    #[test]
    fn what_was_said_of_a_device_goes_with_it() {
        let mut old = allocation(json!([result("a"), result("b")]));
        old["devices"] = json!([
            {"driver": "d", "pool": "p", "device": "a"}, {"driver": "d", "pool": "p", "device": "b"}]);
        let mut new = claim(json!({"devices": old["devices"]}));
        drop_deallocated(&mut new, &claim(old.clone()));
        assert_eq!(new["status"], json!({}));
        let mut new = allocation(json!([result("b")]));
        new["devices"] = old["devices"].clone();
        let mut new = claim(new);
        drop_deallocated(&mut new, &claim(old));
        assert_eq!(new["status"]["devices"], json!([{"driver": "d", "pool": "p", "device": "b"}]));
    }

    #[test]
    fn reservations_need_an_allocation_and_stop_with_deletion() {
        let pod = |uid: &str| json!({"resource": "pods", "name": "p", "uid": uid});
        assert_eq!(
            found(json!({}), json!({"reservedFor": [pod("1"), pod("1"), {}]})),
            [
                "status.reservedFor[2].resource: Required value",
                "status.reservedFor[2].name: Required value",
                "status.reservedFor[2].uid: Required value",
                "status.reservedFor[1]: Duplicate value: \"1\"",
                "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
            ]
        );
        let status = |uids: &[&str]| {
            let mut status = allocation(json!([result("a")]));
            status["reservedFor"] = uids.iter().map(|uid| pod(uid)).collect();
            let mut claim = claim(status);
            claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            claim
        };
        let check = |old: &[&str], new: &[&str]| {
            let mut errors = FieldErrors::new();
            claim_status(&status(new), &status(old), &mut errors);
            errors.0.len()
        };
        assert_eq!(check(&["1", "2"], &["2"]), 0);
        assert_eq!(check(&["1"], &["1", "2"]), 1);
    }
}
