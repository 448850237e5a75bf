//! Conversions between a served version and the stored one. Pure, total: what a version cannot say in fields
//! it says in annotations, as upstream does, so nothing is lost on the way and back.
//!
//! Upstream: `pkg/apis/*/v*/conversion.go`.

mod autoscaling;
mod events;

use super::Conversion;

/// events.k8s.io/v1 Event, stored as core/v1 Event.
pub const EVENTS: Conversion = Conversion { to_stored: events::to_stored, from_stored: events::from_stored };

/// autoscaling/v1 HorizontalPodAutoscaler, stored as autoscaling/v2.
pub const HORIZONTAL_POD_AUTOSCALERS: Conversion =
    Conversion { to_stored: autoscaling::to_stored, from_stored: autoscaling::from_stored };
