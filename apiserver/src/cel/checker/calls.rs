//! Calls: which function, and which of its overloads.

use std::sync::Arc;

use cel::common::ast::{Expr, LiteralValue, operators as op};
use cel::parser::Expression;

use super::{Checker, qualified};
use crate::cel::declarations::Overload;
use crate::cel::types::Type;

impl Checker<'_> {
    pub(super) fn call(&mut self, e: &mut Expression) -> Type {
        let id = e.id;
        let Expr::Call(call) = &mut e.expr else { return Type::Error };
        if call.func_name == op::OPT_SELECT {
            return self.optional_select(e);
        }
        let mut types: Vec<Type> = call.args.iter_mut().map(|arg| self.check(arg)).collect();
        let ids: Vec<u64> = call.args.iter().map(|arg| arg.id).collect();
        let env = self.env;
        if let Some(target) = &mut call.target {
            let whole = qualified(target).map(|space| format!("{space}.{}", call.func_name));
            if let Some((name, overloads)) = whole.and_then(|name| env.overloads(&name)) {
                call.func_name = name.to_owned();
                call.target = None;
                return self.resolve(id, name, overloads, types, &ids, false);
            }
            types.insert(0, self.check(target));
        }
        let member = call.target.is_some();
        let name = call.func_name.strip_prefix('.').unwrap_or(&call.func_name).to_owned();
        match env.overloads(&name) {
            None => self.undeclared(id, &name),
            Some((name, overloads)) => {
                call.func_name = name.to_owned();
                self.resolve(id, name, overloads, types, &ids, member)
            }
        }
    }

    /// `a.?b`
    fn optional_select(&mut self, e: &mut Expression) -> Type {
        let id = e.id;
        let Expr::Call(call) = &mut e.expr else { return Type::Error };
        let [operand, key] = call.args.as_mut_slice() else {
            let why = format!(
                "unsupported optional field selection: incorrect signature. argument count: {}",
                call.args.len()
            );
            self.error(id, why);
            return Type::Error;
        };
        let Expr::Literal(LiteralValue::String(field)) = &key.expr else {
            self.error(key.id, "unsupported optional field selection: not a name".to_owned());
            return Type::Error;
        };
        let field = field.inner().to_owned();
        self.facts.types.insert(key.id, Type::Str);
        let found = self.field(id, operand, &field, true);
        if let Some((_, [overload, ..])) = self.env.overloads(op::OPT_SELECT) {
            self.facts.overloads.insert(id, vec![overload.clone()]);
        }
        self.unifier.substitute(&found, false)
    }

    fn resolve(
        &mut self,
        id: u64,
        name: &str,
        overloads: &[Arc<Overload>],
        mut types: Vec<Type>,
        ids: &[u64],
        member: bool,
    ) -> Type {
        if matches!(name, op::LOGICAL_AND | op::LOGICAL_OR) {
            let mut all = true;
            for (ty, id) in types.iter().zip(ids) {
                if !self.unifier.is_assignable(ty, &Type::Bool) {
                    self.mismatch(*id, &Type::Bool, ty);
                    all = false;
                }
            }
            self.facts.overloads.insert(id, overloads.to_vec());
            return if all { Type::Bool } else { Type::Error };
        }
        let mut result: Option<Type> = None;
        let mut meant = Vec::new();
        for overload in overloads.iter().filter(|o| o.member == member) {
            let (wanted, returned) = self.instance(overload);
            if !self.unifier.all_assignable(&types, &wanted) {
                continue;
            }
            meant.push(overload.clone());
            let returned = self.unifier.substitute(&returned, false);
            result = Some(match result {
                None => returned,
                Some(before) if before.is_dyn() || before == returned => before,
                Some(_) => Type::Dyn,
            });
        }
        let Some(result) = result else {
            for ty in &mut types {
                *ty = self.unifier.substitute(ty, true);
            }
            let target = if member { format!("{}.", types.remove(0)) } else { String::new() };
            let args: Vec<String> = types.iter().map(ToString::to_string).collect();
            let args = args.join(", ");
            self.error(id, format!("found no matching overload for '{name}' applied to '{target}({args})'"));
            return Type::Error;
        };
        self.facts.overloads.insert(id, meant);
        result
    }

    /// A declaration with new variables in place of its letters.
    fn instance(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        if overload.parameters.is_empty() {
            return (overload.args.clone(), overload.result.clone());
        }
        let fresh: Vec<(Arc<str>, Type)> =
            overload.parameters.iter().map(|name| (name.clone(), self.unifier.fresh())).collect();
        let args = overload.args.iter().map(|ty| renamed(ty, &fresh)).collect();
        (args, renamed(&overload.result, &fresh))
    }
}

fn renamed(ty: &Type, fresh: &[(Arc<str>, Type)]) -> Type {
    let inner = |ty: &Arc<Type>| Arc::new(renamed(ty, fresh));
    match ty {
        Type::Param(name) => {
            fresh.iter().find(|(letter, _)| letter == name).map_or_else(|| ty.clone(), |(_, new)| new.clone())
        }
        Type::List(a) => Type::List(inner(a)),
        Type::Map(a, b) => Type::Map(inner(a), inner(b)),
        Type::Optional(a) => Type::Optional(inner(a)),
        Type::Type(Some(a)) => Type::Type(Some(inner(a))),
        other => other.clone(),
    }
}
