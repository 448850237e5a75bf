//! Volumes and claims: defaults alone; full validation is not here yet.

use crate::registry::pod_template::{defaults, resources};
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree::{child_mut, default_to, default_zero, set, struct_mut};
use serde_json::json;

pub const CLAIM: Rules = Rules {
    default: |claim| {
        if let Some(spec) = struct_mut(claim, "spec") {
            defaults::claim_spec(spec);
        }
        if let Some(status) = struct_mut(claim, "status") {
            default_zero(status, "phase", "Pending");
        }
    },
    prepare_create: |claim| set(claim, "status", json!({"phase": "Pending"})),
    status: StatusRule::Split,
    ..Rules::PLAIN
};

pub const VOLUME: Rules = Rules {
    default: |volume| {
        if let Some(spec) = struct_mut(volume, "spec") {
            default_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_to(spec, "volumeMode", "Filesystem");
            if let Some(capacity) = child_mut(spec, "capacity") {
                resources::default_list(capacity);
            }
            if let Some(path) = child_mut(spec, "hostPath") {
                default_to(path, "type", "");
            }
        }
        if let Some(status) = struct_mut(volume, "status") {
            default_zero(status, "phase", "Pending");
        }
    },
    prepare_create: |volume| set(volume, "status", json!({"phase": "Pending"})),
    status: StatusRule::Split,
    ..Rules::PLAIN
};
