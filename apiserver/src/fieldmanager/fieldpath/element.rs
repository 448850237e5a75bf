//! One step of a path.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

/// One step from a container to what is in it, in its canonical text: `f:name` a field, `k:{"name":"x"}` the
/// item of a list with these keys, `v:"x"` the item of a set, `i:0` the item at a place.
///
/// Ordered by that text: fields first, by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Element(Arc<str>);

/// A text that is no element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    #[error("key must be 2 characters long")]
    Short,
    #[error("missing colon: {0}")]
    NoColon(String),
    #[error("invalid path element: {0}")]
    Invalid(String),
}

impl Element {
    pub fn field(name: &str) -> Self {
        let mut text = String::with_capacity(2 + name.len());
        text.push_str("f:");
        text.push_str(name);
        Self(text.into())
    }

    /// The item whose fields, sorted by name, have these values.
    pub fn keys<'k>(keys: impl IntoIterator<Item = (&'k str, &'k Value)>) -> Self {
        let mut text = String::from("k:{");
        for (index, (name, value)) in keys.into_iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            push_string(&mut text, name);
            text.push(':');
            push_json(&mut text, value);
        }
        text.push('}');
        Self(text.into())
    }

    /// The item of a set.
    pub fn value(value: &Value) -> Self {
        let mut text = String::from("v:");
        push_json(&mut text, value);
        Self(text.into())
    }

    /// Reads and makes canonical. `None` for a kind of element that is not known: a newer server may have
    /// written it.
    ///
    /// # Errors
    /// For a text of a known kind that cannot be read.
    pub fn parse(text: &str) -> Result<Option<Self>, ElementError> {
        if text.len() < 2 {
            return Err(ElementError::Short);
        }
        let Some((kind, rest)) = text.split_at_checked(2).filter(|(kind, _)| kind.ends_with(':')) else {
            return Err(ElementError::NoColon(text.to_owned()));
        };
        let invalid = |error: &dyn fmt::Display| ElementError::Invalid(format!("{text}: {error}"));
        Ok(Some(match kind {
            "f:" => Self(text.into()),
            "k:" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).map_err(|e| invalid(&e))?;
                Self::keys(keys.iter().map(|(name, value)| (name.as_str(), value)))
            }
            "v:" => Self::value(&serde_json::from_str(rest).map_err(|e| invalid(&e))?),
            "i:" => Self(format!("i:{}", rest.parse::<i64>().map_err(|e| invalid(&e))?).into()),
            _ => return Ok(None),
        }))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// The name when it is a field.
    pub fn field_name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }

    /// Whether it names an item by its keys.
    pub fn is_keys(&self) -> bool {
        self.0.starts_with("k:")
    }

    /// How it compares with the field of this name, without making one.
    pub fn cmp_field(&self, name: &str) -> Ordering {
        match self.field_name() {
            Some(mine) => mine.cmp(name),
            None => Ordering::Greater,
        }
    }
}

/// As messages show it: `.name`, `[name="x"]`, `[="x"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, rest) = self.0.split_at(2);
        match kind {
            "f:" => write!(f, ".{rest}"),
            "i:" => write!(f, "[{rest}]"),
            "v:" => write!(f, "[={}]", shown(rest)),
            _ => {
                let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
                f.write_str("[")?;
                for (index, (name, value)) in keys.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", shown(&value.to_string()))?;
                }
                f.write_str("]")
            }
        }
    }
}

/// JSON without the escapes that only HTML needs.
fn shown(json: &str) -> String {
    serde_json::from_str::<Value>(json).map_or_else(|_| json.to_owned(), |value| value.to_string())
}

/// JSON as Go writes it: `<`, `>`, `&` and the two line separators escaped, whole numbers without a fraction.
fn push_json(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => push_string(out, text),
        Value::Number(number) => match whole_number(number) {
            Some(whole) => out.push_str(&whole.to_string()),
            None => out.push_str(&number.to_string()),
        },
        other => push_escaped(out, &other.to_string()),
    }
}

fn push_string(out: &mut String, text: &str) {
    // Most keys are names.
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'/' | b'_' | b' ')) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        push_escaped(out, &Value::from(text).to_string());
    }
}

fn push_escaped(out: &mut String, json: &str) {
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            other => out.push(other),
        }
    }
}

fn whole_number(number: &Number) -> Option<i64> {
    /// Beyond this a float does not hold every whole number.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let float = number.as_f64().filter(|_| number.is_f64())?;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    (float.fract() == 0.0 && float.abs() <= EXACT_MAX).then_some(float as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_become_canonical() {
        for (text, want) in [
            ("f:a:b", "f:a:b"),
            (
                "k:{\"protocol\":\"TCP\", \"containerPort\":80.0}",
                "k:{\"containerPort\":80,\"protocol\":\"TCP\"}",
            ),
            ("v:\"a<b\"", "v:\"a\\u003cb\""),
            ("i:3", "i:3"),
        ] {
            assert_eq!(Element::parse(text).expect("valid").expect("known").text(), want);
        }
        assert_eq!(Element::parse("x:1"), Ok(None));
        assert!(Element::parse("f").is_err());
        assert!(Element::parse("k:{").is_err());
        assert!(Element::parse("ü:").is_err());
    }

    #[test]
    fn elements_are_shown_as_paths() {
        let keys = json!({"containerPort": 80, "protocol": "TCP"});
        let keys = Element::keys(keys.as_object().expect("a map").iter().map(|(k, v)| (k.as_str(), v)));
        assert_eq!(keys.to_string(), "[containerPort=80,protocol=\"TCP\"]");
        assert_eq!(Element::field("a").to_string(), ".a");
        assert_eq!(Element::value(&json!("a<b")).to_string(), "[=\"a<b\"]");
    }
}
