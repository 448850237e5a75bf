//! What is found wrong with a rule when its definition is created.

use std::rc::Rc;

use common::status::{FieldError, FieldErrorKind};
use serde_json::Value;

use super::shapes;
use crate::apiextensions::schema::Structural;
use crate::apiextensions::schema::structural::Rule;
use crate::cel::shape::REQUEST_BYTES_MAX;
use crate::cel::{Environment, Program, Shape, Type, cost};

/// Something that makes a definition invalid.
pub struct Problem {
    pub error: FieldError,
    /// Of its cost only: a rule that was there before may stay.
    pub is_cost: bool,
}

/// What one expression may be estimated to cost (`StaticEstimatedCostLimit`).
const COST_MAX: u64 = 10_000_000;
/// What all of a schema may be (`StaticEstimatedCRDCostLimit`).
const TOTAL_COST_MAX: u64 = 100_000_000;
/// How many of the dearest are named when all are too dear together.
const DEAREST_MAX: usize = 4;
/// The name of a rule's own type in errors.
const SELF_TYPE: &str = "selfType";

/// Checks every rule of a schema.
pub fn check(schema: &Structural, path: &str) -> Vec<Problem> {
    if !schema.any(&|node| !node.rules.is_empty()) {
        return Vec::new();
    }
    let mut check = Check { base: Environment::base(), out: Vec::new(), total: 0, costs: Vec::new() };
    check.node(schema, &Place { path: path.to_owned(), times: Some(1), root: true, uncorrelated: None });
    check.total(path);
    check.out
}

/// The environment of the rules at a node. `optional` is whether `oldSelf` may be absent.
pub(super) fn environment(base: &Environment, shape: &Shape, optional: bool) -> Environment {
    let mut env = base.clone();
    let own = env.type_of(shape, SELF_TYPE);
    let old = if optional { Type::optional(own.clone()) } else { own.clone() };
    env.variable("self", own).variable("oldSelf", old)
}

struct Check {
    base: Environment,
    out: Vec<Problem>,
    total: u64,
    /// What is not cheap, and where.
    costs: Vec<(u64, String)>,
}

/// Where a node is.
struct Place {
    path: String,
    /// How often it may be there; `None` without bounds.
    times: Option<u64>,
    root: bool,
    /// The nearest list or map whose elements cannot be found again in an old object.
    uncorrelated: Option<String>,
}

impl Place {
    fn below(&self, step: &str, times: Option<u64>, lost: bool) -> Self {
        Self {
            path: format!("{}.{step}", self.path),
            times: self.times.zip(times).map(|(a, b)| a.saturating_mul(b)),
            root: false,
            uncorrelated: self.uncorrelated.clone().or_else(|| lost.then(|| self.path.clone())),
        }
    }
}

impl Check {
    fn node(&mut self, schema: &Structural, place: &Place) {
        if !schema.rules.is_empty() {
            match shapes::of(schema, place.root || schema.embedded) {
                Some(shape) => {
                    for (i, rule) in schema.rules.iter().enumerate() {
                        self.rule(
                            rule,
                            &shape,
                            &format!("{}.x-kubernetes-validations[{i}]", place.path),
                            place,
                        );
                    }
                }
                None => {
                    let path = format!("{}.x-kubernetes-validations", place.path);
                    let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
                    self.problem(FieldErrorKind::InternalError, path, String::new(), why.to_owned(), false);
                }
            }
        }
        let limit = |n: Option<i64>| n.map(|n| u64::try_from(n).unwrap_or(0));
        let values = schema.values.as_deref();
        if let Some(items) = &schema.items {
            let times = limit(values.and_then(|v| v.max_items));
            self.node(items, &place.below("items", times, schema.list_type() != "map"));
        }
        let additional = schema.additional_schema();
        let times = match additional {
            Some(_) => limit(values.and_then(|v| v.max_properties)),
            None => Some(1),
        };
        let lost = schema.map_type.as_deref() == Some("atomic");
        for (key, property) in &schema.properties {
            self.node(property, &place.below(&format!("properties[{key}]"), times, lost));
        }
        if let Some(inner) = additional {
            self.node(inner, &place.below("additionalProperties", times, false));
        }
    }

    fn problem(&mut self, kind: FieldErrorKind, field: String, value: String, detail: String, is_cost: bool) {
        self.out.push(Problem { error: FieldError { kind, field, value, detail }, is_cost });
    }

    fn rule(&mut self, rule: &Rule, shape: &Shape, path: &str, place: &Place) {
        if rule.rule.trim().is_empty() {
            return;
        }
        let env = environment(&self.base, shape, rule.optional_old_self == Some(true));
        let field = format!("{path}.rule");
        let program = match compiled(&env, &rule.rule, &Type::Bool) {
            Ok(program) => program,
            Err(why) => {
                let detail = match why {
                    Wrong::Text(issues) => format!("compilation failed: {issues}"),
                    Wrong::Type => "cel expression must evaluate to a bool".to_owned(),
                };
                self.problem(FieldErrorKind::Invalid, field, shown(rule), detail, false);
                return;
            }
        };
        let times = place.times.unwrap_or(REQUEST_BYTES_MAX / (shape.least_bytes() + 1));
        let estimated = most(&program, shape).saturating_mul(times);
        self.cost("estimated rule cost", estimated, field.clone());
        if !rule.message_expression.trim().is_empty() {
            self.message(rule, &env, shape, path);
        }
        if program.mentions("oldSelf") {
            if let Some(lost) = &place.uncorrelated {
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}"
                );
                let value = Value::from(rule.rule.as_str()).to_string();
                self.problem(FieldErrorKind::Invalid, field, value, detail, false);
            }
        } else if let Some(set) = rule.optional_old_self {
            let detail = "may not be set if oldSelf is not used in rule".to_owned();
            let field = format!("{path}.optionalOldSelf");
            self.problem(FieldErrorKind::Invalid, field, set.to_string(), detail, false);
        }
    }

    fn message(&mut self, rule: &Rule, env: &Environment, shape: &Shape, path: &str) {
        let field = format!("{path}.messageExpression");
        let detail = match compiled(env, &rule.message_expression, &Type::Str) {
            Ok(program) => {
                return self.cost("estimated messageExpression cost", most(&program, shape), field);
            }
            Err(Wrong::Text(issues)) => format!("messageExpression compilation failed: {issues}"),
            Err(Wrong::Type) => "messageExpression must evaluate to a string".to_owned(),
        };
        self.problem(FieldErrorKind::Invalid, field, shown(rule), detail, false);
    }

    fn cost(&mut self, name: &str, cost: u64, field: String) {
        if cost > COST_MAX {
            let detail = too_dear(name, cost, COST_MAX);
            self.problem(FieldErrorKind::Forbidden, field.clone(), String::new(), detail, true);
        }
        self.total = self.total.saturating_add(cost);
        if cost >= TOTAL_COST_MAX / 100 {
            self.costs.push((cost, field));
        }
    }

    fn total(&mut self, path: &str) {
        if self.total <= TOTAL_COST_MAX {
            return;
        }
        self.costs.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, field) in std::mem::take(&mut self.costs).into_iter().take(DEAREST_MAX) {
            let detail =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            self.problem(FieldErrorKind::Forbidden, field, String::new(), detail.to_owned(), true);
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let detail = too_dear(name, self.total, TOTAL_COST_MAX);
        self.problem(FieldErrorKind::Forbidden, path.to_owned(), String::new(), detail, true);
    }
}

enum Wrong {
    Text(crate::cel::Issues),
    /// Its result is of another type.
    Type,
}

fn compiled(env: &Environment, text: &str, wanted: &Type) -> Result<Program, Wrong> {
    let program = env.compile(text).map_err(Wrong::Text)?;
    if program.output() == wanted { Ok(program) } else { Err(Wrong::Type) }
}

/// What one evaluation may cost at a node of a shape: both variables have it.
fn most(program: &Program, shape: &Shape) -> u64 {
    cost::estimate(program, &|path: &[Rc<str>]| cost::below(shape, path.get(1..)?))
}

fn too_dear(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule as errors show it: the fields of upstream's internal type, in their order.
fn shown(rule: &Rule) -> String {
    let text = |text: &str| Value::from(text).to_string();
    let reason = if rule.reason.is_empty() { "null".to_owned() } else { text(&rule.reason) };
    let old = rule.optional_old_self.map_or("null".to_owned(), |set| set.to_string());
    format!(
        r#"{{"Rule":{},"Message":{},"MessageExpression":{},"Reason":{reason},"FieldPath":{},"OptionalOldSelf":{old}}}"#,
        text(&rule.rule),
        text(&rule.message),
        text(&rule.message_expression),
        text(&rule.field_path),
    )
}

#[cfg(test)]
mod tests;
