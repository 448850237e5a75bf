//! Structural schemas: what an object of a custom kind looks like, and what follows from it.
//!
//! Pure functions on trees: [`structural`] reads the schema, [`prune`] removes what it does not name,
//! [`defaulting`] fills in, [`embedded`] looks after the metadata of embedded resources, [`types`] says the same
//! in the words of [`crate::resources::schema`] for patches and server-side apply. [`pattern`] reads regular
//! expressions as RE2 does.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema`.

pub mod defaulting;
pub mod embedded;
pub mod pattern;
pub mod prune;
pub mod structural;
pub mod types;

pub use structural::{Additional, Structural};
