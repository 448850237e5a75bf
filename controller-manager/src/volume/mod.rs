//! Volumes: what is in use must not go.
//!
//! Admission puts a finalizer on every claim and volume; here it is taken off when one is deleted and nobody uses
//! it, and put on where an object was made without. Answers to upstream's `pkg/controller/volume/pvcprotection`,
//! `pvprotection` and `protectionutil`. The binder is not here: who binds a volume says so in its status.

mod finalizer;
pub mod pvcprotection;
pub mod pvprotection;
