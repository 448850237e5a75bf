//! Where pods come from: the API server and a folder of manifests. Each sends the whole set it wants.
//!
//! Answers to upstream's `pkg/kubelet/config`.

pub mod api;
pub mod defaults;
pub mod file;
pub mod mirror;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

/// Sets that wait for the sync loop.
pub const UPDATES_MAX: usize = 64;

/// Which source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Api,
    File,
}

/// What a source says.
#[derive(Debug)]
pub enum Update {
    /// All pods of the source; the others are gone. Also says that the source is ready.
    All(Source, Vec<Arc<Pod>>),
    /// One pod is new or changed.
    Set(Source, Arc<Pod>),
    /// One pod is gone.
    Remove(Source, Arc<Pod>),
}
