//! Certificate signing requests: approved, signed, and cleaned up.
//!
//! [`approver`] approves kubelet client certificates that a SubjectAccessReview allows, [`signer`] issues for
//! the four built-in signers what [`policy`] recognises, [`cleaner`] deletes what is old. Answers to
//! upstream's `pkg/controller/certificates`.

pub mod approver;
mod authority;
pub mod cleaner;
mod policy;
pub mod signer;
