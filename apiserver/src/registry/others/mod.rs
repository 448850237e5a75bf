//! The smaller groups: leases, certificates, scheduling, node classes, networking, policy, storage,
//! autoscaling, flow control and admission registration.
//!
//! Leases, certificate signing requests, priority classes and runtime classes are validated in full; for the
//! rest this room gives the defaults of their `defaults.go` and no more.

pub mod certificates;
pub mod defaults;
pub mod scheduling;

use common::status::FieldErrors;

use crate::object::Object;
use crate::registry::names;
use crate::registry::rules::Rules;
use crate::registry::tree::{field, int, text};

pub const LEASE: Rules =
    Rules { validate: validate_lease, create_on_update: true, unconditional_update: false, ..Rules::PLAIN };

fn validate_lease(lease: &Object, errors: &mut FieldErrors) {
    let spec = field(lease, "spec");
    if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0");
    }
    if let Some(count) = int(spec, "leaseTransitions").filter(|c| *c < 0) {
        errors.invalid("spec.leaseTransitions", count, "must be greater than or equal to 0");
    }
    let strategy = text(spec, "strategy");
    for message in (!strategy.is_empty()).then(|| names::qualified_name(strategy)).into_iter().flatten() {
        errors.invalid("spec.strategy", strategy, message);
    }
    if !text(spec, "preferredHolder").is_empty() && strategy.is_empty() {
        errors.forbidden("spec.preferredHolder", "may only be specified when `strategy` is defined");
    }
}
