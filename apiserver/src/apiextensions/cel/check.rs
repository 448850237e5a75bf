//! What is found wrong with a rule when its definition is created.

use cel::common::ast::{EntryExpr, Expr, LiteralValue, SourceInfo, operators as op};
use cel::parser::Expression;
use common::status::{FieldError, FieldErrorKind};

use super::value::unescape;
use super::{library, parse};
use crate::apiextensions::schema::Structural;
use crate::apiextensions::schema::structural::Rule;

/// Something that makes a definition invalid.
pub struct Problem {
    pub error: FieldError,
    /// Of its cost only: a rule that was there before may stay.
    pub is_cost: bool,
}

/// Steps that one rule may be estimated to take (`StaticEstimatedCostLimit`).
const ESTIMATE_MAX: f64 = 10_000_000.0;
/// A list without `maxItems`: what fits in a request, two bytes each (upstream's lower bound).
const UNBOUNDED: f64 = 1_500_000.0;

/// Checks every rule of a schema.
pub fn check(schema: &Structural, path: &str) -> Vec<Problem> {
    let mut out = Vec::new();
    walk(schema, path, 1.0, true, None, &mut out);
    out
}

fn walk(
    schema: &Structural,
    path: &str,
    times: f64,
    root: bool,
    uncorrelated: Option<&str>,
    out: &mut Vec<Problem>,
) {
    for (i, rule) in schema.rules.iter().enumerate() {
        let path = format!("{path}.x-kubernetes-validations[{i}]");
        self::rule(rule, schema, &path, times, root, uncorrelated, out);
    }
    let max = |limit: Option<i64>| limit.map_or(UNBOUNDED, |n| n as f64);
    if let Some(items) = &schema.items {
        let count = max(schema.values.as_ref().and_then(|v| v.max_items));
        let lost = if schema.list_type() == "map" { uncorrelated } else { uncorrelated.or(Some(path)) };
        walk(items, &format!("{path}.items"), (times * count).min(UNBOUNDED), false, lost, out);
    }
    let lost =
        if schema.map_type.as_deref() == Some("atomic") { uncorrelated.or(Some(path)) } else { uncorrelated };
    for (key, property) in &schema.properties {
        walk(property, &format!("{path}.properties[{key}]"), times, false, lost, out);
    }
    if let Some(additional) = schema.additional_schema() {
        let count = max(schema.values.as_ref().and_then(|v| v.max_properties));
        let path = format!("{path}.additionalProperties");
        walk(additional, &path, (times * count).min(UNBOUNDED), false, uncorrelated, out);
    }
}

fn rule(
    rule: &Rule,
    schema: &Structural,
    path: &str,
    times: f64,
    root: bool,
    uncorrelated: Option<&str>,
    out: &mut Vec<Problem>,
) {
    let shown = serde_json::json!({"rule": rule.rule, "message": rule.message});
    let mut problem = |kind, path: String, value: String, detail: String, is_cost| {
        out.push(Problem { error: FieldError { kind, field: path, value, detail }, is_cost });
    };
    let mut uses_old_self = false;
    for (key, text, wanted) in
        [("rule", &rule.rule, Type::Bool), ("messageExpression", &rule.message_expression, Type::Str)]
    {
        if text.trim().is_empty() {
            continue;
        }
        let path = format!("{path}.{key}");
        let (expression, source) = match parse(text) {
            Ok(parsed) => parsed,
            Err(errors) => {
                let detail = format!("compilation failed: {errors}");
                problem(FieldErrorKind::Invalid, path, shown.to_string(), detail, false);
                continue;
            }
        };
        let old = rule.optional_old_self == Some(true);
        let own = Type::Schema(schema, root || schema.embedded);
        let mut checker = Checker { names: Vec::new(), source: &source, text, errors: Vec::new() };
        checker.names.push(("self".to_owned(), own.clone()));
        checker.names.push(("oldSelf".to_owned(), if old { Type::Dyn } else { own }));
        let (ty, cost) = checker.of(&expression);
        let errors = checker.errors;
        if !errors.is_empty() {
            let detail = format!("compilation failed: {}", errors.join("\n"));
            problem(FieldErrorKind::Invalid, path.clone(), shown.to_string(), detail, false);
        } else if !matches!(ty, Type::Dyn) && std::mem::discriminant(&ty) != std::mem::discriminant(&wanted) {
            let detail = if key == "rule" {
                "cel expression must evaluate to a bool"
            } else {
                "messageExpression must evaluate to a string"
            };
            problem(FieldErrorKind::Invalid, path.clone(), shown.to_string(), detail.to_owned(), false);
        }
        let total = cost * times;
        if total > ESTIMATE_MAX {
            let factor = total / ESTIMATE_MAX;
            let factor = if factor > 100.0 {
                "more than 100x".to_owned()
            } else if factor < 1.5 {
                format!("{factor:.6}x")
            } else {
                format!("{factor:.1}x")
            };
            let name = if key == "rule" { "estimated rule cost" } else { "estimated messageExpression cost" };
            let detail = format!(
                "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
            );
            problem(FieldErrorKind::Forbidden, path.clone(), String::new(), detail, true);
        }
        uses_old_self |= key == "rule" && uses_old(&expression);
    }
    if uses_old_self {
        if let Some(lost) = uncorrelated {
            let detail =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}");
            let value = serde_json::Value::from(rule.rule.as_str()).to_string();
            problem(FieldErrorKind::Invalid, format!("{path}.rule"), value, detail, false);
        }
    } else if let Some(set) = rule.optional_old_self {
        let detail = "may not be set if oldSelf is not used in rule".to_owned();
        problem(FieldErrorKind::Invalid, format!("{path}.optionalOldSelf"), set.to_string(), detail, false);
    }
}

/// Whether an expression speaks of the old value.
pub(super) fn uses_old(expression: &Expression) -> bool {
    let any = |list: &[Expression]| list.iter().any(uses_old);
    match &expression.expr {
        Expr::Ident(name) => name == "oldSelf",
        Expr::Select(select) => uses_old(&select.operand),
        Expr::Call(call) => call.target.as_deref().is_some_and(uses_old) || any(&call.args),
        Expr::List(list) => any(&list.elements),
        Expr::Map(map) => map.entries.iter().any(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => uses_old(&entry.key) || uses_old(&entry.value),
            EntryExpr::StructField(field) => uses_old(&field.value),
        }),
        Expr::Comprehension(c) => {
            [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result].into_iter().any(uses_old)
        }
        Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => false,
    }
}

/// What is known of a value before there is one.
#[derive(Debug, Clone)]
enum Type<'s> {
    Dyn,
    Bool,
    Int,
    Str,
    Double,
    /// A part of the object; with the identity that every object has.
    Schema(&'s Structural, bool),
}

struct Checker<'s> {
    names: Vec<(String, Type<'s>)>,
    source: &'s SourceInfo,
    text: &'s str,
    errors: Vec<String>,
}

impl<'s> Checker<'s> {
    fn error(&mut self, at: u64, why: &str) {
        let start = self.source.offset_for(at).map_or(0, |(start, _)| start as usize);
        let before = self.text.get(..start).unwrap_or("");
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or("").chars().count();
        let shown = self.text.lines().nth(line).unwrap_or("");
        let dots = ".".repeat(column);
        self.errors.push(format!(
            "ERROR: <input>:{}:{}: {why}\n | {shown}\n | {dots}^",
            line + 1,
            column + 1
        ));
    }

    /// The type and about how many steps.
    fn of(&mut self, expression: &Expression) -> (Type<'s>, f64) {
        match &expression.expr {
            Expr::Unspecified | Expr::Struct(_) => (Type::Dyn, 1.0),
            Expr::Literal(literal) => (literal_type(literal), 0.0),
            Expr::Ident(name) => (self.name(expression.id, name), 1.0),
            Expr::Select(select) => {
                let (operand, cost) = self.of(&select.operand);
                let found = self.field(&operand, &select.field);
                if found.is_none() {
                    self.error(expression.id, &format!("undefined field '{}'", select.field));
                }
                let ty = if select.test { Type::Bool } else { found.unwrap_or(Type::Dyn) };
                (ty, cost + 1.0)
            }
            Expr::List(list) => (Type::Dyn, 1.0 + list.elements.iter().map(|e| self.of(e).1).sum::<f64>()),
            Expr::Map(map) => {
                let mut cost = 1.0;
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        cost += self.of(&entry.key).1 + self.of(&entry.value).1;
                    }
                }
                (Type::Dyn, cost)
            }
            Expr::Comprehension(c) => {
                let (range, cost) = self.of(&c.iter_range);
                let (first, second, count) = range.elements();
                let init = self.of(&c.accu_init);
                let depth = self.names.len();
                self.names.push((c.accu_var.clone(), init.0.clone()));
                match &c.iter_var2 {
                    Some(name) => {
                        self.names.push((c.iter_var.clone(), Type::Dyn));
                        self.names.push((name.clone(), second));
                    }
                    None => self.names.push((c.iter_var.clone(), first)),
                }
                let step = self.of(&c.loop_cond).1 + self.of(&c.loop_step).1;
                self.names.truncate(depth + 1);
                let result = self.of(&c.result);
                self.names.truncate(depth);
                let ty = if matches!(init.0, Type::Bool) { Type::Bool } else { result.0 };
                (ty, cost + init.1 + count * step + result.1)
            }
            Expr::Call(call) => self.call(expression.id, &call.func_name, call.target.as_deref(), &call.args),
        }
    }

    fn call(
        &mut self,
        id: u64,
        name: &str,
        target: Option<&Expression>,
        args: &[Expression],
    ) -> (Type<'s>, f64) {
        if !library::is_known(name) {
            self.error(id, &format!("undeclared reference to '{name}' (in container '')"));
            return (Type::Dyn, 1.0);
        }
        let named = |t: &Expression| {
            matches!(&t.expr, Expr::Ident(space)
            if matches!(space.as_str(), "math" | "sets" | "format" | "optional" | "ip" | "regex" | "cel"))
        };
        let mut cost = 1.0;
        let variable = match (name, args) {
            ("bind", [Expression { expr: Expr::Ident(variable), .. }, value, _]) => {
                Some((variable.clone(), self.of(value).0))
            }
            ("optMap" | "optFlatMap", [Expression { expr: Expr::Ident(variable), .. }, _]) => {
                Some((variable.clone(), Type::Dyn))
            }
            _ => None,
        };
        let depth = self.names.len();
        if let Some(target) = target.filter(|t| !named(t)) {
            cost += self.of(target).1;
        }
        self.names.extend(variable);
        let mut types = Vec::with_capacity(args.len());
        for arg in args {
            let (ty, more) = self.of(arg);
            cost += more;
            types.push(ty);
        }
        self.names.truncate(depth);
        let ty = match name {
            op::LOGICAL_AND
            | op::LOGICAL_OR
            | op::LOGICAL_NOT
            | op::EQUALS
            | op::NOT_EQUALS
            | op::LESS
            | op::LESS_EQUALS
            | op::GREATER
            | op::GREATER_EQUALS
            | op::IN
            | op::NOT_STRICTLY_FALSE
            | "matches"
            | "startsWith"
            | "endsWith"
            | "isSorted"
            | "isURL"
            | "isIP"
            | "isCIDR"
            | "isQuantity"
            | "hasValue" => Type::Bool,
            "size" | "indexOf" | "lastIndexOf" | "int" => Type::Int,
            "string" | "lowerAscii" | "upperAscii" | "trim" | "join" | "substring" | "charAt" => Type::Str,
            op::ADD if types.iter().any(|t| t.scalar() == Some("string")) => Type::Str,
            op::INDEX => types.first().map_or(Type::Dyn, |t| t.elements().1),
            _ => Type::Dyn,
        };
        if let (
            op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS | op::EQUALS | op::NOT_EQUALS,
            [a, b],
        ) = (name, types.as_slice())
            && let (Some(a), Some(b)) = (a.scalar(), b.scalar())
            && a != b
            && (a == "string" || b == "string" || a == "bool" || b == "bool")
        {
            self.error(id, &format!("found no matching overload for '{name}' applied to '({a}, {b})'"));
        }
        (ty, cost)
    }

    fn name(&mut self, id: u64, name: &str) -> Type<'s> {
        if let Some((_, ty)) = self.names.iter().rev().find(|(known, _)| known == name) {
            return ty.clone();
        }
        const TYPES: &[&str] =
            &["int", "uint", "double", "string", "bool", "bytes", "list", "map", "null_type", "type"];
        if !TYPES.contains(&name) {
            self.error(id, &format!("undeclared reference to '{name}' (in container '')"));
        }
        Type::Dyn
    }

    /// `None` when there is no such field.
    fn field(&self, operand: &Type<'s>, name: &str) -> Option<Type<'s>> {
        let Type::Schema(schema, identity) = operand else { return Some(Type::Dyn) };
        let name = unescape(name);
        if *identity {
            match name.as_str() {
                "apiVersion" | "kind" => return Some(Type::Str),
                "metadata" => return Some(Type::Dyn),
                _ => {}
            }
        }
        if let Some(found) = schema.of_field(&name) {
            return Some(Type::of(found));
        }
        let closed =
            schema.ty.as_ref() == "object" && !schema.properties.is_empty() && schema.additional.is_none();
        let scalar = matches!(schema.ty.as_ref(), "string" | "integer" | "number" | "boolean" | "array");
        let empty = *identity && schema.ty.as_ref() == "object";
        // What is not named is pruned or not seen by rules.
        (!(closed || scalar || empty)).then_some(Type::Dyn)
    }
}

impl<'s> Type<'s> {
    fn of(schema: &'s Structural) -> Self {
        if schema.int_or_string {
            return Self::Dyn;
        }
        let format = schema.values.as_ref().map_or("", |v| v.format.as_ref());
        match schema.ty.as_ref() {
            "boolean" => Self::Bool,
            "integer" => Self::Int,
            "number" => Self::Double,
            "string" if matches!(format, "byte" | "date" | "date-time" | "duration") => Self::Dyn,
            "string" => Self::Str,
            "" => Self::Dyn,
            _ => Self::Schema(schema, schema.embedded),
        }
    }

    fn scalar(&self) -> Option<&'static str> {
        match self {
            Self::Bool => Some("bool"),
            Self::Int => Some("int"),
            Self::Str => Some("string"),
            Self::Double => Some("double"),
            Self::Dyn | Self::Schema(..) => None,
        }
    }

    /// What a loop over it sees (elements or keys), its values, and about how many.
    fn elements(&self) -> (Type<'s>, Type<'s>, f64) {
        let Self::Schema(schema, _) = self else { return (Type::Dyn, Type::Dyn, 1.0) };
        let values = schema.values.as_ref();
        if let Some(items) = &schema.items {
            let count = values.and_then(|v| v.max_items).map_or(UNBOUNDED, |n| n as f64);
            return (Type::of(items), Type::of(items), count);
        }
        if let Some(inner) = schema.additional_schema() {
            let count = values.and_then(|v| v.max_properties).map_or(UNBOUNDED, |n| n as f64);
            return (Type::Str, Type::of(inner), count);
        }
        (Type::Dyn, Type::Dyn, 1.0)
    }
}

fn literal_type<'s>(literal: &LiteralValue) -> Type<'s> {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::String(_) => Type::Str,
        LiteralValue::Bytes(_) | LiteralValue::Null | LiteralValue::UInt(_) => Type::Dyn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(rule: &str) -> Vec<String> {
        let schema = Structural::read(&json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [{"rule": rule}],
            "properties": {"n": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}},
                "b": {"type": "array", "maxItems": 10, "items": {"type": "string"}}}}}}));
        check(&schema, "s").iter().map(|p| p.error.to_string()).collect()
    }

    #[test]
    fn mistakes_are_found_before_a_rule_runs() {
        for good in [
            "self.n > 1",
            "self.b.all(x, self.b.exists(y, x == y))",
            "!has(self.n) || self.n == oldSelf.n",
            "self.l.all(x, x != '')",
        ] {
            assert_eq!(problems(good), Vec::<String>::new(), "{good}");
        }
        for (bad, wanted) in [
            ("self.missing > 1", "undefined field 'missing'"),
            ("selfish.n > 1", "undeclared reference to 'selfish'"),
            ("self.n.bogus()", "undeclared reference to 'bogus'"),
            ("self.n +", "compilation failed"),
            ("self.n", "cel expression must evaluate to a bool"),
            ("self.n == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
            (
                "self.l.all(x, self.l.all(y, x == y))",
                "estimated rule cost exceeds budget by factor of more than 100x",
            ),
        ] {
            let found = problems(bad);
            assert!(found.iter().any(|f| f.contains(wanted)), "{bad}: {found:?}");
        }
    }
}
