//! The one loop every controller runs.
//!
//! An event becomes a [`Key`], the key waits in a deduplicating, rate-limited [`Queue`], a worker hands it to
//! [`Reconcile::reconcile`], and the answer is [`Outcome::Done`] or [`Outcome::RequeueAfter`]. No object and
//! no event reaches a reconciler: it reads the shared stores of [`Informers`], so a missed or repeated event
//! cannot change what it does. What a store does not know yet because the watch is behind is bridged by
//! [`Expectations`]; what it knows wrongly is caught by the server, because every write is conditional.
//!
//! This room knows no kind of object. It answers to upstream's `client-go/tools/cache`,
//! `client-go/util/workqueue` and `pkg/controller/controller_utils.go`.

mod error;
mod expectations;
mod informer;
mod key;
mod owner;
mod queue;
mod rest;
mod store;
mod worker;

pub use error::{Error, is_already_exists, is_conflict, is_namespace_terminating, is_not_found, message_of};
pub use expectations::{EXPECTATIONS_TIMEOUT, Expectations};
pub use informer::{Change, Informer, Informers};
pub use key::Key;
pub use owner::{Claim, adopt, claim, controller_reference, reference, release};
pub use queue::{Queue, QueueMetrics};
pub use rest::{Propagation, Rest};
pub use store::{Store, View};
pub use worker::{Outcome, Reconcile, Workers};
