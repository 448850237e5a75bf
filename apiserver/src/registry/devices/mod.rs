//! Dynamic resource allocation (`pkg/apis/resource`), in the stored version, v1: claims and their templates,
//! classes of devices, the slices in which drivers publish them, rules that taint devices, and questions about
//! pools.
//!
//! A room per kind, a room per part of a device, and rooms for what kinds have in common: names, lists, selectors and
//! the language of their expressions, configuration.

mod attributes;
mod binding;
mod capacity;
mod claim;
mod claim_status;
mod class;
mod configuration;
mod counters;
mod device;
mod expressions;
mod lists;
mod names;
mod pool_status;
mod requests;
mod selectors;
mod slice;
mod taint_rule;
mod taints;

pub use claim::{CLAIM, CLAIM_TEMPLATE};
pub use class::DEVICE_CLASS;
pub use pool_status::POOL_STATUS_REQUEST;
pub use slice::SLICE;
pub use taint_rule::TAINT_RULE;
