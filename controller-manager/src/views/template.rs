//! A pod template, kept as text because controllers only compare it and pass it on.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// The label that names a template's hash, not part of what a template means.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Labels and annotations as maps, the spec as canonical JSON: keys sorted, `null` and empty lists left out.
/// Two templates mean the same when they are equal apart from the hash label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub finalizers: Vec<String>,
    pub spec: Box<str>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Wire {
    #[serde(deserialize_with = "super::nullable")]
    metadata: WireMeta,
    spec: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireMeta {
    #[serde(deserialize_with = "super::nullable")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::nullable")]
    annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::nullable")]
    finalizers: Vec<String>,
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        Ok(Self {
            labels: wire.metadata.labels,
            annotations: wire.metadata.annotations,
            finalizers: wire.metadata.finalizers,
            spec: canonical(wire.spec).to_string().into(),
        })
    }
}

impl Template {
    /// Same meaning: equal apart from the hash label.
    pub fn equals_ignoring_hash(&self, other: &Self) -> bool {
        fn labels(t: &Template) -> impl Iterator<Item = (&String, &String)> {
            t.labels.iter().filter(|(k, _)| *k != POD_TEMPLATE_HASH)
        }
        self.spec == other.spec
            && self.annotations == other.annotations
            && self.finalizers == other.finalizers
            && labels(self).eq(labels(other))
    }

    /// A name for the template that is stable across processes: FNV-1a over its canonical form, shown in the
    /// alphabet that upstream uses for generated names. `collision_count` gives another name on demand.
    pub fn hash(&self, collision_count: Option<i32>) -> String {
        let mut hash: u32 = 0x811c_9dc5;
        let mut feed = |bytes: &[u8]| {
            for byte in bytes {
                hash ^= u32::from(*byte);
                hash = hash.wrapping_mul(0x0100_0193);
            }
        };
        feed(self.to_value().to_string().as_bytes());
        if let Some(count) = collision_count {
            feed(&count.to_le_bytes());
        }
        safe_encode(&hash.to_string())
    }

    /// The template as an object.
    pub fn to_value(&self) -> Value {
        let mut metadata = Map::new();
        if !self.labels.is_empty() {
            metadata.insert("labels".into(), json!(self.labels));
        }
        if !self.annotations.is_empty() {
            metadata.insert("annotations".into(), json!(self.annotations));
        }
        if !self.finalizers.is_empty() {
            metadata.insert("finalizers".into(), json!(self.finalizers));
        }
        json!({ "metadata": metadata, "spec": self.spec_value() })
    }

    /// The pod spec as an object.
    pub fn spec_value(&self) -> Value {
        serde_json::from_str(&self.spec).unwrap_or_default()
    }
}

/// Digits and letters without vowels or look-alikes, so that no word appears by accident.
fn safe_encode(text: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

fn canonical(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter_map(|(k, v)| {
                let v = canonical(v);
                let empty = v.is_null() || v.as_array().is_some_and(Vec::is_empty);
                (!empty).then_some((k, v))
            });
            let sorted: BTreeMap<String, Value> = kept.collect();
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(value: Value) -> Template {
        serde_json::from_value(value).expect("template")
    }

    #[test]
    fn order_nulls_and_the_hash_label_do_not_matter() {
        let a = template(json!({"metadata": {"creationTimestamp": null, "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "env": []}]}}));
        let b = template(json!({"metadata": {"labels": {"a": "b", "pod-template-hash": "x"}},
            "spec": {"containers": [{"image": "i", "name": "c"}], "volumes": null}}));
        assert!(a.equals_ignoring_hash(&b));
        let c = template(json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"image": "j", "name": "c"}]}}));
        assert!(!a.equals_ignoring_hash(&c));
        assert_ne!(a.hash(None), c.hash(None));
        assert_ne!(a.hash(None), a.hash(Some(1)));
        assert_eq!(a.hash(Some(1)), a.clone().hash(Some(1)));
        let empty_dir = template(json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}));
        assert!(empty_dir.spec.contains("emptyDir"));
    }
}
