//! Bytes to a tree, noting keys that are written twice.

use std::cell::RefCell;
use std::fmt;
use std::fmt::Write;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::negotiation::Encoding;

/// What all aliases of a YAML document may repeat together; depth and nodes have the reader's own limits.
const ALIAS_EVENTS_MAX: usize = 100_000;
/// Duplicates beyond this many are not listed.
const DUPLICATES_MAX: usize = 100;

/// A tree and what was wrong with its text.
#[derive(Debug)]
pub struct Decoded {
    pub tree: Value,
    /// Paths of keys that were written more than once; the last one counts.
    pub duplicates: Vec<String>,
}

/// Reads JSON or YAML.
///
/// # Errors
/// What the parser says.
pub fn decode(body: &[u8], encoding: Encoding) -> Result<Decoded, String> {
    let notes = RefCell::new(Notes::default());
    let tree = match encoding {
        Encoding::Json => {
            let mut reader = serde_json::Deserializer::from_slice(body);
            let tree = Tree(&notes).deserialize(&mut reader).map_err(|e| e.to_string())?;
            reader.end().map_err(|e| e.to_string())?;
            tree
        }
        Encoding::Yaml => {
            let text = std::str::from_utf8(body).map_err(|e| e.to_string())?;
            let options = serde_saphyr::options! {
                duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
                alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIAS_EVENTS_MAX },
            };
            serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| {
                Tree(&notes).deserialize(reader)
            })
            .map_err(|e| e.to_string())?
        }
    };
    Ok(Decoded { tree, duplicates: notes.into_inner().duplicates })
}

/// The path of every key of a JSON text, in the order of the text; as far as it can be read.
pub fn key_paths(json: &[u8]) -> Vec<String> {
    let notes = RefCell::new(Notes { keys: Some(Vec::new()), ..Notes::default() });
    let _ = Tree(&notes).deserialize(&mut serde_json::Deserializer::from_slice(json));
    notes.into_inner().keys.unwrap_or_default()
}

/// The line, from 1, on which a YAML text has a key for the second time.
pub fn line_of_duplicate(yaml: &[u8]) -> Option<u64> {
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error };
    let text = std::str::from_utf8(yaml).ok()?;
    let read = serde_saphyr::from_str_with_options::<Value>(text, options);
    read.err()?.location().map(|location| location.line())
}

#[derive(Default)]
struct Notes {
    path: String,
    duplicates: Vec<String>,
    /// Every path that was come upon, when somebody wants to know.
    keys: Option<Vec<String>>,
}

#[derive(Clone, Copy)]
struct Tree<'n>(&'n RefCell<Notes>);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        let length = self.0.borrow().path.len();
        loop {
            {
                let notes = &mut *self.0.borrow_mut();
                notes.path.truncate(length);
                let _ = write!(notes.path, "[{}]", out.len());
            }
            match access.next_element_seed(self)? {
                Some(value) => out.push(value),
                None => break,
            }
        }
        self.0.borrow_mut().path.truncate(length);
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        let length = self.0.borrow().path.len();
        while let Some(key) = access.next_key::<String>()? {
            {
                let notes = &mut *self.0.borrow_mut();
                notes.path.truncate(length);
                if length > 0 {
                    notes.path.push('.');
                }
                notes.path.push_str(&key);
                if let Some(keys) = &mut notes.keys {
                    keys.push(notes.path.clone());
                }
                if out.contains_key(&key)
                    && notes.duplicates.len() < DUPLICATES_MAX
                    && !notes.duplicates.contains(&notes.path)
                {
                    notes.duplicates.push(notes.path.clone());
                }
            }
            let value = access.next_value_seed(self)?;
            out.insert(key, value);
        }
        self.0.borrow_mut().path.truncate(length);
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_found_by_path() {
        let json = br#"{"a":1,"spec":{"x":[{"n":1,"n":2}],"y":1},"a":2}"#;
        let decoded = decode(json, Encoding::Json).expect("json");
        assert_eq!(decoded.tree["spec"]["x"][0]["n"], 2);
        assert_eq!(decoded.duplicates, ["spec.x[0].n", "a"]);
    }

    #[test]
    fn duplicates_of_yaml_are_found_by_line() {
        assert_eq!(line_of_duplicate(b"a: 1\nspec:\n  foo: x\n  bar: z\n  foo: y\n"), Some(5));
        assert_eq!(line_of_duplicate(b"a: 1\n"), None);
    }

    #[test]
    fn yaml_is_read_with_its_types() {
        let yaml = b"kind: Pod\nspec:\n  replicas: 3\n  on: true\n  name: \"3\"\n  none: null\n";
        let decoded = decode(yaml, Encoding::Yaml).expect("yaml");
        assert_eq!(
            decoded.tree,
            serde_json::json!({"kind": "Pod",
                "spec": {"replicas": 3, "on": true, "name": "3", "none": null}})
        );
        assert!(decoded.duplicates.is_empty());
    }

    #[test]
    fn broken_text_is_an_error() {
        assert!(decode(b"{", Encoding::Json).is_err());
        assert!(decode(b"{} x", Encoding::Json).is_err());
        assert!(decode(b"a: [", Encoding::Yaml).is_err());
    }
}
