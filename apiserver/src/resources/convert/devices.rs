//! resource.k8s.io: v1beta1 keeps a request's and a device's fields in other places than v1; v1beta2 has v1's
//! shape.

use serde_json::{Map, Value, json};

use crate::object::Object;

/// What v1beta1 has in a request itself and v1 in its `exactly`.
const EXACT: [&str; 7] =
    ["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

/// Those of them that are no pointers and no lists.
const PLAIN: [&str; 3] = ["deviceClassName", "allocationMode", "count"];

fn list<'a>(object: &'a mut Object, pointer: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    object
        .pointer_mut(pointer)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn requests_to_v1(object: &mut Object, pointer: &str) {
    for request in list(object, pointer) {
        let exactly: Map<String, Value> =
            EXACT.iter().filter_map(|key| Some(((*key).to_owned(), request.remove(*key)?))).collect();
        // What is not set there may be written out.
        let exactly: Map<String, Value> = exactly
            .into_iter()
            .filter(|(key, value)| {
                !PLAIN.contains(&key.as_str()) || !(value.is_null() || value == "" || value == 0)
            })
            .collect();
        if !exactly.is_empty() {
            request.insert("exactly".to_owned(), Value::Object(exactly));
        }
    }
}

fn requests_to_v1beta1(object: &mut Object, pointer: &str) {
    for request in list(object, pointer) {
        if let Some(Value::Object(exactly)) = request.remove("exactly") {
            request.extend(exactly);
        }
    }
}

pub(super) fn claim_to_v1(mut claim: Object) -> Object {
    claim["apiVersion"] = json!("resource.k8s.io/v1");
    requests_to_v1(&mut claim, "/spec/devices/requests");
    claim
}

pub(super) fn claim_to_v1beta1(mut claim: Object) -> Object {
    claim["apiVersion"] = json!("resource.k8s.io/v1beta1");
    requests_to_v1beta1(&mut claim, "/spec/devices/requests");
    claim
}

pub(super) fn template_to_v1(mut template: Object) -> Object {
    template["apiVersion"] = json!("resource.k8s.io/v1");
    requests_to_v1(&mut template, "/spec/spec/devices/requests");
    template
}

pub(super) fn template_to_v1beta1(mut template: Object) -> Object {
    template["apiVersion"] = json!("resource.k8s.io/v1beta1");
    requests_to_v1beta1(&mut template, "/spec/spec/devices/requests");
    template
}

pub(super) fn slice_to_v1(mut slice: Object) -> Object {
    slice["apiVersion"] = json!("resource.k8s.io/v1");
    for device in list(&mut slice, "/spec/devices") {
        if let Some(Value::Object(basic)) = device.remove("basic") {
            device.extend(basic);
        }
    }
    // v1 has pointers where v1beta1 has plain values.
    if let Some(spec) = slice.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|key, value| match key.as_str() {
            "nodeName" => value.as_str() != Some(""),
            "allNodes" => value.as_bool() != Some(false),
            _ => true,
        });
    }
    slice
}

pub(super) fn slice_to_v1beta1(mut slice: Object) -> Object {
    slice["apiVersion"] = json!("resource.k8s.io/v1beta1");
    for device in list(&mut slice, "/spec/devices") {
        let name = device.remove("name");
        let basic = std::mem::take(device);
        device.extend(name.map(|name| ("name".to_owned(), name)));
        device.insert("basic".to_owned(), Value::Object(basic));
    }
    slice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_devices_survive_the_way_and_back() {
        let claim = json!({"kind": "ResourceClaim", "apiVersion": "resource.k8s.io/v1beta1",
            "metadata": {"name": "a"}, "spec": {"devices": {"requests": [
                {"name": "r", "deviceClassName": "c", "count": 2, "allocationMode": "ExactCount"},
                {"name": "f", "firstAvailable": [{"name": "s", "deviceClassName": "c"}]}]}}});
        let v1 = claim_to_v1(claim.clone());
        assert_eq!(v1["spec"]["devices"]["requests"][0]["exactly"]["count"], 2);
        assert!(v1["spec"]["devices"]["requests"][1].get("exactly").is_none());
        assert_eq!(claim_to_v1beta1(v1), claim);

        let slice = json!({"kind": "ResourceSlice", "apiVersion": "resource.k8s.io/v1beta1",
            "spec": {"devices": [{"name": "d", "basic": {"attributes": {"a": {"int": 1}}}}]}});
        let v1 = slice_to_v1(slice.clone());
        assert_eq!(v1["spec"]["devices"][0]["attributes"]["a"]["int"], 1);
        assert_eq!(slice_to_v1beta1(v1), slice);
    }
}
