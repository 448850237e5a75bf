//! The part of a pod's bytes in which it can refer to something, without a tree of the rest.
//!
//! Every pod of the cluster comes by here at a start, and each placement later: building whole trees was the
//! largest part of a start with many pods.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Fields whose text names something, and the mark of a mirror pod.
const NAMES: [&str; 7] = [
    "name",
    "secretName",
    "claimName",
    "serviceAccountName",
    "resourceClaimName",
    "nodeName",
    "kubernetes.io/config.mirror",
];

/// Fields below which nothing is referred to.
const BARREN: [&str; 24] = [
    "affinity",
    "args",
    "command",
    "conditions",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "hostAliases",
    "initContainerStatuses",
    "labels",
    "lifecycle",
    "livenessProbe",
    "managedFields",
    "nodeSelector",
    "ownerReferences",
    "podIPs",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "tolerations",
    "topologySpreadConstraints",
    "volumeDevices",
    "volumeMounts",
];

/// The pod with nothing in it but names and what leads to them.
///
/// # Errors
/// When the bytes are no JSON.
pub(super) fn read(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Ok(Walk { named: false }.deserialize(&mut reader)?.unwrap_or(Value::Null))
}

#[derive(Clone, Copy)]
struct Walk {
    /// Text here is a name.
    named: bool,
}

/// A key, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Walk {
    /// `None`: of no interest.
    type Value = Option<Value>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<Value>, E> {
        Ok(self.named.then(|| Value::String(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Option<Value>, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = access.next_element_seed(Self { named: false })? {
            out.extend(item);
        }
        Ok(Some(Value::Array(out)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Option<Value>, A::Error> {
        let mut out = Map::new();
        while let Some(Key(key)) = access.next_key()? {
            if BARREN.binary_search(&key.as_ref()).is_ok() {
                access.next_value::<IgnoredAny>()?;
                continue;
            }
            let named = NAMES.contains(&key.as_ref());
            if let Some(value) = access.next_value_seed(Self { named })? {
                out.insert(key.into_owned(), value);
            }
        }
        Ok(Some(Value::Object(out)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_kept_and_what_has_none_is_not() {
        assert!(BARREN.is_sorted());
        let pod = json!({
            "metadata": {"name": "a", "labels": {"x": "y"}, "annotations": {"kubernetes.io/config.mirror": "1", "z": ""}},
            "spec": {"nodeName": "n", "hostNetwork": true, "volumes": [{"name": "v", "ephemeral": {"spec": {"x": 1}}}],
                "containers": [{"name": "c", "args": ["a"], "env": [{"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}
        });
        let wanted = json!({
            "metadata": {"name": "a", "annotations": {"kubernetes.io/config.mirror": "1"}},
            "spec": {"nodeName": "n", "volumes": [{"name": "v", "ephemeral": {"spec": {}}}],
                "containers": [{"name": "c", "env": [{"valueFrom": {"secretKeyRef": {"name": "s"}}}]}]}
        });
        assert_eq!(read(pod.to_string().as_bytes()).expect("json"), wanted);
    }
}
