//! The part of kubectl's JSONPath that printed columns use: fields, indexes, wildcards, filters.
//!
//! Upstream: `client-go/util/jsonpath`.

use serde_json::Value;

/// Values looked at by one search; a hostile path over a large object ends here.
const VISITED_MAX: usize = 100_000;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// Every element or value.
    All,
    /// `..name`: at any depth.
    Deep(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Filter(JsonPath, Comparison, Value),
    /// A filter that asks only whether the path is there.
    Exists(JsonPath),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Reads a path with or without its leading `$`; braces are not part of it.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.trim();
        rest = rest.strip_prefix('$').unwrap_or(rest);
        let mut steps = Vec::new();
        if rest == "." {
            return Ok(Self(steps));
        }
        while !rest.is_empty() {
            rest = if let Some(after) = rest.strip_prefix("..") {
                let (name, after) = word(after);
                steps.push(Step::Deep(name));
                after
            } else if let Some(after) = rest.strip_prefix('[') {
                let (inner, after) = bracket(after)?;
                steps.push(Self::bracketed(inner)?);
                after
            } else if let Some(after) = rest.strip_prefix('.') {
                if after.starts_with('[') {
                    rest = after;
                    continue;
                }
                let (name, after) = word(after);
                if name.is_empty() {
                    return Err(format!("unexpected end of path {text:?}"));
                }
                steps.push(if name == "*" { Step::All } else { Step::Field(name) });
                after
            } else {
                return Err(format!("unrecognized path {text:?}"));
            };
        }
        Ok(Self(steps))
    }

    fn bracketed(inner: &str) -> Result<Step, String> {
        let inner = inner.trim();
        let bad = || format!("unrecognized subscript [{inner}]");
        if inner == "*" {
            return Ok(Step::All);
        }
        if let Some(name) = quoted(inner) {
            return Ok(Step::Field(name.to_owned()));
        }
        if let Some(condition) = inner.strip_prefix("?(").and_then(|i| i.strip_suffix(')')) {
            return filter(condition);
        }
        if let Some((from, to)) = inner.split_once(':') {
            let number = |t: &str| if t.trim().is_empty() { Ok(None) } else { t.trim().parse().map(Some) };
            return Ok(Step::Slice(number(from).map_err(|_| bad())?, number(to).map_err(|_| bad())?));
        }
        inner.parse().map(Step::Index).map_err(|_| bad())
    }

    /// Everything the path leads to.
    pub fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        let mut here = vec![root];
        let mut visited = 0;
        for step in &self.0 {
            let mut next = Vec::new();
            for value in here {
                step.of(value, &mut next, &mut visited);
            }
            here = next;
        }
        here
    }
}

fn word(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Up to the bracket that closes, which may stand in quotes before.
fn bracket(text: &str) -> Result<(&str, &str), String> {
    let (mut depth, mut quote) = (1, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Ok((&text[..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
    }
    Err("unterminated array".to_owned())
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q))
}

fn filter(condition: &str) -> Result<Step, String> {
    const OPERATORS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let path = |text: &str| {
        let text = text.trim();
        JsonPath::parse(text.strip_prefix('@').ok_or_else(|| format!("unrecognized filter {text:?}"))?)
    };
    for (text, comparison) in OPERATORS {
        if let Some((left, right)) = condition.split_once(text) {
            let right = right.trim();
            let value = match quoted(right) {
                Some(text) => Value::from(text),
                None => serde_json::from_str(right).map_err(|_| format!("unrecognized value {right:?}"))?,
            };
            return Ok(Step::Filter(path(left)?, comparison, value));
        }
    }
    Ok(Step::Exists(path(condition)?))
}

impl Step {
    fn of<'v>(&self, value: &'v Value, out: &mut Vec<&'v Value>, visited: &mut usize) {
        *visited += 1;
        if *visited > VISITED_MAX {
            return;
        }
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => out.extend(map.get(name)),
            (Self::All, Value::Object(map)) => out.extend(map.values()),
            (Self::All, Value::Array(items)) => out.extend(items),
            (Self::Deep(name), _) => deep(name, value, out, visited),
            (Self::Index(at), Value::Array(items)) => {
                out.extend(place(*at, items.len()).and_then(|i| items.get(i)))
            }
            (Self::Slice(from, to), Value::Array(items)) => {
                let bound = |n: Option<i64>, default: usize| {
                    n.map_or(default, |n| place(n, items.len()).unwrap_or(0)).min(items.len())
                };
                let (from, to) = (bound(*from, 0), bound(*to, items.len()));
                out.extend(items.get(from..to).unwrap_or_default());
            }
            (Self::Filter(path, comparison, wanted), Value::Array(items)) => {
                out.extend(items.iter().filter(|item| {
                    path.find(item).first().is_some_and(|found| comparison.holds(found, wanted))
                }));
            }
            (Self::Exists(path), Value::Array(items)) => {
                out.extend(items.iter().filter(|item| !path.find(item).is_empty()));
            }
            _ => {}
        }
    }
}

fn place(at: i64, len: usize) -> Option<usize> {
    if at >= 0 { usize::try_from(at).ok() } else { len.checked_sub(usize::try_from(at.unsigned_abs()).ok()?) }
}

fn deep<'v>(name: &str, value: &'v Value, out: &mut Vec<&'v Value>, visited: &mut usize) {
    *visited += 1;
    if *visited > VISITED_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            out.extend(map.get(name));
            map.values().for_each(|inner| deep(name, inner, out, visited));
        }
        Value::Array(items) => items.iter().for_each(|inner| deep(name, inner, out, visited)),
        _ => {}
    }
}

impl Comparison {
    fn holds(self, found: &Value, wanted: &Value) -> bool {
        let order = match (found, wanted) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Number(a), Value::Number(b)) => {
                a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b))
            }
            (a, b) => (a == b).then_some(std::cmp::Ordering::Equal),
        };
        match self {
            Self::Equal => order.is_some_and(|o| o.is_eq()),
            Self::NotEqual => !order.is_some_and(|o| o.is_eq()),
            Self::Less => order.is_some_and(|o| o.is_lt()),
            Self::LessOrEqual => order.is_some_and(|o| o.is_le()),
            Self::Greater => order.is_some_and(|o| o.is_gt()),
            Self::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_values() {
        let object = json!({"spec": {"a.b": 1, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        for (path, wanted) in [
            (".spec.list[0].v", json!([1])),
            (".spec.list[-1].n", json!(["y"])),
            (".spec.list[*].n", json!(["x", "y"])),
            (".spec.list[0:1].n", json!(["x"])),
            (r".spec.a\.b", json!([1])),
            (".spec['a.b']", json!([1])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type=='Other')].status", json!([])),
            (".spec.list[?(@.v>1)].n", json!(["y"])),
            ("..n", json!(["x", "y"])),
            (".missing.field", json!([])),
        ] {
            let found: Vec<Value> =
                JsonPath::parse(path).expect(path).find(&object).into_iter().cloned().collect();
            assert_eq!(Value::Array(found), wanted, "{path}");
        }
        assert!(JsonPath::parse(".a[").is_err() && JsonPath::parse("a").is_err());
    }
}
