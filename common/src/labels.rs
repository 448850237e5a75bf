//! Label selectors: the string form of query parameters and the structured `metav1.LabelSelector`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A selector that could not be read; the text says what was found and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

/// Anything labels can be looked up in.
pub trait Labels {
    fn value(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for Option<BTreeMap<String, String>> {
    fn value(&self, key: &str) -> Option<&str> {
        self.as_ref()?.get(key).map(String::as_str)
    }
}

impl Labels for [(String, String)] {
    fn value(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// One term of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
    GreaterThan(String, i64),
    LessThan(String, i64),
}

impl Requirement {
    /// `key=value`.
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::In(key.into(), BTreeSet::from([value.into()]))
    }

    /// The label the term is about.
    pub fn key(&self) -> &str {
        match self {
            Self::In(k, _)
            | Self::NotIn(k, _)
            | Self::Exists(k)
            | Self::DoesNotExist(k)
            | Self::GreaterThan(k, _)
            | Self::LessThan(k, _) => k,
        }
    }

    fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        match self {
            Self::In(k, set) => labels.value(k).is_some_and(|v| set.contains(v)),
            Self::NotIn(k, set) => !labels.value(k).is_some_and(|v| set.contains(v)),
            Self::Exists(k) => labels.value(k).is_some(),
            Self::DoesNotExist(k) => labels.value(k).is_none(),
            Self::GreaterThan(k, n) => number(labels, k).is_some_and(|v| v > *n),
            Self::LessThan(k, n) => number(labels, k).is_some_and(|v| v < *n),
        }
    }
}

fn number<L: Labels + ?Sized>(labels: &L, key: &str) -> Option<i64> {
    labels.value(key)?.parse().ok()
}

/// A conjunction of terms; without terms it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    pub requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// `matchLabels` alone, as in a Service's selector.
    pub fn from_map(map: &BTreeMap<String, String>) -> Self {
        let requirements = map.iter().map(|(k, v)| Requirement::equals(k, v)).collect();
        Self { requirements, nothing: false }
    }

    /// The structured form. An absent selector selects nothing, an empty one everything.
    ///
    /// # Errors
    /// For an operator that does not exist, or values where there must be none or some.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, ParseError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut out = Self::from_map(selector.match_labels.as_ref().unwrap_or(&BTreeMap::new()));
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.clone();
            let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
            let requirement = match (expression.operator.as_str(), values.is_empty()) {
                ("In", false) => Requirement::In(key, values),
                ("NotIn", false) => Requirement::NotIn(key, values),
                ("Exists", true) => Requirement::Exists(key),
                ("DoesNotExist", true) => Requirement::DoesNotExist(key),
                ("In" | "NotIn", true) => {
                    return Err(ParseError(format!(
                        "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty ({key})"
                    )));
                }
                ("Exists" | "DoesNotExist", false) => {
                    return Err(ParseError(format!(
                        "values set must be empty for exists and does not exist ({key})"
                    )));
                }
                (other, _) => {
                    return Err(ParseError(format!("\"{other}\" is not a valid label selector operator")));
                }
            };
            out.requirements.push(requirement);
        }
        Ok(out)
    }

    /// Reads the query form: `a=b,c!=d,e in (f,g),h,!i,j>3`.
    ///
    /// # Errors
    /// When the text is not a selector.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut requirements = Vec::new();
        for term in split_terms(text)? {
            requirements.push(parse_term(text, term.trim())?);
        }
        Ok(Self { requirements, nothing: false })
    }

    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::In(k, set) if set.len() == 1 => {
                    write!(f, "{k}={}", set.first().map_or("", String::as_str))?;
                }
                Requirement::In(k, set) => write!(f, "{k} in ({})", joined(set))?,
                Requirement::NotIn(k, set) if set.len() == 1 => {
                    write!(f, "{k}!={}", set.first().map_or("", String::as_str))?;
                }
                Requirement::NotIn(k, set) => write!(f, "{k} notin ({})", joined(set))?,
                Requirement::Exists(k) => f.write_str(k)?,
                Requirement::DoesNotExist(k) => write!(f, "!{k}")?,
                Requirement::GreaterThan(k, n) => write!(f, "{k}>{n}")?,
                Requirement::LessThan(k, n) => write!(f, "{k}<{n}")?,
            }
        }
        Ok(())
    }
}

fn joined(set: &BTreeSet<String>) -> String {
    set.iter().cloned().collect::<Vec<_>>().join(",")
}

/// Splits at commas outside parentheses.
fn split_terms(text: &str) -> Result<Vec<&str>, ParseError> {
    let mut terms = Vec::new();
    let (mut depth, mut start) = (0usize, 0usize);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => {
                return Err(ParseError(format!("unable to parse requirement: found ')' in '{text}'")));
            }
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(ParseError(format!("unable to parse requirement: missing ')' in '{text}'")));
    }
    if !text.trim().is_empty() {
        terms.push(&text[start..]);
    }
    Ok(terms)
}

fn parse_term(whole: &str, term: &str) -> Result<Requirement, ParseError> {
    let fail = |what: &str| ParseError(format!("unable to parse requirement: {what} in '{whole}'"));
    let key_of = |text: &str| -> Result<String, ParseError> {
        let key = text.trim();
        if is_qualified_name(key) {
            Ok(key.to_owned())
        } else {
            Err(ParseError(format!(
                "unable to parse requirement: <nil>: Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            )))
        }
    };
    let value_of = |text: &str| -> Result<String, ParseError> {
        let value = text.trim();
        if is_label_value(value) {
            Ok(value.to_owned())
        } else {
            Err(ParseError(format!(
                "unable to parse requirement: values[0][]: Invalid value: \"{value}\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            )))
        }
    };
    if term.is_empty() {
        return Err(fail("found '', expected: identifier"));
    }
    if let Some(open) = term.find('(') {
        let inside = term[open + 1..].strip_suffix(')').ok_or_else(|| fail("found text after ')'"))?;
        let mut head = term[..open].split_whitespace();
        let (key, operator) = (head.next().unwrap_or(""), head.next().unwrap_or(""));
        let values = inside.split(',').map(value_of).collect::<Result<BTreeSet<_>, _>>()?;
        return match operator {
            "in" => Ok(Requirement::In(key_of(key)?, values)),
            "notin" => Ok(Requirement::NotIn(key_of(key)?, values)),
            other => Err(fail(&format!("found '{other}', expected: in, notin"))),
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(key_of(key)?, BTreeSet::from([value_of(value)?])));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Requirement::equals(key_of(key)?, value_of(value)?));
    }
    for (sign, greater) in [('>', true), ('<', false)] {
        if let Some((key, value)) = term.split_once(sign) {
            let n = value
                .trim()
                .parse()
                .map_err(|_| fail("for 'Gt', 'Lt' operators, the value must be an integer"))?;
            let key = key_of(key)?;
            return Ok(if greater {
                Requirement::GreaterThan(key, n)
            } else {
                Requirement::LessThan(key, n)
            });
        }
    }
    match term.strip_prefix('!') {
        Some(key) => Ok(Requirement::DoesNotExist(key_of(key)?)),
        None => Ok(Requirement::Exists(key_of(term)?)),
    }
}

/// `[prefix/]name` as labels, annotations and finalizers are named.
pub fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let name_fits = !name.is_empty() && is_label_value(name);
    name_fits && prefix.is_none_or(is_dns1123_subdomain)
}

/// At most 63 characters, alphanumeric at both ends, `-_.` between; or empty.
pub fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match bytes {
        [] => true,
        [only] => only.is_ascii_alphanumeric(),
        [first, middle @ .., last] => {
            bytes.len() <= 63
                && first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && middle.iter().all(inner)
        }
    }
}

/// RFC 1123 label: at most 63 of `[a-z0-9-]`, alphanumeric at both ends.
pub fn is_dns1123_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let end = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= 63
        && bytes.first().is_some_and(end)
        && bytes.last().is_some_and(end)
        && bytes.iter().all(|b| end(b) || *b == b'-')
}

/// RFC 1123 subdomain: labels joined by dots, at most 253 in all (a label's own length is not bounded here,
/// as upstream does not bound it).
pub fn is_dns1123_subdomain(text: &str) -> bool {
    let end = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 253
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.first().is_some_and(end)
                && bytes.last().is_some_and(end)
                && bytes.iter().all(|b| end(b) || *b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_operator_selects() {
        let l = labels(&[("app", "web"), ("tier", "a"), ("n", "5")]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=b", true),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("missing notin (x)", true),
            ("app", true),
            ("!app", false),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app=", false),
        ] {
            assert_eq!(Selector::parse(text).expect(text).matches(&l), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["a in b", "a=b)", "x in (a", "=", ",", "a b", "n>x", "-a=b"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn absent_selects_nothing_and_empty_everything() {
        let l = labels(&[]);
        assert!(!Selector::from_label_selector(None).expect("selector").matches(&l));
        let empty = LabelSelector::default();
        assert!(Selector::from_label_selector(Some(&empty)).expect("selector").matches(&l));
    }
}
