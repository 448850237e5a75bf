//! What is written out must be what it stands for: durations, timestamps, patterns, lists of one type
//! (cel-go's AST validators).

use cel::common::ast::{EntryExpr, Expr, LiteralValue};
use cel::parser::Expression;

use super::Checker;
use crate::apiextensions::schema::pattern;
use crate::apiextensions::validation::formats::go_duration_nanos;
use crate::cel::library::conversions::TIMESTAMP_SECONDS;
use crate::cel::types::Type;

/// Reports literals that are wrong; types are known.
pub(super) fn check(root: &Expression, checker: &mut Checker<'_>) {
    walk(root, false, checker);
}

fn walk(e: &Expression, mixed: bool, checker: &mut Checker<'_>) {
    match &e.expr {
        Expr::Call(call) => {
            // Arguments of a format may be of any type.
            let mixed = mixed || call.func_name == "format";
            if let Some(arg) = call.args.first()
                && let Expr::Literal(literal) = &arg.expr
                && !fits(&call.func_name, literal)
            {
                checker.error(arg.id, format!("invalid {} argument", call.func_name));
            }
            call.target.iter().for_each(|target| walk(target, mixed, checker));
            call.args.iter().for_each(|arg| walk(arg, mixed, checker));
        }
        Expr::List(list) => {
            if !mixed {
                let optional = |i: usize| list.optional_indices.contains(&i);
                let parts = list.elements.iter().enumerate().map(|(i, e)| (e, optional(i)));
                alike(parts, true, checker);
            }
            list.elements.iter().for_each(|element| walk(element, mixed, checker));
        }
        Expr::Map(map) => {
            let entries = map.entries.iter().filter_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some(entry),
                EntryExpr::StructField(_) => None,
            });
            let entries: Vec<_> = entries.collect();
            if !mixed {
                alike(entries.iter().map(|entry| (&entry.key, false)), false, checker);
                alike(entries.iter().map(|entry| (&entry.value, entry.optional)), false, checker);
            }
            for entry in entries {
                walk(&entry.key, mixed, checker);
                walk(&entry.value, mixed, checker);
            }
        }
        Expr::Select(select) => walk(&select.operand, mixed, checker),
        Expr::Struct(made) => {
            for entry in &made.entries {
                if let EntryExpr::StructField(field) = &entry.expr {
                    walk(&field.value, mixed, checker);
                }
            }
        }
        Expr::Comprehension(parts) => {
            for part in
                [&parts.iter_range, &parts.accu_init, &parts.loop_cond, &parts.loop_step, &parts.result]
            {
                walk(part, mixed, checker);
            }
        }
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
    }
}

/// All have the type of the first.
fn alike<'e>(
    parts: impl Iterator<Item = (&'e Expression, bool)>,
    stop_at_first: bool,
    checker: &mut Checker<'_>,
) {
    let mut first: Option<Type> = None;
    for (part, optional) in parts {
        let ty = checker.facts.of(part);
        let ty = if optional { ty.unwrapped().0.clone() } else { ty.clone() };
        match &first {
            None => first = Some(ty),
            Some(wanted) if *wanted != ty => {
                let wanted = wanted.clone();
                checker.mismatch(part.id, &wanted, &ty);
                if stop_at_first {
                    break;
                }
            }
            Some(_) => {}
        }
    }
}

fn fits(function: &str, literal: &LiteralValue) -> bool {
    match (function, literal) {
        ("duration", LiteralValue::String(text)) => go_duration_nanos(text.inner()).is_some(),
        ("timestamp", LiteralValue::String(text)) => text.inner().parse::<jiff::Timestamp>().is_ok(),
        ("timestamp", LiteralValue::Int(seconds)) => TIMESTAMP_SECONDS.contains(seconds.inner()),
        ("matches", LiteralValue::String(text)) => {
            pattern::compile(text.inner(), pattern::RULE_BYTES_MAX).is_ok()
        }
        _ => true,
    }
}
