//! Bootstrap tokens: signs what a joining machine reads before it can trust anyone, and removes tokens that
//! have expired.
//!
//! A token is a secret in `kube-system`; its half that is no secret names the signature, the other half makes
//! it. Nothing here gives a token any right: that is the API server's. Both controllers are off unless named
//! in `--controllers`. Answers to upstream's `pkg/controller/bootstrap` and `cluster-bootstrap`.

pub mod cleaner;
pub mod signer;

mod jws;
mod token;
