//! What the types and their fields are for, in upstream's words: the texts that `kubectl explain` shows.
//!
//! k8s-openapi carries them behind its `schemars` feature. Turning that on adds a dependency and compiles a
//! schema builder per type into all five programs; the build script takes the texts from the crate's sources
//! instead and leaves one gzipped table in the program. It is unpacked for the build of a document and dropped.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;

const TABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.gz"));

/// The unpacked table.
pub(super) struct Descriptions {
    text: String,
    /// By type: its record.
    types: HashMap<Box<str>, Range<usize>>,
}

impl Descriptions {
    pub(super) fn read() -> Self {
        let mut text = String::new();
        flate2::read::GzDecoder::new(TABLE)
            .read_to_string(&mut text)
            .expect("the table is part of the program and well formed");
        // A record starts with the type's own entry.
        let mut types: HashMap<Box<str>, Range<usize>> = HashMap::new();
        let mut current: Option<(Box<str>, usize)> = None;
        for (start, key, _) in entries(&text, 0..text.len()) {
            if let Some(name) = key.strip_prefix('T')
                && let Some((name, from)) = current.replace((name.into(), start))
            {
                types.insert(name, from..start);
            }
        }
        if let Some((name, from)) = current {
            types.insert(name, from..text.len());
        }
        Self { text, types }
    }

    /// Of a type; made up from the name for a list, which k8s-openapi has no text for.
    pub(super) fn of_type(&self, name: &str) -> Option<String> {
        if let Some(range) = self.types.get(name)
            && let Some((_, _, text)) = entries(&self.text, range.clone()).next()
            && !text.is_empty()
        {
            return Some(text.to_owned());
        }
        let item = name.strip_suffix("List")?;
        let short = item.rsplit('.').next().unwrap_or(item);
        self.types.contains_key(item).then(|| format!("{short}List is a list of {short} objects."))
    }

    /// Of a field.
    pub(super) fn of_field(&self, name: &str, field: &str) -> Option<&str> {
        if let Some(range) = self.types.get(name) {
            let known = entries(&self.text, range.clone())
                .skip(1)
                .find(|(_, key, _)| key.strip_prefix('F') == Some(field))
                .map(|(_, _, text)| text);
            return known.or_else(|| {
                let event = name == "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent" && field == "object";
                event.then_some(
                    "The object as it is after the change; as it was before when the type is DELETED; a Status when it is ERROR.",
                )
            });
        }
        // A list: what every list has in common is said where k8s-openapi says it of a kind.
        match field {
            "apiVersion" | "kind" => self.of_field("io.k8s.api.core.v1.Pod", field),
            "items" => Some("The objects of the list."),
            "metadata" => Some("Standard list metadata."),
            _ => None,
        }
    }
}

/// The entries in a range: start, tagged key, text.
fn entries(text: &str, range: Range<usize>) -> impl Iterator<Item = (usize, &str, &str)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let rest = text.get(at..range.end)?;
        let (key, rest) = rest.split_once('\0')?;
        let (value, _) = rest.split_once('\0')?;
        let start = at;
        at += key.len() + value.len() + 2;
        Some((start, key, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_are_described() {
        let descriptions = Descriptions::read();
        let strategy = "io.k8s.api.apps.v1.DeploymentStrategy";
        let text = descriptions.of_type(strategy).expect("described");
        assert!(text.starts_with("DeploymentStrategy describes how to replace"), "{text}");
        let text = descriptions.of_field(strategy, "type").expect("described");
        assert!(text.contains("\"Recreate\" or \"RollingUpdate\""), "{text}");
        assert!(descriptions.of_field(strategy, "rollingUpdate").is_some());
        assert!(descriptions.of_type("io.k8s.api.apps.v1.DeploymentList").is_some());
        assert!(descriptions.of_field("io.k8s.api.core.v1.PodSpec", "containers").is_some());
        assert!(descriptions.of_field("io.k8s.api.core.v1.PodSpec", "nonesuch").is_none());
    }
}
