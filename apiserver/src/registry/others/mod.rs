//! The smaller groups: leases, certificates, scheduling and node classes, storage versions; and the defaults of
//! groups whose rules stand elsewhere.

pub mod certificates;
pub mod defaults;
pub mod pod_certificates;
pub mod pod_groups;
pub mod public_keys;
pub mod scheduling;
pub mod signer_names;
pub mod storage_versions;
pub mod trust_bundles;
pub mod user_annotations;

use common::status::FieldErrors;
use semver::Version;

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
        // 0.0.0 for what is none.
        let version = |key: &str, errors: &mut FieldErrors| -> Version {
            let text = spec.text(key);
            let parsed = Version::parse(text).ok();
            if !text.is_empty() && parsed.is_none() {
                spec.invalid(key, "must be a valid semantic version", errors);
            }
            parsed.unwrap_or(Version::new(0, 0, 0))
        };
        let emulated = version("emulationVersion", errors);
        if spec.required_text("binaryVersion", errors) {
            let binary = version("binaryVersion", errors);
            if !spec.text("emulationVersion").is_empty() && binary.cmp_precedence(&emulated).is_lt() {
                let detail = "must be greater than or equal to `emulationVersion`";
                spec.invalid("binaryVersion", detail, errors);
            }
        }
        if spec.required_text("strategy", errors) {
            if spec.text("strategy") == OLDEST && emulated.cmp_precedence(&Version::new(0, 0, 0)).is_eq() {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::checks::found;

    #[test]
    fn candidates_have_versions_in_order() {
        let check = |binary: &str, emulated: &str, expected: &[&str]| {
            let spec = json!({"leaseName": "l", "binaryVersion": binary, "emulationVersion": emulated,
                "strategy": OLDEST});
            assert_eq!(found(LEASE_CANDIDATE, &json!({ "spec": spec })), expected, "{binary} {emulated}");
        };
        check("1.36.0", "1.35.0", &[]);
        check("1.36.0+build.1", "1.36.0+build.2", &[]);
        check(
            "1.36.0-alpha.1",
            "1.36.0",
            &[
                "spec.binaryVersion: Invalid value: \"1.36.0-alpha.1\": must be greater than or equal to `emulationVersion`",
            ],
        );
        check(
            "1.36",
            "01.1.1",
            &[
                "spec.emulationVersion: Invalid value: \"01.1.1\": must be a valid semantic version",
                "spec.binaryVersion: Invalid value: \"1.36\": must be a valid semantic version",
                "spec.emulationVersion: Required value: must be specified when `strategy` is 'OldestEmulationVersion'",
            ],
        );
    }

    #[test]
    fn bad_leases_are_refused_in_upstreams_words() {
        let check = |spec: Value, expected: &[&str]| {
            assert_eq!(found(LEASE, &json!({ "spec": spec })), expected);
        };
        check(json!({"leaseDurationSeconds": 1, "leaseTransitions": 0, "strategy": "example.com/s"}), &[]);
        check(
            json!({"leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "h"}),
            &[
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
            ],
        );
        check(
            json!({"strategy": ""}),
            &[
                "spec.strategy.strategy: Unsupported value: \"\": supported values: \"OldestEmulationVersion\"",
            ],
        );
    }
}
