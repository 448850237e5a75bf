//! Checking the objects of a custom kind against its schema, with upstream's words.
//!
//! [`values`] is OpenAPI's validation, which lets errors stand that an update did not touch (ratcheting), `scalars` its
//! part about single values; [`lists`] the uniqueness of sets and maps; [`metadata`] the identity of embedded
//! resources; [`formats`] the named formats of strings. Pure. Upstream: `pkg/apiserver/validation`,
//! `pkg/apiserver/schema/{listtype,objectmeta}`, `kube-openapi/pkg/validation/validate`.

pub mod formats;
pub mod lists;
pub mod metadata;
mod scalars;
pub mod values;
