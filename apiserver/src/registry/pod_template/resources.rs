//! Amounts of resources: canonical form and validation.

use common::quantity::Quantity;
use common::status::FieldErrors;
use serde_json::Value;

use crate::registry::names;
use crate::registry::tree::{entries, field, has, items, text};

/// The canonical text of a quantity, keeping its family of suffixes as upstream's encoder does. `None` when
/// it is not a quantity.
pub fn canonical(value: &str) -> Option<String> {
    let amount = Quantity::parse(value).ok()?;
    if value.contains(['e', 'E']) && !value.ends_with('E') && !value.ends_with("Ei") {
        return Some(value.to_owned());
    }
    if value.ends_with('i') {
        let units = amount.units();
        let exact = Quantity::from_units(units) == amount;
        if exact && units.abs() >= 1024 {
            let suffixes = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let power = ((units.trailing_zeros() / 10) as usize).min(suffixes.len());
            let scaled = units >> (10 * power);
            return Some(if power == 0 {
                units.to_string()
            } else {
                format!("{scaled}{}", suffixes[power - 1])
            });
        }
    }
    Some(amount.to_string())
}

/// Rewrites every amount of a resource list in canonical form, rounded up to thousandths.
pub fn default_list(list: &mut Value) {
    let Some(map) = list.as_object_mut() else { return };
    for value in map.values_mut() {
        let text = match &*value {
            Value::String(s) => s.clone(),
            Value::Number(n) => n.to_string(),
            _ => continue,
        };
        let rounded = match Quantity::parse(&text) {
            Ok(q) if Quantity::from_millis(q.millis()) != q && q.millis().abs() < i64::MAX => {
                Quantity::from_millis(q.millis()).to_string()
            }
            _ => match canonical(&text) {
                Some(text) => text,
                None => continue,
            },
        };
        *value = Value::String(rounded);
    }
}

/// A resource's amount; zero when absent or unreadable.
pub fn amount(list: &Value, name: &str) -> Quantity {
    list.get(name).and_then(read).unwrap_or(Quantity::ZERO)
}

/// Reads an amount given as text or number.
pub fn read(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(s) => Quantity::parse(s).ok(),
        Value::Number(n) => Quantity::parse(&n.to_string()).ok(),
        _ => None,
    }
}

const STANDARD_CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const STANDARD_OTHERS: [&str; 12] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
    "requests.cpu",
    "limits.cpu",
    "storage",
];

/// Whole amounts only (`IsIntegerResourceName`, extended resources).
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// The amount is a multiple of the page size that the name says.
fn is_whole_pages(name: &str, amount: Quantity) -> bool {
    let page = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
    page.is_some_and(|page| {
        page > Quantity::ZERO
            && Quantity::from_units(page.units()) == page
            && amount.units() % page.units() == 0
    })
}

/// May be given more of in limits than in requests.
fn is_overcommit_allowed(name: &str) -> bool {
    !is_extended(name) && !is_huge_page(name)
}

pub fn validate_name(name: &str, path: &str, errors: &mut FieldErrors) {
    for message in names::qualified_name(name) {
        errors.invalid(path, name, message);
    }
    if !name.contains('/')
        && !STANDARD_CONTAINER.contains(&name)
        && !is_huge_page(name)
        && !name.starts_with("attachable-volumes-")
    {
        if STANDARD_OTHERS.contains(&name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        } else {
            errors.invalid(path, name, "must be a standard resource type or fully qualified");
        }
    }
}

/// Checks a container's `resources`.
pub fn validate(resources: &Value, claims: &[&str], path: &str, errors: &mut FieldErrors) {
    let (limits, requests) = (field(resources, "limits"), field(resources, "requests"));
    let (mut cpu_or_memory, mut huge) = (false, false);
    for (list, key) in [(limits, "limits"), (requests, "requests")] {
        for (name, value) in list.as_object().into_iter().flatten() {
            let here = format!("{path}.{key}");
            validate_name(name, &here, errors);
            let keyed = format!("{here}[{name}]");
            match read(value) {
                None => errors.invalid(&keyed, value, "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
                Some(q) if q.is_negative() => {
                    errors.invalid(&keyed, value, "must be greater than or equal to 0");
                }
                Some(q) if is_extended(name) && q.millis() % 1000 != 0 => {
                    errors.invalid(&keyed, value, "must be an integer");
                }
                Some(q) if is_huge_page(name) && !is_whole_pages(name, q) => {
                    let amount = shown(value);
                    let detail = format!("{amount} is not positive integer multiple of {name}");
                    errors.invalid(&keyed, amount, detail);
                }
                Some(_) => {}
            }
            cpu_or_memory |= name == "cpu" || name == "memory";
            huge |= is_huge_page(name);
        }
    }
    for (name, value) in requests.as_object().into_iter().flatten() {
        let here = format!("{path}.requests");
        match limits.get(name) {
            Some(limit) => {
                let (wanted, most) = (read(value).unwrap_or_default(), read(limit).unwrap_or_default());
                if wanted != most && !is_overcommit_allowed(name) {
                    errors.invalid(
                        &here,
                        value,
                        format!("must be equal to {name} limit of {}", shown(limit)),
                    );
                } else if wanted > most {
                    errors.invalid(
                        &here,
                        value,
                        format!("must be less than or equal to {name} limit of {}", shown(limit)),
                    );
                }
            }
            None if !is_overcommit_allowed(name) => {
                errors
                    .required(format!("{path}.limits"), "Limit must be set for non overcommitable resources");
            }
            None => {}
        }
    }
    if huge && !cpu_or_memory {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    for (i, claim) in items(resources, "claims").iter().enumerate() {
        let name = text(claim, "name");
        if name.is_empty() {
            errors.required(format!("{path}.claims[{i}]"), "");
        } else if !claims.contains(&name) {
            errors.not_found(format!("{path}.claims[{i}]"), name);
        }
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Fills requests from limits, as pods (not templates) do.
pub fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.get_mut("resources") else { return };
    if !has(resources, "limits") {
        return;
    }
    let limits: Vec<_> = entries(resources, "limits").map(|(k, v)| (k.clone(), v.clone())).collect();
    if let Some(requests) = super::super::tree::map_mut(resources, "requests") {
        for (name, value) in limits {
            requests.entry(name).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_keep_their_family() {
        for (given, kept) in [
            ("1Gi", "1Gi"),
            ("1024Mi", "1Gi"),
            ("0.5Gi", "512Mi"),
            ("1000m", "1"),
            ("0.1", "100m"),
            ("1e3", "1e3"),
            ("1500Ki", "1500Ki"),
        ] {
            assert_eq!(canonical(given).expect(given), kept, "{given}");
        }
    }

    fn check(resources: Value, expected: &[&str]) {
        let mut errors = FieldErrors::new();
        validate(&resources, &[], "resources", &mut errors);
        let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{resources}");
    }

    #[test]
    fn requests_stay_below_limits() {
        check(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}), &[]);
        check(
            json!({"requests": {"cpu": "3"}, "limits": {"cpu": "2"}}),
            &["resources.requests: Invalid value: \"3\": must be less than or equal to cpu limit of 2"],
        );
        check(
            json!({"limits": {"cpus": "2"}}),
            &[
                "resources.limits: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
            ],
        );
        check(
            json!({"requests": {"example.com/gpu": "1"}}),
            &["resources.limits: Required value: Limit must be set for non overcommitable resources"],
        );
    }
}
