//! Workloads and PodGroups: pods that are scheduled together. Their rules are declared on the types upstream
//! (`zz_generated.validations.go`), so what stays as it was is never checked again.

use common::status::FieldErrors;
use serde_json::Value;

use crate::registry::checks::At;
use crate::registry::conditions::conditions;
use crate::registry::core::IMMUTABLE;
use crate::registry::names;
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree::{default_to, field, items, same, struct_mut, text};

const TEMPLATES_MAX: usize = 8;
const CLAIMS_MAX: usize = 4;
const TOPOLOGIES_MAX: usize = 1;
const PRIORITY_MAX: i64 = 1_000_000_000;

pub const WORKLOAD: Rules = Rules {
    validate: |workload, errors| {
        let spec = At::root(workload).at("spec");
        let owner = spec.at("controllerRef");
        if owner.present() {
            owner.shaped_if_set("apiGroup", names::dns1123_subdomain, errors);
            owner.required_shaped("kind", names::path_segment, errors);
            owner.required_shaped("name", names::path_segment, errors);
        }
        let templates = spec.each("podGroupTemplates");
        if templates.is_empty() {
            spec.required("podGroupTemplates", "", errors);
        } else if unique(&spec, "podGroupTemplates", TEMPLATES_MAX, errors) {
            for template in templates {
                template.required_shaped("name", names::dns1123_label, errors);
                policy(&template.at("schedulingPolicy"), errors);
                scheduling(&template, errors);
            }
        }
    },
    update_validates: false,
    validate_update: |new, old, errors| {
        fixed(&At::root(new).at("spec"), field(old, "spec"), &["controllerRef", "podGroupTemplates"], errors);
    },
    ..Rules::PLAIN
};

pub const POD_GROUP: Rules = Rules {
    default: |group| {
        if let Some(spec) = struct_mut(group, "spec") {
            default_to(spec, "disruptionMode", "Pod");
        }
    },
    validate: |group, errors| {
        let spec = At::root(group).at("spec");
        let template = spec.at("podGroupTemplateRef");
        if template.present() {
            union(&template, &["workload"], errors);
            let workload = template.at("workload");
            if workload.present() {
                workload.required_shaped("workloadName", names::dns1123_subdomain, errors);
                workload.required_shaped("podGroupTemplateName", names::dns1123_label, errors);
            }
        }
        policy(&spec.at("schedulingPolicy"), errors);
        scheduling(&spec, errors);
    },
    update_validates: false,
    validate_update: |new, old, errors| {
        let keys = [
            "podGroupTemplateRef",
            "schedulingPolicy",
            "schedulingConstraints",
            "resourceClaims",
            "disruptionMode",
            "priorityClassName",
            "priority",
        ];
        fixed(&At::root(new).at("spec"), field(old, "spec"), &keys, errors);
    },
    validate_status: |new, old, errors| {
        let status = At::root(new).at("status");
        conditions(&status, errors);
        let known = items(field(new, "spec"), "resourceClaims");
        let claims = status.each("resourceClaimStatuses");
        for claim in &claims {
            if !known.iter().any(|one| text(one, "name") == claim.text("name")) {
                let detail = "must match the name of an entry in `spec.resourceClaims`";
                errors.invalid(claim.under("name"), claim.text("name"), detail);
            }
        }
        let before = field(field(old, "status"), "resourceClaimStatuses");
        if !same(field(status.value, "resourceClaimStatuses"), before)
            && unique(&status, "resourceClaimStatuses", CLAIMS_MAX, errors)
        {
            for claim in claims.iter().filter(|claim| claim.has("resourceClaimName")) {
                claim.shaped("resourceClaimName", names::dns1123_subdomain, errors);
            }
        }
    },
    status: StatusRule::Split,
    ..Rules::PLAIN
};

/// Fields that stay as they were made.
fn fixed(new: &At<'_>, old: &Value, keys: &[&str], errors: &mut FieldErrors) {
    for key in keys {
        if !same(field(new.value, key), field(old, key)) {
            errors.invalid(new.under(key), Value::Null, IMMUTABLE);
        }
    }
}

/// A list that is not too long, with no name twice; its items are looked at only when it is short enough.
fn unique(owner: &At<'_>, key: &str, most: usize, errors: &mut FieldErrors) -> bool {
    let list = owner.each(key);
    if list.len() > most {
        errors.too_many(owner.under(key), list.len(), most);
        return false;
    }
    for (i, item) in list.iter().enumerate() {
        let name = item.text("name");
        if list[..i].iter().any(|other| other.text("name") == name) {
            errors.duplicate(&item.path, item.value);
        }
    }
    true
}

/// Exactly one of a few fields.
fn union(owner: &At<'_>, members: &[&str], errors: &mut FieldErrors) {
    let set: Vec<&str> = members.iter().copied().filter(|key| owner.has(key)).collect();
    let all: Vec<String> = members.iter().map(|key| format!("`{key}`")).collect();
    match set.len() {
        0 => errors.invalid(&owner.path, "", format!("must specify one of: {}", all.join(", "))),
        1 => {}
        _ => errors.invalid(
            &owner.path,
            format!("{{{}}}", set.join(", ")),
            format!("must specify exactly one of: {}", all.join(", ")),
        ),
    }
}

fn policy(policy: &At<'_>, errors: &mut FieldErrors) {
    union(policy, &["basic", "gang"], errors);
    let gang = policy.at("gang");
    if gang.present() {
        match gang.int("minCount").unwrap_or(0) {
            0 => gang.required("minCount", "", errors),
            _ => gang.at_least(&["minCount"], 1, errors),
        }
    }
}

/// What a group and a template of one have in common.
fn scheduling(owner: &At<'_>, errors: &mut FieldErrors) {
    let constraints = owner.at("schedulingConstraints");
    let topologies = constraints.each("topology");
    if topologies.len() > TOPOLOGIES_MAX {
        errors.too_many(constraints.under("topology"), topologies.len(), TOPOLOGIES_MAX);
    } else {
        topologies.iter().for_each(|one| one.required_shaped("key", names::qualified_name, errors));
    }
    if unique(owner, "resourceClaims", CLAIMS_MAX, errors) {
        for claim in owner.each("resourceClaims") {
            union(&claim, &["resourceClaimName", "resourceClaimTemplateName"], errors);
            claim.required_shaped("name", names::dns1123_label, errors);
            for key in ["resourceClaimName", "resourceClaimTemplateName"] {
                if claim.has(key) {
                    claim.shaped(key, names::dns1123_subdomain, errors);
                }
            }
        }
    }
    owner.choice("disruptionMode", &["Pod", "PodGroup"], errors);
    owner.shaped_if_set("priorityClassName", names::dns1123_subdomain, errors);
    if let Some(priority) = owner.int("priority").filter(|p| *p > PRIORITY_MAX) {
        let detail = format!("must be less than or equal to {PRIORITY_MAX}");
        errors.invalid(owner.under("priority"), priority, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use crate::registry::rules::StatusStrategy;
    use crate::resources::Strategy;
    use serde_json::json;

    #[test]
    fn bad_workloads_are_refused_in_upstreams_words() {
        let check = |spec: Value, expected: &[&str]| {
            assert_eq!(found(WORKLOAD, &json!({"spec": spec})), expected);
        };
        let template = |policy: Value| json!([{"name": "t", "schedulingPolicy": policy}]);
        check(json!({"podGroupTemplates": template(json!({"gang": {"minCount": 2}}))}), &[]);
        check(json!({}), &["spec.podGroupTemplates: Required value"]);
        let here = "spec.podGroupTemplates[0].schedulingPolicy";
        check(
            json!({"podGroupTemplates": template(json!({})), "controllerRef": {"name": "a/b"}}),
            &[
                "spec.controllerRef.kind: Required value",
                "spec.controllerRef.name: Invalid value: \"a/b\": may not contain '/'",
                &format!("{here}: Invalid value: \"\": must specify one of: `basic`, `gang`"),
            ],
        );
        check(
            json!({"podGroupTemplates": template(json!({"basic": {}, "gang": {"minCount": -1}}))}),
            &[
                &format!(
                    "{here}: Invalid value: \"{{basic, gang}}\": must specify exactly one of: `basic`, `gang`"
                ),
                &format!("{here}.gang.minCount: Invalid value: -1: must be greater than or equal to 1"),
            ],
        );
        let templates: Vec<Value> = (0..9).map(|i| json!({"name": format!("t{i}")})).collect();
        check(
            json!({"podGroupTemplates": templates}),
            &["spec.podGroupTemplates: Too many: 9: must have at most 8 items"],
        );
    }

    fn group() -> Value {
        json!({"metadata": {}, "spec": {"schedulingPolicy": {"basic": {}},
            "resourceClaims": [{"name": "c", "resourceClaimName": "x"}]}})
    }

    #[test]
    fn a_group_stays_as_it_was_made() {
        assert_eq!(found(POD_GROUP, &group()), [""; 0]);
        let mut defaulted = group();
        (POD_GROUP.default)(&mut defaulted);
        assert_eq!(defaulted["spec"]["disruptionMode"], "Pod");
        let errors = found_on_update(POD_GROUP, &group(), |new| {
            new["spec"]["disruptionMode"] = json!("PodGroup");
            new["spec"]["priority"] = json!(1);
        });
        assert_eq!(
            errors,
            [
                "spec.disruptionMode: Invalid value: null: field is immutable",
                "spec.priority: Invalid value: null: field is immutable"
            ]
        );
        let mut bad = group();
        bad["spec"]["schedulingConstraints"] = json!({"topology": [{"key": "a"}, {"key": "b"}]});
        bad["spec"]["resourceClaims"] = json!([{"name": "c"}]);
        bad["spec"]["podGroupTemplateRef"] = json!({});
        bad["spec"]["priority"] = json!(2_000_000_000);
        assert_eq!(
            found(POD_GROUP, &bad),
            [
                "spec.podGroupTemplateRef: Invalid value: \"\": must specify one of: `workload`",
                "spec.schedulingConstraints.topology: Too many: 2: must have at most 1 item",
                "spec.resourceClaims[0]: Invalid value: \"\": must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                "spec.priority: Invalid value: 2000000000: must be less than or equal to 1000000000",
            ]
        );
    }

    #[test]
    fn statuses_name_the_groups_claims() {
        let mut new = group();
        new["status"] =
            json!({"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "X"}, {"name": "d"}]});
        let strategy = StatusStrategy::new(POD_GROUP, &[]);
        strategy.prepare_for_update(&mut new, &group());
        let errors = strategy.validate_update(&new, &group());
        let errors: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "status.resourceClaimStatuses[1].name: Invalid value: \"d\": must match the name of an entry in `spec.resourceClaims`".to_owned(),
                format!("status.resourceClaimStatuses[0].resourceClaimName: Invalid value: \"X\": {}", names::SUBDOMAIN_MESSAGE),
            ]
        );
    }
}
