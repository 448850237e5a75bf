//! CustomResourceDefinitions: kinds that a cluster's users add while it runs.
//!
//! A definition becomes the same [`crate::resources::ResourceDef`] as a built-in row, one per served version, and
//! goes through the same routes, handlers, cache and storage. What is particular to a custom kind hangs off the
//! row as a [`CustomKind`]: the schema its objects are checked against ([`schema`], [`validation`]), rules in CEL
//! ([`cel`]), the store that is started by the first request, its printed columns.
//!
//! - [`definition`]: the rules of the definitions themselves (defaults, validation, what an update may change).
//! - [`controller`]: names, conditions, clean-up of instances, and the swap of the table.
//!
//! - [`publish`]: what a kind looks like in the published documents.
//!
//! Nothing of a definition's schema is parsed before the first request for its kind, so that a thousand of them
//! cost little. This room knows no HTTP beyond the `scale` subresource's body. Upstream:
//! `apiextensions-apiserver`.

pub mod cel;
pub mod columns;
pub mod controller;
pub mod definition;
mod json_path;
mod kind;
mod paths;
pub mod publish;
mod scale;
pub mod schema;
mod store;
mod strategy;
pub mod validation;

pub use columns::Columns;
pub use controller::Controller;
pub use kind::{CustomKind, Types};
