//! The storage group (`pkg/apis/storage`): classes, drivers, and what is attached where.

use common::status::FieldErrors;

use super::checks::At;
use super::core::{IMMUTABLE, immutable, volumes};
use super::names;
use super::others::defaults;
use super::pod_template::volume_sources::csi_driver_name;
use super::rules::{Rules, StatusRule};
use super::tree::{at, child_mut, default_to, field, items, remove, same, strings, text};
use crate::object::Object;

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
const ATTACHMENT_METADATA_BYTES_MAX: usize = 256 * 1024;
const ERROR_MESSAGE_BYTES_MAX: usize = 1024;
const NODE_ID_CHARACTERS_MAX: usize = 256;
const UPDATE_PERIOD_SECONDS_MIN: i64 = 10;

pub const STORAGE_CLASS: Rules = Rules {
    default: defaults::storage_class,
    warnings: super::advice::of_storage_class,
    validate: |class, errors| {
        let class = At::root(class);
        provisioner(&class, "provisioner", errors);
        parameters(&class, true, errors);
        if !class.text("reclaimPolicy").is_empty() {
            class.choice("reclaimPolicy", &["Delete", "Retain"], errors);
        }
        class.choice("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], errors);
        topologies(&class, errors);
    },
    update_validates: false,
    validate_update: |new, old, errors| {
        for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            immutable(new, old, &[key], errors);
        }
    },
    ..Rules::PLAIN
};

fn provisioner(owner: &At<'_>, key: &str, errors: &mut FieldErrors) {
    let name = owner.text(key);
    if name.is_empty() {
        owner.required(key, "", errors);
    } else {
        for message in names::qualified_name(&name.to_lowercase()) {
            errors.invalid(owner.under(key), name.to_lowercase(), message);
        }
    }
}

fn parameters(owner: &At<'_>, may_be_empty: bool, errors: &mut FieldErrors) {
    let path = owner.under("parameters");
    let all = owner.at("parameters");
    let entries = || all.value.as_object().into_iter().flatten();
    let count = entries().count();
    if count > PARAMETERS_MAX {
        errors.too_long(path, PARAMETERS_MAX);
        return;
    }
    if entries().any(|(key, _)| key.is_empty()) {
        errors.invalid(&path, "", "field can not be empty.");
    }
    let bytes: usize = entries().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > PARAMETERS_BYTES_MAX {
        errors.too_long(&path, PARAMETERS_BYTES_MAX);
    }
    if !may_be_empty && count == 0 {
        errors.required(path, "must contain at least one key/value pair");
    }
}

fn topologies(class: &At<'_>, errors: &mut FieldErrors) {
    let mut seen: Vec<Vec<(&str, Vec<&str>)>> = Vec::new();
    for term in class.each("allowedTopologies") {
        let mut keys: Vec<(&str, Vec<&str>)> = Vec::new();
        let requirements = term.each("matchLabelExpressions");
        for requirement in &requirements {
            let mut values = requirement.strings("values");
            if values.is_empty() {
                requirement.required("values", "", errors);
            }
            for (i, value) in values.iter().enumerate().filter(|(i, v)| values[..*i].contains(v)) {
                errors.duplicate(format!("{}[{i}]", requirement.under("values")), value);
            }
            let key = requirement.text("key");
            for message in names::qualified_name(key) {
                errors.invalid(requirement.under("key"), key, message);
            }
            if keys.iter().any(|(k, _)| *k == key) {
                errors.duplicate(requirement.under("key"), key);
            }
            values.sort_unstable();
            keys.push((key, values));
        }
        keys.sort();
        if !keys.is_empty() && seen.contains(&keys) {
            errors.duplicate(term.under("matchLabelExpressions"), "");
        }
        seen.push(keys);
    }
}

pub const VOLUME_ATTACHMENT: Rules = Rules {
    default: |attachment| {
        if let Some(spec) = attachment.pointer_mut("/spec/source/inlineVolumeSpec") {
            volumes::default_source(spec);
        }
    },
    validate: |attachment, errors| {
        let root = At::root(attachment);
        let spec = root.at("spec");
        csi_driver_name(&spec, "attacher", errors);
        attachment_source(&spec.at("source"), errors);
        spec.shaped("nodeName", names::dns1123_subdomain, errors);
        attachment_status(&root.at("status"), errors);
    },
    validate_update: |new, old, errors| immutable(new, old, &["spec"], errors),
    validate_status: |new, _, errors| attachment_status(&At::root(new).at("status"), errors),
    prepare_create: |attachment| {
        super::tree::set(attachment, "status", serde_json::json!({"attached": false}));
    },
    status: StatusRule::Split,
    unconditional_update: false,
    ..Rules::PLAIN
};

fn attachment_source(source: &At<'_>, errors: &mut FieldErrors) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.has("inlineVolumeSpec"), source.has("persistentVolumeName")) {
        (false, false) => errors.required(&source.path, ONE),
        (true, true) => errors.forbidden(&source.path, ONE),
        (false, true) if source.text("persistentVolumeName").is_empty() => {
            source.required("persistentVolumeName", "must specify non empty persistentVolumeName", errors);
        }
        (false, true) => source.shaped("persistentVolumeName", names::dns1123_subdomain, errors),
        (true, false) => volumes::inline_spec(&source.at("inlineVolumeSpec"), errors),
    }
}

fn attachment_status(status: &At<'_>, errors: &mut FieldErrors) {
    let metadata = status.at("attachmentMetadata");
    let bytes: usize = metadata
        .value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if bytes > ATTACHMENT_METADATA_BYTES_MAX {
        errors.too_long(metadata.path, ATTACHMENT_METADATA_BYTES_MAX);
    }
    for key in ["attachError", "detachError"] {
        let error = status.at(key);
        if error.text("message").len() > ERROR_MESSAGE_BYTES_MAX {
            errors.too_long(error.under("message"), ATTACHMENT_METADATA_BYTES_MAX);
        }
        error.between("errorCode", 0, i64::from(i32::MAX), errors);
    }
}

pub const CSI_NODE: Rules = Rules {
    validate: |node, errors| {
        let drivers = At::root(node).at("spec").each("drivers");
        for (i, driver) in drivers.iter().enumerate() {
            csi_driver_name(driver, "name", errors);
            let id = driver.text("nodeID");
            if id.is_empty() {
                driver.required("nodeID", "", errors);
            }
            if id.len() > NODE_ID_CHARACTERS_MAX {
                let detail = format!("must be {NODE_ID_CHARACTERS_MAX} characters or less");
                driver.invalid("nodeID", detail, errors);
            }
            driver.at("allocatable").nonnegative(&["count"], errors);
            if drivers[..i].iter().any(|other| other.text("name") == driver.text("name")) {
                errors.duplicate(driver.under("name"), driver.text("name"));
            }
            let keys = driver.strings("topologyKeys");
            for (j, key) in keys.iter().enumerate() {
                if key.is_empty() {
                    errors.required(&driver.path, "");
                }
                if keys[..j].contains(key) {
                    errors.duplicate(&driver.path, key);
                }
                for message in names::qualified_name(key) {
                    errors.invalid(&driver.path, key, message);
                }
            }
        }
    },
    validate_update: |new, old, errors| {
        let drivers = |object: &Object| items(field(object, "spec"), "drivers").to_vec();
        for mut before in drivers(old) {
            remove(&mut before, "allocatable");
            for mut now in drivers(new) {
                remove(&mut now, "allocatable");
                if text(&now, "name") == text(&before, "name") && !same(&now, &before) {
                    errors.invalid("spec.drivers", &now, IMMUTABLE);
                }
            }
        }
    },
    unconditional_update: false,
    ..Rules::PLAIN
};

pub const CSI_DRIVER: Rules = Rules {
    default: defaults::csi_driver,
    gated_default: |driver, features| {
        let spec = child_mut(driver, "spec").filter(|_| features.enabled("VolumeLimitScaling"));
        if let Some(spec) = spec {
            default_to(spec, "preventPodSchedulingIfMissing", false);
        }
    },
    warnings: super::advice::of_csi_driver,
    // Counted from its first change on.
    prepare_create: |driver| {
        crate::object::metadata_mut(driver).remove("generation");
    },
    validate: |driver, errors| driver_spec(&At::root(driver).at("spec"), errors),
    validate_update: |new, old, errors| {
        for (key, shown) in
            [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            let (now, then) = (at(new, &["spec", key]), at(old, &["spec", key]));
            if !same(now, then) {
                errors.invalid(format!("spec.{shown}"), now, IMMUTABLE);
            }
        }
    },
    unconditional_update: false,
    ..Rules::COUNTED
};

fn driver_spec(spec: &At<'_>, errors: &mut FieldErrors) {
    for (key, shown) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        if !spec.has(key) {
            spec.required(shown, "", errors);
        }
    }
    spec.choice("fsGroupPolicy", &["ReadWriteOnceWithFSType", "File", "None"], errors);
    let requests = spec.each("tokenRequests");
    for (i, request) in requests.iter().enumerate() {
        let audience = request.text("audience");
        if requests[..i].iter().any(|other| other.text("audience") == audience) {
            errors.duplicate(request.under("audience"), audience);
            continue;
        }
        match request.int("expirationSeconds") {
            Some(seconds) if seconds < 600 => {
                let detail = "may not specify a duration less than 10 minutes";
                request.invalid("expirationSeconds", detail, errors);
            }
            Some(seconds) if seconds > 1 << 32 => {
                let detail = "may not specify a duration larger than 2^32 seconds";
                request.invalid("expirationSeconds", detail, errors);
            }
            _ => {}
        }
    }
    let modes = ["Persistent", "Ephemeral"];
    for mode in strings(spec.value, "volumeLifecycleModes").iter().filter(|mode| !modes.contains(mode)) {
        errors.not_supported(spec.under("volumeLifecycleModes"), mode, &modes);
    }
    if !spec.has("seLinuxMount") {
        spec.required("seLinuxMount", "", errors);
    }
    let period = "nodeAllocatableUpdatePeriodSeconds";
    if spec.int(period).is_some_and(|seconds| seconds < UPDATE_PERIOD_SECONDS_MIN) {
        spec.invalid(period, "must be greater than or equal to 10 seconds", errors);
    }
    let secrets = "serviceAccountTokenInSecrets";
    if spec.has(secrets) && requests.is_empty() {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        spec.invalid(secrets, detail, errors);
    }
}

pub const CSI_STORAGE_CAPACITY: Rules = Rules {
    warnings: super::advice::of_storage_capacity,
    validate: |capacity, errors| {
        let capacity = At::root(capacity);
        capacity.selector("nodeTopology", errors);
        capacity.shaped("storageClassName", names::dns1123_subdomain, errors);
        capacity.nonnegative_quantity("capacity", errors);
    },
    update_validates: false,
    validate_update: |new, old, errors| {
        for key in ["nodeTopology", "storageClassName"] {
            immutable(new, old, &[key], errors);
        }
    },
    unconditional_update: false,
    ..Rules::PLAIN
};

pub const VOLUME_ATTRIBUTES_CLASS: Rules = Rules {
    validate: attributes_class,
    update_validates: false,
    validate_update: |new, old, errors| {
        for key in ["driverName", "parameters"] {
            if !same(field(new, key), field(old, key)) {
                errors.forbidden(key, format!("updates to {key} are forbidden."));
            }
        }
        attributes_class(new, errors);
    },
    ..Rules::PLAIN
};

fn attributes_class(class: &Object, errors: &mut FieldErrors) {
    let class = At::root(class);
    provisioner(&class, "driverName", errors);
    parameters(&class, false, errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use serde_json::{Value, json};

    fn check(rules: Rules, object: Value, expected: &[&str]) {
        assert_eq!(found(rules, &object), expected, "{object}");
    }

    #[test]
    fn bad_objects_are_refused_in_upstreams_words() {
        let class = json!({"provisioner": "a.b/c"});
        check(STORAGE_CLASS, class.clone(), &[]);
        check(STORAGE_CLASS, json!({}), &["provisioner: Required value"]);
        check(
            STORAGE_CLASS,
            json!({"provisioner": "a.b/c", "volumeBindingMode": "Late"}),
            &[
                "volumeBindingMode: Unsupported value: \"Late\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
            ],
        );
        assert_eq!(
            found_on_update(STORAGE_CLASS, &class, |c| c["provisioner"] = json!("d.e/f")),
            ["provisioner: Invalid value: \"d.e/f\": field is immutable"]
        );
        check(
            VOLUME_ATTACHMENT,
            json!({"spec": {"attacher": "a", "nodeName": "n", "source": {}}}),
            &[
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            ],
        );
        check(
            CSI_NODE,
            json!({"spec": {"drivers": [{"name": "a", "nodeID": ""}, {"name": "a", "nodeID": "x"}]}}),
            &["spec.drivers[0].nodeID: Required value", "spec.drivers[1].name: Duplicate value: \"a\""],
        );
        check(CSI_DRIVER, json!({"spec": {}}), &[]);
        check(
            CSI_DRIVER,
            json!({"spec": {"fsGroupPolicy": "X", "tokenRequests": [{"audience": "a", "expirationSeconds": 5}]}}),
            &[
                "spec.fsGroupPolicy: Unsupported value: \"X\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
            ],
        );
        check(
            CSI_STORAGE_CAPACITY,
            json!({"storageClassName": "a", "capacity": "-1"}),
            &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
        check(
            VOLUME_ATTRIBUTES_CLASS,
            json!({"driverName": "d"}),
            &["parameters: Required value: must contain at least one key/value pair"],
        );
    }
}
