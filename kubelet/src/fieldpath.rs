//! `fieldRef` and `resourceFieldRef`: values of a pod's own fields for environment and downward API files.
//!
//! Answers to upstream's `pkg/fieldpath` and `pkg/api/v1/resource`.

use std::collections::BTreeMap;

use common::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

/// A field that a pod does not offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldPathError {
    #[error("unsupported fieldPath: {0}")]
    Unsupported(String),
    #[error("container {0} not found")]
    NoContainer(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("divisor {0:?} is not a positive quantity")]
    Divisor(String),
}

/// A metadata or spec field as text; maps are rendered one `key="value"` per line, sorted. Fields that only the
/// running pod has (`status.*`) are the caller's.
///
/// # Errors
/// For a path that is not in the downward API.
pub fn extract_field(pod: &Pod, path: &str) -> Result<String, FieldPathError> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let source = match map {
            "metadata.annotations" => &meta.annotations,
            "metadata.labels" => &meta.labels,
            _ => return Err(FieldPathError::Unsupported(path.to_owned())),
        };
        return Ok(source.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let text = |value: &Option<String>| Ok(value.clone().unwrap_or_default());
    match path {
        "metadata.annotations" => Ok(format_map(meta.annotations.as_ref())),
        "metadata.labels" => Ok(format_map(meta.labels.as_ref())),
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "spec.nodeName" => Ok(pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default()),
        "spec.serviceAccountName" => {
            Ok(pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).unwrap_or_default())
        }
        _ => Err(FieldPathError::Unsupported(path.to_owned())),
    }
}

/// `metadata.labels['key']` in its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// One line per entry, value quoted as Go's `%q` does.
pub fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let mut lines = Vec::new();
    for (key, value) in map.into_iter().flatten() {
        lines.push(format!("{key}={}", go_quote(value)));
    }
    lines.join("\n")
}

/// Go's `strconv.Quote`.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A container's request or limit divided by the divisor and rounded up. A limit that is not set is the node's
/// allocatable, as upstream.
///
/// # Errors
/// For a container or resource that does not exist.
pub fn extract_resource(
    pod: &Pod,
    default_container: Option<&str>,
    selector: &ResourceFieldSelector,
    allocatable: &BTreeMap<String, String>,
) -> Result<String, FieldPathError> {
    let name =
        selector.container_name.as_deref().filter(|n| !n.is_empty()).or(default_container).unwrap_or("");
    let container = find_container(pod, name).ok_or_else(|| FieldPathError::NoContainer(name.to_owned()))?;
    let (kind, resource) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| FieldPathError::Resource(selector.resource.clone()))?;
    let known =
        matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-");
    if !known || !matches!(kind, "limits" | "requests") {
        return Err(FieldPathError::Resource(selector.resource.clone()));
    }
    let resources = container.resources.as_ref();
    let list = match kind {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        _ => resources.and_then(|r| r.requests.as_ref()),
    };
    let stated = list.and_then(|l| l.get(resource)).and_then(|q| Quantity::parse(&q.0).ok());
    let amount = stated.filter(|q| !q.is_zero()).or_else(|| {
        (kind == "limits").then(|| allocatable.get(resource).and_then(|q| Quantity::parse(q).ok())).flatten()
    });
    let amount = amount.unwrap_or_default();
    let divisor_text = selector.divisor.as_ref().map_or("0", |d| d.0.as_str());
    let divisor = Quantity::parse(divisor_text)
        .ok()
        .filter(|d| !d.is_negative())
        .ok_or_else(|| FieldPathError::Divisor(divisor_text.to_owned()))?;
    let (value, by) = if resource == "cpu" {
        (amount.millis(), if divisor.is_zero() { 1000 } else { divisor.millis() })
    } else {
        (amount.units(), if divisor.is_zero() { 1 } else { divisor.units() })
    };
    Ok((i128::from(value) + i128::from(by) - 1).div_euclid(i128::from(by.max(1))).to_string())
}

fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {"x": "1", "b": "q\"t"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}}}]},
        }))
        .unwrap();
        assert_eq!(extract_field(&pod, "metadata.labels").unwrap(), "b=\"q\\\"t\"\nx=\"1\"");
        assert_eq!(extract_field(&pod, "metadata.labels['x']").unwrap(), "1");
        assert!(extract_field(&pod, "spec.hostname").is_err());
        let node = BTreeMap::from([("memory".to_owned(), "1Gi".to_owned())]);
        let check = |resource: &str, divisor: &str, want: &str| {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            assert_eq!(extract_resource(&pod, Some("c"), &selector, &node).unwrap(), want);
        };
        check("limits.cpu", "0", "2");
        check("limits.cpu", "1m", "1500");
        check("limits.memory", "1Mi", "1024");
        check("requests.memory", "1Mi", "0");
    }
}
