//! The smaller groups: leases, certificates, scheduling and node classes, storage versions; and the defaults of
//! groups whose rules stand elsewhere.

pub mod certificates;
pub mod defaults;
pub mod pod_certificates;
pub mod pod_groups;
mod public_keys;
pub mod scheduling;
pub mod signer_names;
pub mod storage_versions;
pub mod trust_bundles;
pub mod user_annotations;

use common::status::FieldErrors;

use crate::object::Object;
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::rules::Rules;

pub const LEASE: Rules =
    Rules { validate: validate_lease, create_on_update: true, unconditional_update: false, ..Rules::PLAIN };

/// `spec.strategy`: one of ours by its bare name, or anyone's with a prefix.
fn strategy(spec: &At<'_>, errors: &mut FieldErrors) {
    let name = spec.text("strategy");
    // Upstream names the field twice.
    let path = spec.under("strategy.strategy");
    if !name.contains('/') {
        if name != OLDEST {
            errors.not_supported(path, name, &[OLDEST]);
        }
        return;
    }
    for message in names::qualified_name(name) {
        errors.invalid(&path, name, message);
    }
}

fn validate_lease(lease: &Object, errors: &mut FieldErrors) {
    let spec = At::root(lease).at("spec");
    if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0");
    }
    spec.nonnegative(&["leaseTransitions"], errors);
    if spec.has("strategy") {
        strategy(&spec, errors);
    }
    if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
        spec.forbidden("preferredHolder", "may only be specified if `strategy` is defined", errors);
    }
}

const OLDEST: &str = "OldestEmulationVersion";

pub const LEASE_CANDIDATE: Rules = Rules {
    name: names::config_map_key,
    validate: |candidate, errors| {
        let spec = At::root(candidate).at("spec");
        spec.required_text("leaseName", errors);
        let version = |key: &str, errors: &mut FieldErrors| -> Option<[u64; 3]> {
            let text = spec.text(key);
            let parsed = semantic_version(text);
            if !text.is_empty() && parsed.is_none() {
                spec.invalid(key, "must be a valid semantic version", errors);
            }
            parsed
        };
        let emulated = version("emulationVersion", errors);
        if spec.required_text("binaryVersion", errors) {
            let binary = version("binaryVersion", errors).unwrap_or_default();
            let wanted = spec.text("emulationVersion");
            if !wanted.is_empty() && binary < emulated.unwrap_or_default() {
                let detail = "must be greater than or equal to `emulationVersion`";
                spec.invalid("binaryVersion", detail, errors);
            }
        }
        if spec.required_text("strategy", errors) {
            if spec.text("strategy") == OLDEST && emulated.unwrap_or_default() == [0; 3] {
                let detail = "must be specified when `strategy` is 'OldestEmulationVersion'";
                spec.required("emulationVersion", detail, errors);
            }
            strategy(&spec, errors);
        }
    },
    validate_update: |new, old, errors| {
        crate::registry::core::immutable(new, old, &["spec", "leaseName"], errors);
    },
    create_on_update: true,
    unconditional_update: false,
    ..Rules::PLAIN
};

/// The three numbers of `1.2.3`, with or without a pre-release or build.
fn semantic_version(text: &str) -> Option<[u64; 3]> {
    let core = text.split(['-', '+']).next()?;
    let numbers: Vec<u64> = core
        .split('.')
        .map(|part| (part == "0" || !part.starts_with('0')).then(|| part.parse().ok()).flatten())
        .collect::<Option<_>>()?;
    numbers.try_into().ok()
}
