//! `x-kubernetes-validations`: rules of schemas, written in CEL.
//!
//! [`check`] finds at a definition's creation what is no rule, or what may cost too much; [`Rules`] evaluates them
//! on objects. The language itself is [`crate::cel`]; what rules see of a schema is in [`shapes`].
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/cel`.

mod check;
mod shapes;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::status::{FieldError, FieldErrorKind, FieldErrors};
use serde_json::Value;

use super::schema::Structural;
use super::schema::structural::Rule;
use super::validation::lists;
use crate::cel::machine::{Failure, Machine};
use crate::cel::value::Val;
use crate::cel::{Environment, Program, Type};
pub use check::{Problem, check};

/// Steps of one rule (`PerCallLimit`).
const STEPS_PER_RULE_MAX: u64 = 1_000_000;
/// Steps of all rules of one request (`RuntimeCELCostBudget`).
const STEPS_MAX: u64 = 10_000_000;
/// A message of a rule is not longer.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// The compiled rules of a schema.
pub struct Rules {
    schema: Arc<Structural>,
    root: Node,
}

#[derive(Default)]
struct Node {
    rules: Vec<Compiled>,
    items: Option<Box<Node>>,
    properties: BTreeMap<Box<str>, Node>,
    additional: Option<Box<Node>>,
}

struct Compiled {
    rule: Rule,
    program: Result<Program, String>,
    message: Option<Program>,
    uses_old: bool,
}

impl Rules {
    /// `None` when there are no rules.
    pub fn compile(schema: Arc<Structural>) -> Option<Self> {
        if !schema.any(&|node| !node.rules.is_empty()) {
            return None;
        }
        let root = Node::of(&schema, true, &Environment::base())?;
        Some(Self { schema, root })
    }

    /// Checks an object; `old` is what it was before an update.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> FieldErrors {
        let mut run = Run { left: STEPS_MAX, ended: false, errors: FieldErrors::new() };
        let unchanged = old == Some(object);
        run.node(&self.root, &self.schema, object, old, unchanged, String::new());
        run.errors
    }
}

impl Node {
    fn of(schema: &Structural, root: bool, base: &Environment) -> Option<Self> {
        let below = |schema: &Structural| Self::of(schema, false, base);
        let node = Self {
            rules: Compiled::all(schema, root, base),
            items: schema.items.as_deref().and_then(below).map(Box::new),
            properties: schema
                .properties
                .iter()
                .filter_map(|(key, property)| Some((key.clone(), below(property)?)))
                .collect(),
            additional: schema.additional_schema().and_then(below).map(Box::new),
        };
        let empty = node.rules.is_empty()
            && node.items.is_none()
            && node.properties.is_empty()
            && node.additional.is_none();
        (!empty).then_some(node)
    }
}

impl Compiled {
    fn all(schema: &Structural, root: bool, base: &Environment) -> Vec<Self> {
        if schema.rules.is_empty() {
            return Vec::new();
        }
        let shape = shapes::of(schema, root || schema.embedded);
        let env = |rule: &Rule| {
            let optional = rule.optional_old_self == Some(true);
            shape.as_ref().map(|shape| check::environment(base, shape, optional))
        };
        schema.rules.iter().map(|rule| Self::of(rule, env(rule))).collect()
    }

    fn of(rule: &Rule, env: Option<Environment>) -> Self {
        let program = match &env {
            Some(env) => env.compile(&rule.rule).map_err(|issues| issues.to_string()),
            None => Err("the schema has no type".to_owned()),
        };
        let message = Some(rule.message_expression.trim()).filter(|m| !m.is_empty()).zip(env);
        Self {
            uses_old: program.as_ref().is_ok_and(|program| program.mentions("oldSelf")),
            program,
            message: message
                .and_then(|(m, env)| env.compile(m).ok())
                .filter(|message| *message.output() == Type::Str),
            rule: rule.clone(),
        }
    }
}

struct Run {
    left: u64,
    ended: bool,
    errors: FieldErrors,
}

impl Run {
    fn node(
        &mut self,
        node: &Node,
        schema: &Structural,
        value: &Value,
        old: Option<&Value>,
        unchanged: bool,
        path: String,
    ) {
        if value.is_null() || self.ended {
            return;
        }
        for compiled in &node.rules {
            self.rule(compiled, schema, value, old.filter(|o| !o.is_null()), unchanged, &path);
            if self.ended {
                return;
            }
        }
        let child = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let correlated = old.filter(|_| schema.map_type.as_deref() != Some("atomic"));
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    let before = correlated.and_then(|old| old.get(key));
                    let same = before.map_or(unchanged, |before| before == inner);
                    if let Some((node, schema)) =
                        node.properties.get(key.as_str()).zip(schema.properties.get(key.as_str()))
                    {
                        self.node(node, schema, inner, before, same, child(key));
                    } else if let Some((node, schema)) =
                        node.additional.as_deref().zip(schema.additional_schema())
                    {
                        self.node(node, schema, inner, before, same, format!("{path}[{key}]"));
                    }
                }
            }
            Value::Array(items) => {
                let Some((node, inner)) = node.items.as_deref().zip(schema.items.as_deref()) else { return };
                for (i, item) in items.iter().enumerate() {
                    let before = old_item(item, schema, old);
                    let same = before.map_or(unchanged, |before| before == item);
                    self.node(node, inner, item, before, same, format!("{path}[{i}]"));
                }
            }
            _ => {}
        }
    }

    fn rule(
        &mut self,
        compiled: &Compiled,
        schema: &Structural,
        value: &Value,
        old: Option<&Value>,
        unchanged: bool,
        path: &str,
    ) {
        let rule = &compiled.rule;
        let optional = rule.optional_old_self == Some(true);
        if rule.rule.trim().is_empty() || (compiled.uses_old && old.is_none() && !optional) {
            return;
        }
        let program = match &compiled.program {
            Ok(program) => program,
            Err(why) => return self.told(path, schema, format!("rule compile error: {why}")),
        };
        let before = old.map(|old| Val::of(old, Some(schema)));
        let before = if optional { Some(Val::Optional(before.map(Box::new))) } else { before };
        let mut machine = Machine::new(STEPS_PER_RULE_MAX.min(self.left));
        machine.bind("self", Val::of(value, Some(schema)));
        if let Some(before) = before {
            machine.bind("oldSelf", before);
        }
        let result = machine.run(program);
        self.left = self.left.saturating_sub(machine.spent());
        if self.left == 0 {
            self.ended = true;
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            return self.told(path, schema, why.to_owned());
        }
        match result {
            Ok(Val::Bool(true)) => {}
            Ok(_) => {
                if !unchanged || compiled.uses_old {
                    let detail = self.message(compiled, &mut machine);
                    self.broken(compiled, schema, value, path, detail);
                }
            }
            Err(Failure::Cost) => {
                self.ended = true;
                let why = "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: ";
                self.told(path, schema, format!("{why}{}", shown(rule)));
            }
            Err(Failure::Error(why)) if why.starts_with("no such overload") => {
                self.told(path, schema, format!("'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}", shown(rule)));
            }
            Err(Failure::Error(why)) => {
                self.told(path, schema, format!("{why} evaluating rule: {}", shown(rule)));
            }
        }
    }

    fn message(&mut self, compiled: &Compiled, machine: &mut Machine<'_>) -> String {
        let default = || match compiled.rule.message.trim() {
            "" => format!("failed rule: {}", compiled.rule.rule.trim()),
            said => said.to_owned(),
        };
        let Some(expression) = &compiled.message else { return default() };
        machine.refill(STEPS_PER_RULE_MAX.min(self.left));
        let result = machine.run(expression);
        self.left = self.left.saturating_sub(machine.spent());
        match result {
            Ok(Val::Str(text)) => {
                let text = text.trim();
                let fits =
                    !text.is_empty() && !text.contains(['\n', '\r']) && text.len() <= MESSAGE_BYTES_MAX;
                if fits { text.to_owned() } else { default() }
            }
            _ => default(),
        }
    }

    fn broken(
        &mut self,
        compiled: &Compiled,
        schema: &Structural,
        value: &Value,
        path: &str,
        detail: String,
    ) {
        let field_path = compiled.rule.field_path.trim();
        let field = match (path.is_empty(), field_path) {
            (true, "") => "<nil>".to_owned(),
            (true, below) => below.trim_start_matches('.').to_owned(),
            (false, below) => format!("{path}{below}"),
        };
        let shown =
            if matches!(schema.ty.as_ref(), "object" | "array") { String::new() } else { value.to_string() };
        let (kind, value, detail) = match compiled.rule.reason.as_str() {
            "FieldValueRequired" => (FieldErrorKind::Required, String::new(), detail),
            "FieldValueForbidden" => (FieldErrorKind::Forbidden, String::new(), detail),
            "FieldValueDuplicate" => (FieldErrorKind::Duplicate, shown, String::new()),
            _ => (FieldErrorKind::Invalid, shown, detail),
        };
        self.errors.0.push(FieldError { kind, field, value, detail });
    }

    fn told(&mut self, path: &str, schema: &Structural, why: String) {
        let path = if path.is_empty() { "<nil>" } else { path };
        self.errors.invalid(path, schema.ty.as_ref(), why);
    }
}

/// A rule in an error.
fn shown(rule: &Rule) -> String {
    match rule.message.trim() {
        "" => rule.rule.trim().to_owned(),
        said => format!("rule: {:?}, message: {said:?}", rule.rule.trim()),
    }
}

fn old_item<'o>(item: &Value, schema: &Structural, old: Option<&'o Value>) -> Option<&'o Value> {
    if schema.list_type() != "map" {
        return None;
    }
    let key = lists::key_of(item, &schema.list_map_keys);
    old?.as_array()?.iter().find(|candidate| lists::key_of(candidate, &schema.list_map_keys) == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(rule: &str, value: Value, old: Option<Value>) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [{"rule": rule}],
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "s": {"type": "string"},
                "l": {"type": "array", "items": {"type": "string"}},
                "m": {"type": "object", "additionalProperties": {"type": "string"}},
                "q": {"x-kubernetes-int-or-string": true}, "t": {"type": "string", "format": "date-time"},
                "a-b": {"type": "integer"}, "gone": {"type": "string"}}}}});
        let rules = Rules::compile(Arc::new(Structural::read(&schema))).expect("rules");
        let old = old.map(|old| json!({"spec": old}));
        let found = rules.validate(&json!({"spec": value}), old.as_ref());
        found.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_that_hold() {
        for rule in [
            "self.min <= self.max",
            "has(self.s) && self.s.startsWith('he') && self.s.matches('^h.*o$')",
            "self.l.all(x, x.size() == 1) && self.l.exists(x, x == 'b') && self.l.exists_one(x, x == 'a')",
            "self.l.map(x, x + '!') == ['a!', 'b!'] && self.l.filter(x, x != 'a').size() == 1",
            "'k' in self.m && self.m['k'] == 'v' && self.m.all(k, self.m[k] != '')",
            "type(self.q) == int ? self.q > 1 : self.q == '50%'",
            "self.t < timestamp('2027-01-01T00:00:00Z') && self.t.getFullYear() == 2026",
            "self.a__dash__b == 1 && !has(self.gone)",
            "quantity('1Gi').isGreaterThan(quantity('500Mi'))",
            "isIP('10.0.0.1') && cidr('10.0.0.0/8').containsIP('10.1.1.1') && url('https://a.b:8080/c').getHostname() == 'a.b'",
            "self.s.upperAscii() == 'HELLO' && self.s.substring(1, 3) == 'el' && 'a,b'.split(',').join('-') == 'a-b'",
            "duration('1h') > duration('59m') && [3, 1, 2].max() == 3 && [1, 2].sum() == 3 && [1, 2].isSorted()",
            "self.?gone.orValue('x') == 'x'",
            "!format.dns1123Label().validate('a-b').hasValue()",
            "[self.min + 1].all(x, x == 2)",
            "sets.contains(['a', 'b'], ['b']) && [1, 2].max() == 2",
            "semver('1.2.3').isLessThan(semver('v1.10', true)) && semver('1.2.3').minor() == 2",
            "self.l.transformList(i, x, i > 0, x + string(i)) == ['b1']",
            "self.m.transformMap(k, v, k + v) == {'k': 'kv'} && self.m.exists(k, v, v == 'v')",
            "self.l.sortBy(x, x == 'a' ? 2 : 1) == ['b', 'a'] && lists.range(3) == [0, 1, 2]",
            "'%s is %d'.format([self.s, self.min]) == 'hello is 1' && strings.quote(self.s) == '\"hello\"'",
            "self.?s.optMap(x, x + '!').orValue('') == 'hello!' && self.?gone.optMap(x, 1).hasValue() == false",
        ] {
            let value = json!({"min": 1, "max": 2, "s": "hello", "l": ["a", "b"], "m": {"k": "v"}, "q": "50%",
                "t": "2026-01-01T00:00:00Z", "a-b": 1});
            assert_eq!(errors(rule, value, None), Vec::<String>::new(), "{rule}");
        }
    }

    #[test]
    fn what_fails_is_told() {
        assert_eq!(
            errors("self.min <= self.max", json!({"min": 3, "max": 2}), None),
            ["spec: Invalid value: failed rule: self.min <= self.max"]
        );
        assert_eq!(
            errors("self.min <= self.max", json!({"min": 3}), None),
            ["spec: Invalid value: \"object\": no such key: max evaluating rule: self.min <= self.max"]
        );
        let old = json!({"min": 1});
        assert!(errors("self.min == oldSelf.min", json!({"min": 2}), None).is_empty());
        assert_eq!(errors("self.min == oldSelf.min", json!({"min": 2}), Some(old)).len(), 1);
        // Broken before, and untouched.
        let same = json!({"min": 3, "max": 2});
        assert!(errors("self.min <= self.max", same.clone(), Some(same)).is_empty());
    }

    #[test]
    fn a_rule_that_runs_on_is_stopped() {
        let list: Vec<String> = (0..400).map(|i| i.to_string()).collect();
        let rule = "self.l.all(x, self.l.all(y, self.l.all(z, x + y + z != '')))";
        let found = errors(rule, json!({"l": list}), None);
        assert!(found[0].contains("cost limit exceeded"), "{found:?}");
    }
}
