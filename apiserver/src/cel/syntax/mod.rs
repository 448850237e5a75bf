//! From text to a tree: the `cel` crate's parser, and the macros of upstream's libraries that it does not know.
//!
//! A macro is expanded into loops and calls here, so that the checker, the estimate and the machine know nothing
//! of it. `cel.bind` is a loop over nothing whose accumulator is the variable.

mod macros;

use cel::Env;
use cel::common::ast::{EntryExpr, Expr, MapExpr, SourceInfo, StructExpr};
use cel::parser::Expression;

use super::issues::{Issues, Reporter};

/// How deep an expression may be nested, as it is written and as a tree.
const DEPTH_MAX: u16 = 250;
/// Characters of an expression.
const CHARACTERS_MAX: usize = 100_000;
/// The accumulator of loops.
pub(super) const RESULT: &str = "@result";
pub(super) const MAP_INSERT: &str = "cel.@mapInsert";
pub(super) const SORT_BY: &str = "@sortByAssociatedKeys";

/// What reads expressions.
pub(super) struct Syntax(Env);

impl Syntax {
    /// `with_bind`: whether `cel.bind` is a macro.
    pub(super) fn new(with_bind: bool) -> Self {
        let mut env = Env::stdlib();
        for new in macros::all().into_iter().chain(with_bind.then(macros::bind)) {
            env.add_macro(new).expect("no macro is there twice");
        }
        Self(env)
    }

    /// Reads an expression; where its parts are comes along. It takes much stack: see [`super::environment`].
    ///
    /// # Errors
    /// What is wrong with the text. A tree is never deeper than [`DEPTH_MAX`], so that one may recurse on it.
    pub(super) fn parse(&self, text: &str) -> Result<(Expression, SourceInfo), Issues> {
        let characters = text.chars().count();
        if characters > CHARACTERS_MAX {
            return Err(Issues::nowhere(format!(
                "expression code point size exceeds limit: size: {characters}, limit {CHARACTERS_MAX}"
            )));
        }
        let parser = self.0.parser().max_recursion_depth(DEPTH_MAX).enable_optional_syntax(true);
        let parsed = parser.parse_with_source_info(text).map_err(|errors| {
            let mut reporter = Reporter::new(text);
            for error in &errors.errors {
                let (line, column) = error.pos;
                let (line, column) =
                    (usize::try_from(line).unwrap_or(0), usize::try_from(column).unwrap_or(0));
                reporter.at(line, column.saturating_sub(1), error.msg.clone());
            }
            reporter.finish().expect("the parser says why it failed")
        })?;
        // The parser counts what is nested, not chains: `a.a.a...` is as deep as it is long.
        if is_deeper_than(&parsed.0, DEPTH_MAX.into()) {
            return Err(Issues::nowhere("max recursion depth exceeded".to_owned()));
        }
        Ok(parsed)
    }
}

fn is_deeper_than(e: &Expression, depth: usize) -> bool {
    depth == 0 || parts(e).into_iter().any(|part| is_deeper_than(part, depth - 1))
}

/// Whether a name stands anywhere in an expression.
pub(super) fn mentions(e: &Expression, wanted: &str) -> bool {
    matches!(&e.expr, Expr::Ident(name) if name == wanted)
        || parts(e).into_iter().any(|part| mentions(part, wanted))
}

fn parts(e: &Expression) -> Vec<&Expression> {
    match &e.expr {
        Expr::Select(select) => vec![&select.operand],
        Expr::Call(call) => call.target.iter().map(AsRef::as_ref).chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(MapExpr { entries }) | Expr::Struct(StructExpr { entries, .. }) => {
            let parts = entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            });
            parts.collect()
        }
        Expr::Comprehension(c) => {
            vec![&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result]
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}
