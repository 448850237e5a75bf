//! What evaluating an expression costs at most, before there is a value (cel-go's `checker/cost.go`).
//!
//! Costs are cel-go's: one for each look at a name or field and each call, a tenth for each character that is gone
//! over, and the steps of a loop as often as its range may be long. Only the most is estimated. What is known of
//! sizes comes from the caller, by the path from a variable (`self`, `items`, `@items`, `name`).

mod calls;

use std::collections::HashMap;
use std::rc::Rc;

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, LiteralValue};
use cel::parser::Expression;

use super::Program;
use super::checker::Facts;
use super::shape::Shape;
use super::syntax::RESULT;
use super::types::Type;

const LIST: u64 = 10;
const MAP: u64 = 30;
const OBJECT: u64 = 40;
/// Of a character that is gone over.
const CHARACTER: f64 = 0.1;
/// Of a character of a pattern.
const PATTERN_CHARACTER: f64 = 0.25;

/// How many elements, entries or characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub min: u64,
    pub max: u64,
}

/// Steps from a variable to a part of its value.
pub type Path = Vec<Rc<str>>;

impl Size {
    pub const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub fn fixed(n: u64) -> Self {
        Self { min: n, max: n }
    }

    pub fn at_most(max: u64) -> Self {
        Self { min: 0, max }
    }

    fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    fn add(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn multiply(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }
}

/// What going over so many costs.
fn factor(n: u64, each: f64) -> u64 {
    let cost = (n as f64 * each).ceil();
    if cost >= u64::MAX as f64 { u64::MAX } else { cost as u64 }
}

/// The most that an expression may cost.
///
/// `size_of` tells the size of what stands at a path, where it is known.
pub fn estimate(program: &Program, size_of: &dyn Fn(&[Rc<str>]) -> Option<Size>) -> u64 {
    let mut estimate = Estimate {
        facts: &program.facts,
        size_of,
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        names: Vec::new(),
    };
    estimate.cost(&program.expression)
}

/// The size at a path below a shape; the name of the variable is not among the steps.
#[must_use]
pub fn below(shape: &Shape, steps: &[Rc<str>]) -> Option<Size> {
    let mut at = shape;
    for step in steps {
        at = at.step(step)?;
    }
    Some(Size::at_most(at.max()))
}

/// Sizes of what is in a list or map.
#[derive(Debug, Clone, Copy)]
struct Entry {
    is_list: bool,
    key: Size,
    value: Size,
}

#[derive(Debug, Clone)]
struct Variable {
    name: String,
    path: Path,
    size: Option<Size>,
    entry: Option<Entry>,
}

struct Estimate<'p> {
    facts: &'p Facts,
    size_of: &'p dyn Fn(&[Rc<str>]) -> Option<Size>,
    paths: HashMap<u64, Path>,
    sizes: HashMap<u64, Size>,
    entries: HashMap<u64, Entry>,
    names: Vec<Variable>,
}

impl Estimate<'_> {
    fn cost(&mut self, e: &Expression) -> u64 {
        match &e.expr {
            Expr::Unspecified | Expr::Literal(_) => 0,
            Expr::Ident(name) => {
                let path = self.variable(name).map_or_else(|| vec![name.as_str().into()], |v| v.path.clone());
                self.paths.insert(e.id, path);
                1
            }
            Expr::Select(select) => {
                let mut cost = self.cost(&select.operand);
                if select.test {
                    return cost;
                }
                if matches!(self.facts.of(&select.operand), Type::Map(..) | Type::Object(_) | Type::Param(_))
                {
                    cost = cost.saturating_add(1);
                }
                let path = self.path_with(&select.operand, &select.field);
                self.paths.insert(e.id, path);
                cost
            }
            Expr::Call(call) => self.call(e, call),
            Expr::List(list) => {
                let mut cost = LIST;
                let mut item: Option<Size> = None;
                for element in &list.elements {
                    cost = cost.saturating_add(self.cost(element));
                    let size = self.size_or_unknown(element);
                    item = Some(item.map_or(size, |item| item.union(size)));
                }
                let value = item.unwrap_or(Size::fixed(0));
                self.entries.insert(e.id, Entry { is_list: true, key: Size::fixed(1), value });
                cost
            }
            Expr::Map(map) => {
                let mut cost = MAP;
                let mut known: Option<(Size, Size)> = None;
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    let both = self.cost(&entry.key).saturating_add(self.cost(&entry.value));
                    cost = cost.saturating_add(both);
                    let (k, v) = (self.size_or_unknown(&entry.key), self.size_or_unknown(&entry.value));
                    known = Some(known.map_or((k, v), |(keys, values)| (keys.union(k), values.union(v))));
                }
                let (key, value) = known.unwrap_or((Size::fixed(0), Size::fixed(0)));
                self.entries.insert(e.id, Entry { is_list: false, key, value });
                cost
            }
            Expr::Struct(made) => {
                let mut cost = OBJECT;
                for entry in &made.entries {
                    if let EntryExpr::StructField(field) = &entry.expr {
                        cost = cost.saturating_add(self.cost(&field.value));
                    }
                }
                cost
            }
            Expr::Comprehension(parts) if is_bind(parts) => {
                let cost = self.cost(&parts.iter_range).saturating_add(self.cost(&parts.accu_init));
                self.push_accumulator(parts);
                let cost = cost.saturating_add(self.cost(&parts.result));
                self.names.pop();
                self.copy(e, &parts.result);
                cost
            }
            Expr::Comprehension(parts) => self.looped(e, parts),
        }
    }

    fn looped(&mut self, e: &Expression, parts: &ComprehensionExpr) -> u64 {
        let range = &parts.iter_range;
        let cost = self.cost(range).saturating_add(self.cost(&parts.accu_init));
        self.push_accumulator(parts);
        let depth = self.names.len();
        match &parts.iter_var2 {
            Some(second) => {
                self.push_step(&parts.iter_var, range, true);
                self.push_step(second, range, false);
            }
            None => {
                let of_keys = !self.is_list(range);
                self.push_step(&parts.iter_var, range, of_keys);
            }
        }
        let condition = self.cost(&parts.loop_cond);
        let step = self.cost(&parts.loop_step);
        self.names.truncate(depth);
        let cost = cost.saturating_add(self.cost(&parts.result));
        self.names.truncate(depth - 1);
        let count = self.size_or_unknown(range);
        match &parts.accu_init.expr {
            Expr::Literal(_) => {
                if let Some(size) = self.size(&parts.accu_init) {
                    self.sizes.insert(e.id, size);
                }
            }
            Expr::List(_) | Expr::Map(_) => {
                self.sizes.insert(e.id, count);
                if let Some(entry) = self.entry(&parts.loop_step) {
                    self.entries.insert(e.id, entry);
                }
            }
            _ => {}
        }
        cost.saturating_add(count.max.saturating_mul(condition.saturating_add(step)))
    }

    fn push_accumulator(&mut self, parts: &ComprehensionExpr) {
        let variable = Variable {
            name: parts.accu_var.clone(),
            path: self.path(&parts.accu_init),
            size: self.size(&parts.accu_init),
            entry: self.entry(&parts.accu_init),
        };
        self.names.push(variable);
    }

    /// A variable of a loop: the keys of its range, or the values.
    fn push_step(&mut self, name: &str, range: &Expression, keys: bool) {
        let entry = self.entry(range);
        let step = match (self.is_list(range), keys) {
            (true, true) => "@indices",
            (true, false) => "@items",
            (false, true) => "@keys",
            (false, false) => "@values",
        };
        let size = entry.map(|entry| if keys { entry.key } else { entry.value });
        let path = self.path_with(range, step);
        self.names.push(Variable { name: name.to_owned(), path, size, entry: None });
    }

    fn is_list(&self, e: &Expression) -> bool {
        self.entry(e).map_or_else(|| matches!(self.facts.of(e), Type::List(_)), |entry| entry.is_list)
    }

    fn variable(&self, name: &str) -> Option<&Variable> {
        self.names.iter().rev().find(|variable| variable.name == name)
    }

    fn path(&self, e: &Expression) -> Path {
        if let Expr::Ident(name) = &e.expr
            && let Some(variable) = self.variable(name)
        {
            return variable.path.clone();
        }
        self.paths.get(&e.id).cloned().unwrap_or_default()
    }

    fn path_with(&self, e: &Expression, step: &str) -> Path {
        let mut path = self.path(e);
        path.push(step.into());
        path
    }

    fn size(&mut self, e: &Expression) -> Option<Size> {
        if let Some(size) = self.sizes.get(&e.id) {
            return Some(*size);
        }
        match &e.expr {
            Expr::Literal(literal) => {
                return Some(Size::fixed(match literal {
                    LiteralValue::String(text) => text.inner().chars().count() as u64,
                    LiteralValue::Bytes(bytes) => bytes.inner().len() as u64,
                    _ => 1,
                }));
            }
            Expr::List(list) => return Some(Size::fixed(list.elements.len() as u64)),
            Expr::Map(map) => return Some(Size::fixed(map.entries.len() as u64)),
            _ => {}
        }
        let path = self.path(e);
        if !path.is_empty()
            && let Some(size) = (self.size_of)(&path)
        {
            self.sizes.insert(e.id, size);
            return Some(size);
        }
        if is_scalar(self.facts.of(e)) {
            return Some(Size::fixed(1));
        }
        match &e.expr {
            Expr::Ident(name) => self.variable(name).and_then(|variable| variable.size),
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, e: &Expression) -> Size {
        self.size(e).unwrap_or(Size::UNKNOWN)
    }

    fn entry(&self, e: &Expression) -> Option<Entry> {
        if let Some(entry) = self.entries.get(&e.id) {
            return Some(*entry);
        }
        match &e.expr {
            Expr::Ident(name) => self.variable(name).and_then(|variable| variable.entry),
            _ => None,
        }
    }

    fn copy(&mut self, to: &Expression, from: &Expression) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entry) = self.entry(from) {
            self.entries.insert(to.id, entry);
        }
    }
}

/// A variable with a value, written as a loop over nothing.
fn is_bind(parts: &ComprehensionExpr) -> bool {
    matches!(&parts.iter_range.expr, Expr::List(list) if list.elements.is_empty())
        && matches!(&parts.loop_cond.expr, Expr::Literal(LiteralValue::Boolean(go)) if !*go.inner())
        && parts.accu_var != RESULT
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(of) => is_scalar(of),
        _ => false,
    }
}
