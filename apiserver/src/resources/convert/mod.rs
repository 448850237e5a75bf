//! Conversions between a served version and the stored one. Pure, total: what a version cannot say in fields
//! it says in annotations, as upstream does, so nothing is lost on the way and back.
//!
//! Upstream: `pkg/apis/*/v*/conversion.go`.

mod autoscaling;
mod devices;
mod events;

use super::Conversion;

/// events.k8s.io/v1 Event, stored as core/v1 Event.
pub const EVENTS: Conversion = Conversion { to_stored: events::to_stored, from_stored: events::from_stored };

/// autoscaling/v1 HorizontalPodAutoscaler, stored as autoscaling/v2.
pub const HORIZONTAL_POD_AUTOSCALERS: Conversion =
    Conversion { to_stored: autoscaling::to_stored, from_stored: autoscaling::from_stored };

/// resource.k8s.io/v1beta1, stored as v1.
pub const CLAIMS_V1BETA1: Conversion =
    Conversion { to_stored: devices::claim_to_v1, from_stored: devices::claim_to_v1beta1 };
pub const CLAIM_TEMPLATES_V1BETA1: Conversion =
    Conversion { to_stored: devices::template_to_v1, from_stored: devices::template_to_v1beta1 };
pub const SLICES_V1BETA1: Conversion =
    Conversion { to_stored: devices::slice_to_v1, from_stored: devices::slice_to_v1beta1 };

/// Versions of one shape: only the name of the version differs.
macro_rules! same_shape {
    ($($(#[$doc:meta])* $name:ident: $served:literal as $stored:literal;)*) => {$(
        $(#[$doc])*
        pub const $name: Conversion = Conversion {
            to_stored: |mut object| {
                object["apiVersion"] = $stored.into();
                object
            },
            from_stored: |mut object| {
                object["apiVersion"] = $served.into();
                object
            },
        };
    )*};
}

same_shape! {
    ADMISSION_V1: "admissionregistration.k8s.io/v1" as "admissionregistration.k8s.io/v1beta1";
    ADMISSION_V1ALPHA1: "admissionregistration.k8s.io/v1alpha1" as "admissionregistration.k8s.io/v1beta1";
    CERTIFICATES_V1ALPHA1: "certificates.k8s.io/v1alpha1" as "certificates.k8s.io/v1beta1";
    COORDINATION_V1ALPHA2: "coordination.k8s.io/v1alpha2" as "coordination.k8s.io/v1beta1";
    NETWORKING_V1BETA1: "networking.k8s.io/v1beta1" as "networking.k8s.io/v1";
    RESOURCE_V1BETA1: "resource.k8s.io/v1beta1" as "resource.k8s.io/v1";
    RESOURCE_V1BETA2: "resource.k8s.io/v1beta2" as "resource.k8s.io/v1";
    /// Device taint rules, stored as they were first served.
    TAINT_RULES_V1BETA2: "resource.k8s.io/v1beta2" as "resource.k8s.io/v1alpha3";
    STORAGE_V1BETA1: "storage.k8s.io/v1beta1" as "storage.k8s.io/v1";
}
