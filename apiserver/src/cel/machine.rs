//! Evaluates an expression that was compiled, one paid step after another.

use std::rc::Rc;

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators as op};
use cel::parser::Expression;

use super::Program;
use super::library::{self, authorizer};
use super::value::Val;

/// Why a rule has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The budget is spent.
    Cost,
    Error(String),
}

impl Failure {
    pub fn overload() -> Self {
        Self::Error("no such overload".to_owned())
    }
}

pub type Result<'a> = std::result::Result<Val<'a>, Failure>;

/// What is evaluated with: names, and what is left to spend.
pub struct Machine<'a> {
    names: Vec<(String, Val<'a>)>,
    budget: u64,
    left: u64,
}

impl<'a> Machine<'a> {
    pub fn new(budget: u64) -> Self {
        Self { names: Vec::new(), budget, left: budget }
    }

    pub fn refill(&mut self, budget: u64) {
        (self.budget, self.left) = (budget, budget);
    }

    pub fn spent(&self) -> u64 {
        self.budget - self.left
    }

    pub fn bind(&mut self, name: &str, value: Val<'a>) {
        self.names.push((name.to_owned(), value));
    }

    /// Pays for work.
    pub(super) fn pay(&mut self, steps: usize) -> std::result::Result<(), Failure> {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        if steps > self.left {
            self.left = 0;
            return Err(Failure::Cost);
        }
        self.left -= steps;
        Ok(())
    }

    /// Pays for looking at values as a whole.
    fn pay_for(&mut self, value: &Val<'_>) -> std::result::Result<(), Failure> {
        self.pay(value.size().unwrap_or(0) / 10)
    }

    fn with<T>(&mut self, name: &str, value: Val<'a>, go: impl FnOnce(&mut Self) -> T) -> T {
        self.names.push((name.to_owned(), value));
        let out = go(self);
        self.names.pop();
        out
    }

    /// Evaluates a program with the names that were bound.
    ///
    /// # Errors
    /// What went wrong, or that the budget is spent.
    pub fn run(&mut self, program: &Program) -> Result<'a> {
        self.eval(&program.expression)
    }

    fn eval(&mut self, expression: &Expression) -> Result<'a> {
        self.pay(1)?;
        match &expression.expr {
            Expr::Unspecified => Err(Failure::Error("empty expression".to_owned())),
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                let operand = self.eval(&select.operand)?;
                if select.test {
                    return Ok(Val::Bool(has(&operand, &select.field)));
                }
                field(&operand, &Val::str(&select.field))
            }
            Expr::List(list) => {
                let mut items = Vec::with_capacity(list.elements.len());
                for (i, element) in list.elements.iter().enumerate() {
                    let value = self.eval(element)?;
                    match value {
                        Val::Optional(inner) if list.optional_indices.contains(&i) => {
                            items.extend(inner.map(|v| *v));
                        }
                        value => items.push(value),
                    }
                }
                Ok(Val::list(items))
            }
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    let (key, value) = (self.eval(&entry.key)?, self.eval(&entry.value)?);
                    match value {
                        Val::Optional(inner) if entry.optional => {
                            entries.extend(inner.map(|v| (key, *v)));
                        }
                        value => entries.push((key, value)),
                    }
                }
                Ok(Val::Map(Rc::new(entries)))
            }
            Expr::Struct(made) => {
                let mut fields = Vec::with_capacity(made.entries.len());
                for entry in &made.entries {
                    let EntryExpr::StructField(field) = &entry.expr else { continue };
                    match self.eval(&field.value)? {
                        Val::Optional(inner) if field.optional => {
                            fields.extend(inner.map(|v| (Val::str(&field.field), *v)));
                        }
                        value => fields.push((Val::str(&field.field), value)),
                    }
                }
                Ok(Val::Object(made.type_name.as_str().into(), fields.into()))
            }
            Expr::Comprehension(loops) => self.comprehension(loops),
            Expr::Call(call) => self.call(&call.func_name, call.target.as_deref(), &call.args),
        }
    }

    fn name(&self, name: &str) -> Result<'a> {
        if let Some((_, value)) = self.names.iter().rev().find(|(known, _)| known == name) {
            return Ok(value.clone());
        }
        // The checker lets only types pass that are no variables.
        Ok(Val::Type(name.into()))
    }

    fn comprehension(&mut self, loops: &ComprehensionExpr) -> Result<'a> {
        let range = self.eval(&loops.iter_range)?;
        let items: Vec<(Val<'a>, Val<'a>)> = if let Some(entries) = range.entries() {
            entries
        } else if let Some(elements) = range.elements() {
            let place = |i: usize| Val::Int(i64::try_from(i).unwrap_or(i64::MAX));
            elements.into_iter().enumerate().map(|(i, v)| (place(i), v)).collect()
        } else {
            return Err(Failure::overload());
        };
        let over_map = range.entries().is_some();
        let mut accumulated = self.eval(&loops.accu_init)?;
        let mut undecided = None;
        for (key, value) in items {
            self.pay(1)?;
            let proceed = self.with(&loops.accu_var, accumulated.clone(), |m| m.eval(&loops.loop_cond))?;
            if !matches!(proceed, Val::Bool(true)) {
                break;
            }
            let (first, second) = match &loops.iter_var2 {
                Some(name) => (key, Some((name, value))),
                None => (if over_map { key } else { value }, None),
            };
            let next = self.with(&loops.accu_var, accumulated.clone(), |m| {
                m.with(&loops.iter_var, first, |m| match second {
                    Some((name, value)) => m.with(name, value, |m| m.eval(&loops.loop_step)),
                    None => m.eval(&loops.loop_step),
                })
            });
            match next {
                Ok(next) => accumulated = next,
                // A quantifier goes on past what cannot be decided; another element may decide.
                Err(Failure::Error(why)) if is_quantifier(loops) => undecided = Some(why),
                Err(failure) => return Err(failure),
            }
        }
        let result = self.with(&loops.accu_var, accumulated, |m| m.eval(&loops.result))?;
        match (undecided, is_all(loops), &result) {
            (Some(why), true, Val::Bool(true)) | (Some(why), false, Val::Bool(false)) => {
                Err(Failure::Error(why))
            }
            _ => Ok(result),
        }
    }

    fn both(&mut self, args: &[Expression], absorbing: bool) -> Result<'a> {
        let [left, right] = args else { return Err(Failure::overload()) };
        let decided = |value: &Result<'a>| matches!(value, Ok(Val::Bool(b)) if *b == absorbing);
        let left = self.eval(left);
        if decided(&left) || left == Err(Failure::Cost) {
            return left;
        }
        let right = self.eval(right);
        if decided(&right) || right == Err(Failure::Cost) {
            return right;
        }
        match (left?, right?) {
            (Val::Bool(_), Val::Bool(_)) => Ok(Val::Bool(!absorbing)),
            _ => Err(Failure::overload()),
        }
    }

    fn call(&mut self, name: &str, target: Option<&Expression>, args: &[Expression]) -> Result<'a> {
        match (name, target, args) {
            (op::LOGICAL_AND, None, args) => return self.both(args, false),
            (op::LOGICAL_OR, None, args) => return self.both(args, true),
            (op::CONDITIONAL, None, [condition, yes, no]) => {
                return match self.eval(condition)? {
                    Val::Bool(true) => self.eval(yes),
                    Val::Bool(false) => self.eval(no),
                    _ => Err(Failure::overload()),
                };
            }
            (op::NOT_STRICTLY_FALSE, None, [inner]) => {
                return match self.eval(inner) {
                    Err(Failure::Cost) => Err(Failure::Cost),
                    Ok(Val::Bool(false)) => Ok(Val::Bool(false)),
                    _ => Ok(Val::Bool(true)),
                };
            }
            (op::OPT_SELECT, None, [operand, key]) | (op::OPT_INDEX, None, [operand, key]) => {
                let operand = match self.eval(operand)? {
                    Val::Optional(None) => return Ok(Val::Optional(None)),
                    Val::Optional(Some(inner)) => *inner,
                    operand => operand,
                };
                let key = self.eval(key)?;
                return Ok(Val::Optional(element(&operand, &key).ok().map(Box::new)));
            }
            _ => {}
        }
        let target = target.map(|t| self.eval(t)).transpose()?;
        let args = self.all(args)?;
        for value in target.iter().chain(&args) {
            self.pay_for(value)?;
        }
        match target {
            None => library::global(self, name, &args),
            Some(target) => {
                self.pay(authorizer::steps(name, &target))?;
                library::method(self, name, &target, &args)
            }
        }
    }

    fn all(&mut self, args: &[Expression]) -> std::result::Result<Vec<Val<'a>>, Failure> {
        args.iter().map(|arg| self.eval(arg)).collect()
    }
}

impl PartialEq for Val<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.equals(other)
    }
}

/// `all` and `exists` keep their verdict in a bool.
fn is_quantifier(loops: &ComprehensionExpr) -> bool {
    matches!(&loops.loop_step.expr, Expr::Call(call) if matches!(call.func_name.as_str(), op::LOGICAL_AND | op::LOGICAL_OR))
}

/// `all`, as opposed to `exists`.
fn is_all(loops: &ComprehensionExpr) -> bool {
    matches!(&loops.loop_step.expr, Expr::Call(call) if call.func_name == op::LOGICAL_AND)
}

fn of_literal<'a>(literal: &LiteralValue) -> Val<'a> {
    match literal {
        LiteralValue::Boolean(b) => Val::Bool(*b.inner()),
        LiteralValue::Bytes(b) => Val::Bytes(b.inner().into()),
        LiteralValue::Double(d) => Val::Double(*d.inner()),
        LiteralValue::Int(i) => Val::Int(*i.inner()),
        LiteralValue::Null => Val::Null,
        LiteralValue::String(s) => Val::str(s.inner()),
        LiteralValue::UInt(u) => Val::Uint(*u.inner()),
    }
}

fn has(operand: &Val<'_>, name: &str) -> bool {
    match operand {
        Val::Optional(inner) => inner.as_ref().is_some_and(|inner| has(inner, name)),
        operand => operand.get(&Val::str(name)).is_some(),
    }
}

/// `a.b`
fn field<'a>(operand: &Val<'a>, key: &Val<'a>) -> Result<'a> {
    match operand {
        Val::Optional(None) => Ok(Val::Optional(None)),
        Val::Optional(Some(inner)) => Ok(Val::Optional(element(inner, key).ok().map(Box::new))),
        operand => element(operand, key),
    }
}

/// `a[b]`
pub(super) fn element<'a>(operand: &Val<'a>, key: &Val<'a>) -> Result<'a> {
    if operand.entries().is_some() {
        let shown = || match key {
            Val::Str(text) => text.to_string(),
            other => format!("{other:?}"),
        };
        return operand.get(key).ok_or_else(|| Failure::Error(format!("no such key: {}", shown())));
    }
    let Some(items) = operand.elements() else { return Err(Failure::overload()) };
    let place = match key {
        Val::Int(n) => usize::try_from(*n).ok(),
        Val::Uint(n) => usize::try_from(*n).ok(),
        _ => return Err(Failure::overload()),
    };
    let found = place.and_then(|at| items.get(at).cloned());
    found.ok_or_else(|| match key {
        Val::Int(n) => Failure::Error(format!("index out of bounds: {n}")),
        _ => Failure::Error("index out of bounds".to_owned()),
    })
}
