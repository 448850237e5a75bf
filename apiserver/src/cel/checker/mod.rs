//! Gives every part of an expression a type, or says why it has none (cel-go's `checker`).
//!
//! Names that belong together (`authorizer.requestResource`, `sets.contains`) become one name in the tree, so that
//! who evaluates looks nothing up twice. What a call may mean at run time, where types are not known, is noted
//! with it: the estimate takes the dearest.
//!
//! [`unify`] knows when a type fits another; [`literals`] looks at what is written out, once the types fit.

mod calls;
mod literals;
mod unify;

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::{
    ComprehensionExpr, EntryExpr, Expr, ListExpr, LiteralValue, MapExpr, SelectExpr, SourceInfo, StructExpr,
};
use cel::parser::Expression;

use super::declarations::Overload;
use super::environment::{Environment, Field};
use super::issues::{Issues, Reporter};
use super::types::Type;
use unify::{Unifier, most_general};

/// What is known of an expression's parts, by their ids.
#[derive(Debug)]
pub struct Facts {
    types: HashMap<u64, Type>,
    overloads: HashMap<u64, Vec<Arc<Overload>>>,
}

impl Facts {
    pub fn of(&self, part: &Expression) -> &Type {
        self.types.get(&part.id).unwrap_or(&Type::Dyn)
    }

    /// Ways that a call may be meant.
    pub fn overloads(&self, call: &Expression) -> &[Arc<Overload>] {
        self.overloads.get(&call.id).map_or(&[], Vec::as_slice)
    }
}

/// Checks an expression, and makes names in it whole.
pub(super) fn check(
    expression: &mut Expression,
    source: &SourceInfo,
    text: &str,
    env: &Environment,
) -> Result<Facts, Issues> {
    let mut checker = Checker {
        env,
        source,
        names: Vec::new(),
        unifier: Unifier::default(),
        reporter: Reporter::new(text),
        facts: Facts { types: HashMap::new(), overloads: HashMap::new() },
    };
    checker.check(expression);
    for ty in checker.facts.types.values_mut() {
        *ty = checker.unifier.substitute(ty, true);
    }
    if checker.reporter.is_empty() {
        literals::check(expression, &mut checker);
    }
    match checker.reporter.finish() {
        Some(issues) => Err(issues),
        None => Ok(checker.facts),
    }
}

struct Checker<'e> {
    env: &'e Environment,
    source: &'e SourceInfo,
    /// Variables of loops, the innermost last.
    names: Vec<(String, Type)>,
    unifier: Unifier,
    reporter: Reporter<'e>,
    facts: Facts,
}

impl Checker<'_> {
    fn error(&mut self, id: u64, why: String) {
        let start = self.source.offset_for(id).map_or(0, |(start, _)| start);
        self.reporter.at_offset(usize::try_from(start).unwrap_or(0), why);
    }

    fn undeclared(&mut self, id: u64, name: &str) -> Type {
        self.error(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn mismatch(&mut self, id: u64, expected: &Type, found: &Type) {
        let (expected, found) = (expected.to_string(), found.to_string());
        self.error(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn ident(&self, name: &str) -> Option<Type> {
        // A leading dot only says that the name is whole.
        let name = name.strip_prefix('.').unwrap_or(name);
        match self.names.iter().rev().find(|(known, _)| known == name) {
            Some((_, ty)) => Some(ty.clone()),
            None => self.env.ident(name),
        }
    }

    fn check(&mut self, e: &mut Expression) -> Type {
        let ty = match &mut e.expr {
            Expr::Unspecified => Type::Error,
            Expr::Literal(literal) => of_literal(literal),
            Expr::Ident(name) => match self.ident(name) {
                Some(ty) => ty,
                None => self.undeclared(e.id, name),
            },
            Expr::Select(_) => self.select(e),
            Expr::Call(_) => self.call(e),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(map),
            Expr::Struct(made) => self.made(e.id, made),
            Expr::Comprehension(parts) => self.comprehension(parts),
        };
        self.facts.types.insert(e.id, ty.clone());
        ty
    }

    fn select(&mut self, e: &mut Expression) -> Type {
        if let Some(name) = qualified(e)
            && let Some(ty) = self.ident(&name)
        {
            e.expr = Expr::Ident(name);
            return ty;
        }
        let Expr::Select(SelectExpr { operand, field, test }) = &mut e.expr else { return Type::Error };
        let found = self.field(e.id, operand, field, false);
        if *test { Type::Bool } else { self.unifier.substitute(&found, false) }
    }

    fn field(&mut self, id: u64, operand: &mut Expression, field: &str, optional: bool) -> Type {
        let ty = self.check(operand);
        let ty = self.unifier.substitute(&ty, false);
        let (target, was_optional) = ty.unwrapped();
        let found = match target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(name) => self.field_of(id, name, field),
            Type::Param(_) => {
                self.unifier.is_assignable(&Type::Dyn, target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.error(id, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(found) } else { found }
    }

    fn field_of(&mut self, id: u64, object: &str, field: &str) -> Type {
        match self.env.field(object, field) {
            Field::Of(ty) => return ty,
            Field::Missing => self.error(id, format!("undefined field '{field}'")),
            Field::OfUnknown => self.error(id, format!("unexpected failed resolution of '{object}'")),
        }
        Type::Error
    }

    /// The type of a value where an optional one is expected.
    fn optional_value(&mut self, value: &Expression, ty: Type) -> Type {
        let (inner, is_optional) = ty.unwrapped();
        if !is_optional && !inner.is_dyn() {
            self.mismatch(value.id, &Type::optional(ty.clone()), &ty);
        }
        inner.clone()
    }

    fn list(&mut self, list: &mut ListExpr) -> Type {
        let mut joined = None;
        for (i, element) in list.elements.iter_mut().enumerate() {
            let mut ty = self.check(element);
            if list.optional_indices.contains(&i) {
                ty = self.optional_value(element, ty);
            }
            joined = Some(self.join(joined, ty));
        }
        Type::list(joined.unwrap_or_else(|| self.unifier.fresh())).bounded()
    }

    fn map(&mut self, map: &mut MapExpr) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in &mut map.entries {
            let EntryExpr::MapEntry(entry) = &mut entry.expr else { continue };
            let key = self.check(&mut entry.key);
            keys = Some(self.join(keys, key));
            let mut value = self.check(&mut entry.value);
            if entry.optional {
                value = self.optional_value(&entry.value, value);
            }
            values = Some(self.join(values, value));
        }
        let (keys, values) = (keys.unwrap_or_else(|| self.unifier.fresh()), values);
        Type::map(keys, values.unwrap_or_else(|| self.unifier.fresh())).bounded()
    }

    /// The type of elements of one literal. That they have one is looked at with other literals, because the
    /// arguments of a format need not.
    fn join(&mut self, before: Option<Type>, now: Type) -> Type {
        match before {
            None => now,
            Some(before) if self.unifier.is_assignable(&before, &now) => most_general(&before, &now).clone(),
            Some(_) => Type::Dyn,
        }
    }

    fn made(&mut self, id: u64, made: &mut StructExpr) -> Type {
        let name = made.type_name.strip_prefix('.').unwrap_or(&made.type_name).to_owned();
        let result = match self.ident(&name) {
            None => return self.undeclared(id, &name),
            Some(Type::Type(Some(of))) if matches!(*of, Type::Object(_)) => (*of).clone(),
            Some(Type::Type(_)) => {
                self.error(id, format!("'{name}' is not a message type"));
                Type::Error
            }
            Some(other) => {
                self.error(id, format!("'{}' is not a type", other.declared()));
                Type::Error
            }
        };
        for field in &mut made.entries {
            let EntryExpr::StructField(entry) = &mut field.expr else { continue };
            let mut value = self.check(&mut entry.value);
            let wanted = match &result {
                Type::Object(object) => self.field_of(field.id, object, &entry.field),
                _ => Type::Error,
            };
            if entry.optional {
                value = self.optional_value(&entry.value, value);
            }
            if !self.unifier.is_assignable(&wanted, &value) {
                let why = format!(
                    "expected type of field '{}' is '{wanted}' but provided type is '{value}'",
                    entry.field
                );
                self.error(field.id, why);
            }
        }
        result
    }

    fn comprehension(&mut self, parts: &mut ComprehensionExpr) -> Type {
        let range = self.check(&mut parts.iter_range);
        let accumulator = self.check(&mut parts.accu_init);
        let range = self.unifier.substitute(&range, false);
        let (one, first, second) = match &range {
            Type::List(of) => ((**of).clone(), Type::Int, (**of).clone()),
            Type::Map(key, value) => ((**key).clone(), (**key).clone(), (**value).clone()),
            Type::Dyn | Type::Any | Type::Error | Type::Param(_) => {
                self.unifier.is_assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn, Type::Dyn)
            }
            other => {
                let why = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.error(parts.iter_range.id, why);
                (Type::Error, Type::Error, Type::Error)
            }
        };
        let depth = self.names.len();
        self.names.push((parts.accu_var.clone(), accumulator.clone()));
        match &parts.iter_var2 {
            Some(name) => {
                self.names.push((parts.iter_var.clone(), first));
                self.names.push((name.clone(), second));
            }
            None => self.names.push((parts.iter_var.clone(), one)),
        }
        let condition = self.check(&mut parts.loop_cond);
        self.assert(parts.loop_cond.id, &Type::Bool, &condition);
        let step = self.check(&mut parts.loop_step);
        self.assert(parts.loop_step.id, &accumulator, &step);
        self.names.truncate(depth + 1);
        let result = self.check(&mut parts.result);
        self.names.truncate(depth);
        self.unifier.substitute(&result, false)
    }

    fn assert(&mut self, id: u64, wanted: &Type, found: &Type) {
        if !self.unifier.is_assignable(wanted, found) {
            self.mismatch(id, wanted, found);
        }
    }
}

fn of_literal(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::Str,
        LiteralValue::UInt(_) => Type::Uint,
    }
}

/// `a.b.c`, when it is nothing but names.
fn qualified(e: &Expression) -> Option<String> {
    match &e.expr {
        Expr::Ident(name) => Some(name.strip_prefix('.').unwrap_or(name).to_owned()),
        Expr::Select(select) if !select.test => {
            let mut name = qualified(&select.operand)?;
            name.push('.');
            name.push_str(&select.field);
            Some(name)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
