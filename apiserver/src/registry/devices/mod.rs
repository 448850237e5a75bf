//! Dynamic resource allocation (`pkg/apis/resource`), in the stored version, v1: claims and their templates,
//! classes of devices, and the slices in which drivers publish them.
//!
//! A room per kind, and rooms for what kinds have in common: names, lists, selectors and the language of their
//! expressions, configuration.

mod claim;
mod claim_status;
mod class;
mod configuration;
mod expressions;
mod lists;
mod names;
mod selectors;
mod slice;

pub use claim::{CLAIM, CLAIM_TEMPLATE};
pub use class::DEVICE_CLASS;
pub use slice::SLICE;
