//! Macros of two variables, `sortBy` and `cel.bind`, as upstream expands them.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, ListExpr, LiteralValue, MapExpr, operators as op};
use cel::parser::{Expression, Macro, MacroExprHelper, ParseError};

use super::{MAP_INSERT, RESULT, SORT_BY};

const UNUSED: &str = "#unused";
const SORTED: &str = "@__sortBy_input__";

type Expansion = Result<Option<Expression>, ParseError>;
type Args = Vec<Expression>;

/// Those that every expression may use.
pub(super) fn all() -> Vec<Macro> {
    let mut out = Vec::new();
    for (name, kind) in [
        ("all", Quantifier::All),
        ("exists", Quantifier::Exists),
        ("existsOne", Quantifier::One),
        ("exists_one", Quantifier::One),
    ] {
        out.push(Macro::receiver(name, 3, move |helper, target, args| {
            quantifier(helper, target, args, kind)
        }));
    }
    for arity in [3, 4] {
        out.push(Macro::receiver("transformList", arity, |helper, target, args| {
            transform(helper, target, args, Makes::List)
        }));
        out.push(Macro::receiver("transformMap", arity, |helper, target, args| {
            transform(helper, target, args, Makes::Map)
        }));
        out.push(Macro::receiver("transformMapEntry", arity, |helper, target, args| {
            transform(helper, target, args, Makes::Entries)
        }));
    }
    out.push(Macro::receiver("sortBy", 2, sort_by));
    out
}

#[derive(Clone, Copy)]
enum Quantifier {
    All,
    Exists,
    One,
}

#[derive(Clone, Copy)]
enum Makes {
    List,
    Map,
    Entries,
}

/// What a loop begins with, how long it goes on, what it does, and what is made of that.
struct Loop {
    init: Expression,
    condition: Expression,
    step: Expression,
    result: Expression,
}

/// Makes nodes where the macro was called.
struct Build<'b, 'h>(&'b mut MacroExprHelper<'h>);

impl Build<'_, '_> {
    fn ident(&mut self, name: &str) -> Expression {
        self.0.next_expr(Expr::Ident(name.to_owned()))
    }

    fn literal(&mut self, value: LiteralValue) -> Expression {
        self.0.next_expr(Expr::Literal(value))
    }

    fn bool(&mut self, value: bool) -> Expression {
        self.literal(LiteralValue::Boolean(value.into()))
    }

    fn int(&mut self, value: i64) -> Expression {
        self.literal(LiteralValue::Int(value.into()))
    }

    fn list(&mut self, elements: Args) -> Expression {
        self.0.next_expr(Expr::List(ListExpr::new(elements)))
    }

    fn call(&mut self, name: &str, args: Args) -> Expression {
        self.0.next_expr(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
    }

    fn method(&mut self, target: Expression, name: &str, args: Args) -> Expression {
        let target = Some(Box::new(target));
        self.0.next_expr(Expr::Call(CallExpr { func_name: name.to_owned(), target, args }))
    }

    fn looped(&mut self, parts: ComprehensionExpr) -> Expression {
        self.0.next_expr(Expr::Comprehension(Box::new(parts)))
    }

    /// A loop of two variables over `range`, whose result is made in [`RESULT`].
    fn looped_by_two(&mut self, range: Expression, (a, b): (String, String), parts: Loop) -> Expression {
        let Loop { init, condition, step, result } = parts;
        self.looped(ComprehensionExpr {
            iter_range: range,
            iter_var: a,
            iter_var2: Some(b),
            accu_var: RESULT.to_owned(),
            accu_init: init,
            loop_cond: condition,
            loop_step: step,
            result,
        })
    }

    fn bound(&mut self, name: &str, value: Expression, result: Expression) -> Expression {
        let (range, condition, step) = (self.list(Vec::new()), self.bool(false), self.ident(name));
        self.looped(ComprehensionExpr {
            iter_range: range,
            iter_var: UNUSED.to_owned(),
            iter_var2: None,
            accu_var: name.to_owned(),
            accu_init: value,
            loop_cond: condition,
            loop_step: step,
            result,
        })
    }

    /// A variable's name.
    fn name_in(&self, at: &Expression, why: &str) -> Result<String, ParseError> {
        match &at.expr {
            Expr::Ident(name) => Ok(name.clone()),
            _ => Err(self.0.new_error(at.id, why)),
        }
    }

    fn two_names(&self, first: &Expression, second: &Expression) -> Result<(String, String), ParseError> {
        let why = "argument must be a simple name";
        let (a, b) = (self.name_in(first, why)?, self.name_in(second, why)?);
        if a == b {
            return Err(self.0.new_error(second.id, format!("duplicate variable name: {a}")));
        }
        Ok((a, b))
    }
}

fn quantifier(
    helper: &mut MacroExprHelper<'_>,
    target: &mut Option<Expression>,
    args: &mut Args,
    kind: Quantifier,
) -> Expansion {
    let mut build = Build(helper);
    let Ok([first, second, test]) = <[Expression; 3]>::try_from(std::mem::take(args)) else {
        return Ok(None);
    };
    let names = build.two_names(&first, &second)?;
    let Some(range) = target.take() else { return Ok(None) };
    let so_far = build.ident(RESULT);
    let (init, condition, step, result) = match kind {
        Quantifier::All => {
            let (init, accumulated, result) = (build.bool(true), build.ident(RESULT), build.ident(RESULT));
            let condition = build.call(op::NOT_STRICTLY_FALSE, vec![accumulated]);
            (init, condition, build.call(op::LOGICAL_AND, vec![so_far, test]), result)
        }
        Quantifier::Exists => {
            let (init, accumulated, result) = (build.bool(false), build.ident(RESULT), build.ident(RESULT));
            let not = build.call(op::LOGICAL_NOT, vec![accumulated]);
            let condition = build.call(op::NOT_STRICTLY_FALSE, vec![not]);
            (init, condition, build.call(op::LOGICAL_OR, vec![so_far, test]), result)
        }
        Quantifier::One => {
            let (one, same, end, wanted) =
                (build.int(1), build.ident(RESULT), build.ident(RESULT), build.int(1));
            let more = build.call(op::ADD, vec![so_far, one]);
            let step = build.call(op::CONDITIONAL, vec![test, more, same]);
            (build.int(0), build.bool(true), step, build.call(op::EQUALS, vec![end, wanted]))
        }
    };
    Ok(Some(build.looped_by_two(range, names, Loop { init, condition, step, result })))
}

fn transform(
    helper: &mut MacroExprHelper<'_>,
    target: &mut Option<Expression>,
    args: &mut Args,
    into: Makes,
) -> Expansion {
    let mut build = Build(helper);
    let Some(made) = args.pop() else { return Ok(None) };
    let filter = (args.len() == 3).then(|| args.pop()).flatten();
    let Ok([first, second]) = <[Expression; 2]>::try_from(std::mem::take(args)) else { return Ok(None) };
    let names = build.two_names(&first, &second)?;
    let Some(range) = target.take() else { return Ok(None) };
    let so_far = build.ident(RESULT);
    let (init, step) = match into {
        Makes::List => {
            let added = build.list(vec![made]);
            (build.list(Vec::new()), build.call(op::ADD, vec![so_far, added]))
        }
        Makes::Map => {
            let key = build.ident(&names.0);
            let step = build.call(MAP_INSERT, vec![so_far, key, made]);
            (build.0.next_expr(Expr::Map(MapExpr::default())), step)
        }
        Makes::Entries => {
            let step = build.call(MAP_INSERT, vec![so_far, made]);
            (build.0.next_expr(Expr::Map(MapExpr::default())), step)
        }
    };
    let step = match filter {
        Some(filter) => {
            let same = build.ident(RESULT);
            build.call(op::CONDITIONAL, vec![filter, step, same])
        }
        None => step,
    };
    let (condition, result) = (build.bool(true), build.ident(RESULT));
    Ok(Some(build.looped_by_two(range, names, Loop { init, condition, step, result })))
}

fn sort_by(helper: &mut MacroExprHelper<'_>, target: &mut Option<Expression>, args: &mut Args) -> Expansion {
    let mut build = Build(helper);
    let Ok([variable, key]) = <[Expression; 2]>::try_from(std::mem::take(args)) else { return Ok(None) };
    let name = build.name_in(&variable, "argument is not an identifier")?;
    let Some(value) = target.take() else { return Ok(None) };
    if matches!(value.expr, Expr::Literal(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified) {
        let why =
            "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
        return Err(build.0.new_error(value.id, why));
    }
    let (range, so_far, result) = (build.ident(SORTED), build.ident(RESULT), build.ident(RESULT));
    let (init, condition, added) = (build.list(Vec::new()), build.bool(true), build.list(vec![key]));
    let step = build.call(op::ADD, vec![so_far, added]);
    let keys = build.looped(ComprehensionExpr {
        iter_range: range,
        iter_var: name,
        iter_var2: None,
        accu_var: RESULT.to_owned(),
        accu_init: init,
        loop_cond: condition,
        loop_step: step,
        result,
    });
    let list = build.ident(SORTED);
    let sorted = build.method(list, SORT_BY, vec![keys]);
    Ok(Some(build.bound(SORTED, value, sorted)))
}

/// `cel.bind(name, value, result)`.
pub(super) fn bind() -> Macro {
    Macro::receiver("bind", 3, |helper, target, args| {
        if !matches!(target, Some(Expression { expr: Expr::Ident(space), .. }) if space == "cel") {
            return Ok(None);
        }
        let mut build = Build(helper);
        let Ok([variable, value, result]) = <[Expression; 3]>::try_from(std::mem::take(args)) else {
            return Ok(None);
        };
        let name = build.name_in(&variable, "cel.bind() variable names must be simple identifiers")?;
        Ok(Some(build.bound(&name, value, result)))
    })
}
