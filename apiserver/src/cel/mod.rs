//! CEL: the expressions in custom resource definitions, admission policies, webhooks and device selectors.
//!
//! An [`Environment`] says what an expression may speak of; compiling against it gives a [`Program`], whose output
//! type the caller judges, or [`Issues`] in cel-go's words. The `cel` crate parses ([`syntax`]); the types
//! ([`checker`]), the estimate of what evaluation may cost ([`cost`]) and evaluation ([`machine`]) are ours,
//! because an expression comes from a stranger: it must be told at the object's creation what is wrong, and must
//! not be able to hang the server when it runs. Every step is paid for from a budget.
//!
//! - [`library`] has the functions, a room for each of upstream's libraries: declarations beside what they do.
//! - [`shape`] is a type with sizes, which is what the estimate knows of values.
//! - [`authorizer`](library::authorizer) asks through a trait, so that this room decides nothing.
//!
//! What is particular to one user stands with it: `apiextensions/cel` (rules of schemas), `registry` (the fields of
//! built-in kinds). This room knows no kinds and no field paths.
//!
//! Differences to upstream: costs at run time are steps, not cel-go's units. All of the API's environments hold
//! what this version knows: there is no older server to stay compatible with, so that expressions that are stored
//! already are compiled like new ones.
//!
//! Upstream: cel-go; `apiserver/pkg/cel`.

mod checker;
pub mod cost;
mod declarations;
mod environment;
mod issues;
pub mod library;
pub mod machine;
pub mod shape;
mod syntax;
mod types;
pub mod value;

use ::cel::parser::Expression;

pub use cost::Size;
pub use environment::Environment;
pub use issues::Issues;
pub use shape::Shape;
pub use types::Type;

/// An expression that was compiled.
#[derive(Debug)]
pub struct Program {
    expression: Expression,
    facts: checker::Facts,
}

impl Program {
    /// The type of what it evaluates to.
    #[must_use]
    pub fn output(&self) -> &Type {
        self.facts.of(&self.expression)
    }

    /// Whether it speaks of a name.
    #[must_use]
    pub fn mentions(&self, name: &str) -> bool {
        syntax::mentions(&self.expression, name)
    }
}

#[cfg(test)]
mod tests;
