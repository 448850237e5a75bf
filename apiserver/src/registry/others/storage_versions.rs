//! StorageVersions, in which servers say how they encode a resource, and migrations from one version to another.

use common::status::FieldErrors;

use crate::object::Object;
use crate::registry::checks::At;
use crate::registry::conditions::conditions;
use crate::registry::core::{IMMUTABLE, immutable};
use crate::registry::names;
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree::{at, items, text};

pub const STORAGE_VERSION: Rules = Rules {
    name: storage_version_name,
    validate_status: |new, _, errors| {
        let status = At::root(new).at("status");
        servers(&status, errors);
        common_version(&status, errors);
        version_conditions(&status, errors);
    },
    update_validates: false,
    status: StatusRule::Split,
    unconditional_update: false,
    ..Rules::PLAIN
};

/// `<group>.<resource>`.
fn storage_version_name(name: &str) -> Vec<String> {
    let Some((group, resource)) = name.rsplit_once('.') else {
        return vec!["name must be in the form of <group>.<resource>".to_owned()];
    };
    let mut out: Vec<String> =
        names::dns1123_subdomain(group).into_iter().map(|m| format!("the group segment {m}")).collect();
    out.extend(names::dns1035_label(resource).into_iter().map(|m| format!("the resource segment {m}")));
    out
}

/// `[group/]version`; all that is wrong, separated by commas.
fn api_version(version: &str, at: String, errors: &mut FieldErrors) {
    let wrong = wrong_with_version(version);
    if !wrong.is_empty() {
        errors.invalid(at, version, wrong.join(","));
    }
}

fn wrong_with_version(api_version: &str) -> Vec<String> {
    const SHAPE: &str = "an apiVersion is a DNS-1035 label, which must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyVersion')";
    let mut part = Vec::new();
    let version = match api_version.split('/').collect::<Vec<_>>().as_slice() {
        [version] => *version,
        [group, version] => {
            part.push(("group", *group, names::dns1123_subdomain as fn(&str) -> Vec<String>));
            *version
        }
        _ => return vec![SHAPE.to_owned()],
    };
    part.push(("version", version, names::dns1035_label));
    part.into_iter()
        .flat_map(|(name, text, check)| {
            let messages = if text.is_empty() { vec!["must be non-empty".to_owned()] } else { check(text) };
            messages.into_iter().map(move |message| format!("{name} part: {message}"))
        })
        .collect()
}

fn servers(status: &At<'_>, errors: &mut FieldErrors) {
    let servers = status.each("storageVersions");
    for (i, server) in servers.iter().enumerate() {
        let id = server.text("apiServerID");
        if servers[..i].iter().any(|other| other.text("apiServerID") == id) {
            errors.duplicate(server.under("apiServerID"), id);
        }
        server.shaped("apiServerID", names::dns1123_subdomain, errors);
        let encoding = server.text("encodingVersion");
        api_version(encoding, server.under("encodingVersion"), errors);
        let place = |key: &str, i: usize| format!("{}[{i}]", server.under(key));
        let decodable = server.strings("decodableVersions");
        for (i, version) in decodable.iter().enumerate() {
            api_version(version, place("decodableVersions", i), errors);
        }
        if !decodable.contains(&encoding) {
            let detail = format!("decodableVersions must include encodingVersion {encoding}");
            server.invalid("decodableVersions", detail, errors);
        }
        for (i, version) in server.strings("servedVersions").iter().enumerate() {
            let here = place("servedVersions", i);
            api_version(version, here.clone(), errors);
            if !decodable.contains(version) {
                let all = decodable.join(" ");
                let detail = format!(
                    "individual served version : {version} must be included in decodableVersions : [{all}]"
                );
                errors.invalid(here, version, detail);
            }
        }
    }
}

/// It is said when all servers agree, and only then.
fn common_version(status: &At<'_>, errors: &mut FieldErrors) {
    const KEY: &str = "commonEncodingVersion";
    let servers = items(status.value, "storageVersions");
    let first = servers.first().map(|server| text(server, "encodingVersion"));
    let actual = first.filter(|first| servers.iter().all(|s| text(s, "encodingVersion") == *first));
    match (actual, status.has(KEY)) {
        (None, true) => {
            let detail = "should be nil if servers do not agree on the same encoding version, or if there is no server reporting the supported versions yet";
            status.invalid(KEY, detail, errors);
        }
        (Some(actual), false) => {
            status.invalid(KEY, format!("the common encoding version is {actual}"), errors);
        }
        (Some(actual), true) if actual != status.text(KEY) => {
            status.invalid(KEY, format!("the actual common encoding version is {actual}"), errors);
        }
        _ => {}
    }
}

/// Types and statuses of any name; upstream leaves `conditions` out of the paths.
fn version_conditions(status: &At<'_>, errors: &mut FieldErrors) {
    let list = items(status.value, "conditions");
    for (i, value) in list.iter().enumerate() {
        let condition = At { value, path: format!("{}[{i}]", status.path) };
        let kind = condition.text("type");
        if let Some(twin) = list[..i].iter().rposition(|other| text(other, "type") == kind) {
            let detail =
                format!("the type of the condition is not unique, it also appears in conditions[{twin}]");
            condition.invalid("type", detail, errors);
        }
        condition.shaped("type", names::qualified_name, errors);
        condition.shaped("status", names::qualified_name, errors);
        condition.required_text("reason", errors);
        condition.required_text("message", errors);
    }
}

pub const MIGRATION: Rules = Rules {
    validate: |migration, errors| {
        let resource = At::root(migration).at("spec").at("resource");
        let joined = |key: &str, check: fn(&str) -> Vec<String>, errors: &mut FieldErrors| {
            let messages = check(resource.text(key));
            if !messages.is_empty() {
                resource.invalid(key, messages.join(","), errors);
            }
        };
        if resource.text("resource").is_empty() {
            resource.required("resource", "resource is required to be set", errors);
        } else {
            joined("resource", names::dns1035_label, errors);
        }
        if !resource.text("group").is_empty() {
            joined("group", names::dns1123_subdomain, errors);
        }
    },
    validate_update: |new, old, errors| immutable(new, old, &["spec"], errors),
    validate_status: migration_status,
    status: StatusRule::Split,
    unconditional_update: false,
    ..Rules::PLAIN
};

fn migration_status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let status = At::root(new).at("status");
    let (version, before) = (status.text("resourceVersion"), text(at(old, &["status"]), "resourceVersion"));
    if !version.is_empty()
        && let Some(wrong) = wrong_with_revision(version)
    {
        status.invalid("resourceVersion", wrong, errors);
    }
    conditions(&status, errors);
    if !before.is_empty() && before != version {
        errors.invalid(status.under("resourceVersion"), version, IMMUTABLE);
    }
    let is = |migration: &Object, kind: &str| {
        let all = items(at(migration, &["status"]), "conditions");
        all.iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
    };
    let mut refuse = |detail: &str| status.invalid("conditions", detail, errors);
    if is(new, "Succeeded") && is(new, "Failed") {
        refuse("Both success and failed conditions cannot be true at the same time");
    }
    if is(old, "Succeeded") && !is(new, "Succeeded") {
        refuse("Success condition cannot be set to false once it is true");
    }
    if is(old, "Failed") && !is(new, "Failed") {
        refuse("Failed condition cannot be set to false once it is true");
    }
}

/// A resourceVersion is a whole number above zero without leading zeros, of any length.
fn wrong_with_revision(version: &str) -> Option<String> {
    let fits = !version.starts_with('0') && version.bytes().all(|b| b.is_ascii_digit());
    (!fits).then(|| format!("resource version is not well formed: {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use crate::registry::rules::StatusStrategy;
    use crate::resources::Strategy;
    use serde_json::{Value, json};

    fn status(rules: Rules, old: Value, new: Value) -> Vec<String> {
        let old = json!({"metadata": {}, "status": old});
        let mut new = json!({"metadata": {}, "status": new});
        let strategy = StatusStrategy::new(rules, &[]);
        strategy.prepare_for_update(&mut new, &old);
        strategy.validate_update(&new, &old).0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_storage_version_names_a_resource() {
        assert_eq!(storage_version_name("apps.deployments"), [""; 0]);
        assert_eq!(storage_version_name("x"), ["name must be in the form of <group>.<resource>"]);
        let wrong = storage_version_name("apps.2");
        assert_eq!(wrong, [format!("the resource segment {}", names::DNS1035_MESSAGE)]);
    }

    #[test]
    fn servers_say_what_they_can_decode() {
        let server =
            json!({"apiServerID": "a", "encodingVersion": "apps/v1", "decodableVersions": ["apps/v1"]});
        let check = |new: Value, expected: &[&str]| {
            assert_eq!(status(STORAGE_VERSION, json!({}), new), expected);
        };
        check(json!({"storageVersions": [server], "commonEncodingVersion": "apps/v1"}), &[]);
        check(
            json!({"storageVersions": [server]}),
            &["status.commonEncodingVersion: Invalid value: null: the common encoding version is apps/v1"],
        );
        let other = json!({"apiServerID": "a", "encodingVersion": "v2", "decodableVersions": ["v1"],
            "servedVersions": ["v2"]});
        check(
            json!({"storageVersions": [server, other], "commonEncodingVersion": "v1"}),
            &[
                "status.storageVersions[1].apiServerID: Duplicate value: \"a\"",
                "status.storageVersions[1].decodableVersions: Invalid value: [\"v1\"]: decodableVersions must include encodingVersion v2",
                "status.storageVersions[1].servedVersions[0]: Invalid value: \"v2\": individual served version : v2 must be included in decodableVersions : [v1]",
                "status.commonEncodingVersion: Invalid value: \"v1\": should be nil if servers do not agree on the same encoding version, or if there is no server reporting the supported versions yet",
            ],
        );
        check(
            json!({"conditions": [{"type": "A", "status": "True", "reason": "R", "message": "m"},
                {"type": "A", "status": "True", "reason": "R"}]}),
            &[
                "status[1].type: Invalid value: \"A\": the type of the condition is not unique, it also appears in conditions[0]",
                "status[1].message: Required value",
            ],
        );
        assert_eq!(wrong_with_version("/v1"), ["group part: must be non-empty"]);
        assert_eq!(wrong_with_version("a/b/c").len(), 1);
    }

    #[test]
    fn a_migration_is_of_one_resource() {
        let migration = json!({"spec": {"resource": {"group": "apps", "resource": "deployments"}}});
        assert_eq!(found(MIGRATION, &migration), [""; 0]);
        assert_eq!(
            found(MIGRATION, &json!({"spec": {"resource": {"group": "A"}}})),
            [
                "spec.resource.resource: Required value: resource is required to be set".to_owned(),
                format!("spec.resource.group: Invalid value: \"A\": {}", names::SUBDOMAIN_MESSAGE),
            ]
        );
        let errors =
            found_on_update(MIGRATION, &migration, |new| new["spec"]["resource"]["resource"] = json!("pods"));
        assert!(errors[0].starts_with("spec: Invalid value: ") && errors[0].ends_with(IMMUTABLE));
    }

    #[test]
    fn a_migration_ends_once() {
        let with = |kinds: &[&str]| {
            let condition = |kind: &&str| json!({"type": kind, "status": "True", "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"});
            json!({"resourceVersion": "5", "conditions": kinds.iter().map(condition).collect::<Vec<_>>()})
        };
        assert_eq!(status(MIGRATION, json!({}), with(&["Running"])), [""; 0]);
        let errors = status(MIGRATION, with(&["Succeeded"]), with(&["Failed"]));
        assert!(errors[0].ends_with("Success condition cannot be set to false once it is true"));
        let errors = status(MIGRATION, json!({}), with(&["Failed", "Succeeded"]));
        assert!(errors[0].ends_with("Both success and failed conditions cannot be true at the same time"));
        let moved = status(MIGRATION, json!({"resourceVersion": "4"}), json!({"resourceVersion": "5"}));
        assert_eq!(moved, ["status.resourceVersion: Invalid value: \"5\": field is immutable"]);
        assert_eq!(
            status(MIGRATION, json!({}), json!({"resourceVersion": "01"})),
            ["status.resourceVersion: Invalid value: \"01\": resource version is not well formed: 01"]
        );
    }
}
