//! Amounts for the pod as a whole: what they may name, and how they bound what the containers ask for.

use common::quantity::Quantity;
use common::status::FieldErrors;
use serde_json::Value;

use super::resources;
use crate::registry::checks::At;
use crate::registry::tree::{at, child_mut, field, has, items, map_mut, text};

const NAMES: [&str; 2] = ["cpu", "memory"];

/// Fills what the pod as a whole leaves open of `spec.resources`, once it says something: limits of huge pages
/// from those of the containers, requests from those of the containers, or else from the limits.
pub fn default(spec: &mut Value) {
    let said =
        |spec: &Value, list: &str| at(spec, &["resources", list]).as_object().is_some_and(|l| !l.is_empty());
    if !said(spec, "limits") && !said(spec, "requests") {
        return;
    }
    let pages: Vec<(String, String)> = aggregate(spec, "limits")
        .into_iter()
        .filter(|(name, _)| resources::is_huge_page(name) && !has(at(spec, &["resources", "requests"]), name))
        .map(|(name, amount)| (name.clone(), shown(spec, "limits", &name, amount)))
        .collect();
    fill(spec, "limits", pages);
    if !said(spec, "limits") {
        return;
    }
    let asked: Vec<(String, String)> = aggregate(spec, "requests")
        .into_iter()
        .filter(|(name, _)| NAMES.contains(&name.as_str()))
        .map(|(name, amount)| (name.clone(), shown(spec, "requests", &name, amount)))
        .collect();
    fill(spec, "requests", asked);
    let limits = at(spec, &["resources", "limits"]).as_object().into_iter().flatten();
    let limits = limits
        .filter(|(name, _)| NAMES.contains(&name.as_str()) || resources::is_huge_page(name))
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    fill(spec, "requests", limits);
}

/// Adds what the list does not have.
fn fill(spec: &mut Value, list: &str, amounts: Vec<(String, String)>) {
    let Some(resources) = child_mut(spec, "resources").filter(|_| !amounts.is_empty()) else { return };
    let Some(list) = map_mut(resources, list) else { return };
    for (name, amount) in amounts {
        list.entry(name).or_insert(Value::String(amount));
    }
}

/// A sum in the way in which the first of its parts is written, as Go's quantities keep it.
fn shown(spec: &Value, list: &str, name: &str, amount: Quantity) -> String {
    let all = items(spec, "containers").iter().chain(items(spec, "initContainers"));
    let first = all.filter_map(|c| at(c, &["resources", list, name]).as_str()).find(|text| *text != "0");
    let bytes = amount.units();
    let text = match first {
        Some(text) if text.ends_with('i') && bytes % 1024 == 0 => format!("{}Ki", bytes / 1024),
        _ => amount.to_string(),
    };
    resources::canonical(&text).unwrap_or(text)
}

/// `spec.resources`.
pub fn validate(spec: &At<'_>, errors: &mut FieldErrors) {
    let whole = spec.at("resources");
    if !whole.present() {
        return;
    }
    if text(field(spec.value, "os"), "name") == "windows" {
        errors.forbidden(&whole.path, "may not be set for a windows pod");
        return;
    }
    if whole.has("claims") {
        whole.forbidden("claims", "claims may not be set for Resources at pod-level", errors);
    }
    for key in ["limits", "requests"] {
        let list = whole.at(key);
        for (name, _) in list.value.as_object().into_iter().flatten() {
            if !NAMES.contains(&name.as_str()) && !resources::is_huge_page(name) {
                let mut known: Vec<&str> = NAMES.to_vec();
                known.push("hugepages-");
                errors.not_supported(&list.path, name, &known);
            }
        }
    }
    resources::validate(whole.value, &[], &whole.path, errors);
    for (name, asked) in aggregate(spec.value, "requests") {
        let Some(most) = whole.at("requests").quantity(&name).filter(|most| asked > *most) else { continue };
        errors.invalid(
            format!("{}.requests[{name}]", whole.path),
            most.to_string(),
            format!("must be greater than or equal to aggregate container requests of {asked}"),
        );
    }
    for (name, asked) in
        aggregate(spec.value, "limits").into_iter().filter(|(n, _)| resources::is_huge_page(n))
    {
        let Some(most) = whole.at("limits").quantity(&name).filter(|most| asked > *most) else { continue };
        errors.invalid(
            format!("{}.limits[{name}]", whole.path),
            most.to_string(),
            format!("must be greater than or equal to aggregate container limits of {asked}"),
        );
    }
    for (i, container) in items(spec.value, "containers").iter().enumerate() {
        let limits = at(container, &["resources", "limits"]);
        for (name, value) in limits.as_object().into_iter().flatten() {
            let (Some(own), Some(most)) = (resources::read(value), whole.at("limits").quantity(name)) else {
                continue;
            };
            if own > most {
                errors.invalid(
                    format!("{}.containers[{i}][{name}].limits", whole.path),
                    own.to_string(),
                    format!("must be less than or equal to pod limits of {most}"),
                );
            }
        }
    }
}

/// What the containers ask for together: the running ones at once, or more while an init container runs.
fn aggregate(spec: &Value, list: &str) -> Vec<(String, Quantity)> {
    let amounts = |container: &Value| -> Vec<(String, Quantity)> {
        at(container, &["resources", list])
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), resources::read(value)?)))
            .collect()
    };
    let mut running: Vec<(String, Quantity)> = Vec::new();
    for container in items(spec, "containers") {
        for (name, amount) in amounts(container) {
            add(&mut running, &name, amount);
        }
    }
    let (mut sidecars, mut peak): (Vec<(String, Quantity)>, Vec<(String, Quantity)>) =
        (Vec::new(), Vec::new());
    for container in items(spec, "initContainers") {
        let sidecar = text(container, "restartPolicy") == "Always";
        for (name, amount) in amounts(container) {
            if sidecar {
                add(&mut running, &name, amount);
                add(&mut sidecars, &name, amount);
                let so_far = get(&sidecars, &name);
                raise(&mut peak, &name, so_far);
            } else {
                let with_sidecars = sum(amount, get(&sidecars, &name));
                raise(&mut peak, &name, with_sidecars);
            }
        }
    }
    for (name, amount) in peak {
        raise(&mut running, &name, amount);
    }
    running
}

fn get(list: &[(String, Quantity)], name: &str) -> Quantity {
    list.iter().find(|(n, _)| n == name).map_or(Quantity::ZERO, |(_, amount)| *amount)
}

fn sum(a: Quantity, b: Quantity) -> Quantity {
    Quantity::from_millis(a.millis().saturating_add(b.millis()))
}

fn add(list: &mut Vec<(String, Quantity)>, name: &str, amount: Quantity) {
    let total = sum(get(list, name), amount);
    list.retain(|(n, _)| n != name);
    list.push((name.to_owned(), total));
}

fn raise(list: &mut Vec<(String, Quantity)>, name: &str, amount: Quantity) {
    if amount > get(list, name) {
        list.retain(|(n, _)| n != name);
        list.push((name.to_owned(), amount));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_pod_gets_what_it_leaves_open() {
        let check = |whole: Value, containers: Value, expected: Value| {
            let mut spec = json!({"resources": whole, "containers": containers});
            default(&mut spec);
            assert_eq!(spec["resources"], expected);
        };
        let two = json!([{"resources": {"requests": {"cpu": "1", "memory": "64Mi"}}},
            {"resources": {"requests": {"memory": "1Gi"}}}]);
        check(
            json!({"limits": {"cpu": "3", "hugepages-2Mi": "2Mi"}}),
            two.clone(),
            json!({"limits": {"cpu": "3", "hugepages-2Mi": "2Mi"},
                "requests": {"cpu": "1", "memory": "1088Mi", "hugepages-2Mi": "2Mi"}}),
        );
        check(json!({"requests": {"cpu": "3"}}), two.clone(), json!({"requests": {"cpu": "3"}}));
        check(json!({}), two, json!({}));
        let pages = json!([{"resources": {"limits": {"hugepages-2Mi": "4Mi"},
            "requests": {"hugepages-2Mi": "4Mi"}}}]);
        check(
            json!({"requests": {"cpu": "3"}}),
            pages,
            json!({"limits": {"hugepages-2Mi": "4Mi"},
                "requests": {"cpu": "3", "hugepages-2Mi": "4Mi"}}),
        );
    }

    #[test]
    fn containers_fit_their_pod() {
        let check = |whole: Value, containers: Value, expected: &[&str]| {
            let spec = json!({"resources": whole, "containers": containers});
            let mut errors = FieldErrors::new();
            validate(&At { value: &spec, path: "spec".to_owned() }, &mut errors);
            let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{spec}");
        };
        let one = json!([{"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}]);
        check(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}), one.clone(), &[]);
        check(
            json!({"requests": {"cpu": "500m"}}),
            one.clone(),
            &[
                "spec.resources.requests[cpu]: Invalid value: \"500m\": must be greater than or equal to aggregate container requests of 1",
            ],
        );
        check(
            json!({"limits": {"cpu": "1"}}),
            one,
            &[
                "spec.resources.containers[0][cpu].limits: Invalid value: \"2\": must be less than or equal to pod limits of 1",
            ],
        );
        check(
            json!({"claims": []}),
            json!([]),
            &["spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level"],
        );
    }
}
