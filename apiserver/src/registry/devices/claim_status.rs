//! The status of a claim: what was allocated, and for whom it is reserved.

use common::status::FieldErrors;

use super::claim::REQUESTS_MAX;
use super::configuration::opaque;
use super::lists::{distinct, within};
use super::names::pool_name;
use crate::object::{self, Object};
use crate::registry::checks::At;
use crate::registry::core::immutable;
use crate::registry::names;
use crate::registry::pod_template::affinity::node_selector;
use crate::registry::pod_template::volume_sources::csi_driver_name;
use crate::registry::tree::{at, field, items};

const RESERVATIONS_MAX: usize = 256;

pub(super) fn claim_status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let status = At::root(new).at("status");
    let reserved = status.each("reservedFor");
    if within(&status, "reservedFor", RESERVATIONS_MAX, errors) {
        for consumer in &reserved {
            for key in ["resource", "name", "uid"] {
                consumer.required_text(key, errors);
            }
        }
        distinct(&reserved, "uid", errors);
    }
    let (allocation, before) = (status.at("allocation"), at(old, &["status", "allocation"]));
    if !reserved.is_empty() {
        if !allocation.present() {
            status.forbidden("reservedFor", "may not be specified when `allocated` is not set", errors);
        } else if !object::str_at(new, &["metadata", "deletionTimestamp"]).is_empty() {
            let known = items(field(old, "status"), "reservedFor");
            if reserved.iter().any(|consumer| !known.contains(consumer.value)) {
                let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
                status.forbidden("reservedFor", detail, errors);
            }
        }
    }
    if allocation.present() && !before.is_null() {
        immutable(new, old, &["status", "allocation"], errors);
    } else if allocation.present() {
        let devices = allocation.at("devices");
        if within(&devices, "results", REQUESTS_MAX, errors) {
            for result in devices.each("results") {
                csi_driver_name(&result, "driver", errors);
                pool_name(&result, "pool", errors);
                result.shaped("device", names::dns1123_label, errors);
            }
        }
        for config in devices.each("config") {
            config.required_choice("source", &["FromClaim", "FromClass"], errors);
            opaque(&config, errors);
        }
        if allocation.has("nodeSelector") {
            let selector = allocation.at("nodeSelector");
            node_selector(selector.value, &selector.path, errors);
        }
    }
}
