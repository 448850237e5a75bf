//! Webhook configurations and admission policies as objects (`pkg/apis/admissionregistration`): their shape.
//!
//! Expressions must compile ([`expressions`]). What an old object already had wrong may stay, as upstream has it:
//! match conditions that an update leaves alone are left alone.

mod bindings;
mod expressions;
mod policies;
mod webhooks;

pub use bindings::{BINDING, MUTATING_BINDING};
pub use policies::{MUTATING_POLICY, POLICY};
pub use webhooks::{
    MUTATING_WEBHOOKS, REVIEW_VERSIONS, VALIDATING_WEBHOOKS, client as webhook_client, review_versions,
};

use common::status::FieldErrors;

use super::advice::reserved_name;
use super::checks::At;
use super::names;
use crate::cel::Type;
use crate::features::Features;
use crate::object::{self, Object};
use expressions::{Expressions, With};

const CONDITIONS_MAX: usize = 64;
const OPERATIONS: [&str; 5] = ["*", "CREATE", "UPDATE", "DELETE", "CONNECT"];

/// Names that belong to files cannot be made where files are read.
fn reserved(object: &Object, old: Option<&Object>, features: &Features, errors: &mut FieldErrors) {
    if old.is_none() && features.enabled("ManifestBasedAdmissionControlConfig") {
        let name = object::name(object);
        reserved_name(name).iter().for_each(|why| errors.invalid("metadata.name", name, why));
    }
}

/// Operations, groups, versions and resources that a hook or policy looks at.
fn rule(rule: &At<'_>, errors: &mut FieldErrors) {
    wildcard_alone(rule, "operations", "operations", errors);
    for (i, operation) in rule.strings("operations").iter().enumerate() {
        if !OPERATIONS.contains(operation) {
            errors.not_supported(format!("{}[{i}]", rule.under("operations")), operation, &OPERATIONS);
        }
    }
    wildcard_alone(rule, "apiGroups", "API groups", errors);
    wildcard_alone(rule, "apiVersions", "API versions", errors);
    for (i, version) in rule.strings("apiVersions").iter().enumerate() {
        if version.is_empty() {
            errors.required(format!("{}[{i}]", rule.under("apiVersions")), "");
        }
    }
    resources(rule, errors);
    rule.choice("scope", &["*", "Cluster", "Namespaced"], errors);
}

/// At least one item, and nothing beside a wildcard.
fn wildcard_alone(rule: &At<'_>, key: &str, what: &str, errors: &mut FieldErrors) {
    let list = rule.strings(key);
    if list.is_empty() {
        rule.required(key, "", errors);
    }
    if list.len() > 1 && list.contains(&"*") {
        rule.invalid(key, format!("if '*' is present, must not specify other {what}"), errors);
    }
}

fn resources(rule: &At<'_>, errors: &mut FieldErrors) {
    let list = rule.strings("resources");
    if list.is_empty() {
        rule.required("resources", "", errors);
    }
    let (mut whole, mut everywhere) = (Vec::new(), Vec::new());
    let mut plain = false;
    for (i, name) in list.iter().enumerate() {
        let path = format!("{}[{i}]", rule.under("resources"));
        if name.is_empty() {
            errors.required(path, "");
            continue;
        }
        let Some((resource, sub)) = name.split_once('/') else {
            plain = *name != "*";
            continue;
        };
        if whole.contains(&resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {name}");
            errors.invalid(&path, name, detail);
        }
        if everywhere.contains(&sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {name}");
            errors.invalid(&path, name, detail);
        }
        if sub == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            everywhere.push(sub);
        }
    }
    if list.len() > 1 && list.contains(&"*/*") {
        rule.invalid("resources", "if '*/*' is present, must not specify other resources", errors);
    }
    if list.contains(&"*") && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        rule.invalid("resources", detail, errors);
    }
}

/// `expressions` knows whether there are parameters, and no variables.
fn match_conditions(owner: &At<'_>, expressions: &Expressions, errors: &mut FieldErrors) {
    let conditions = owner.each("matchConditions");
    if conditions.len() > CONDITIONS_MAX {
        errors.too_many(owner.under("matchConditions"), conditions.len(), CONDITIONS_MAX);
    }
    for (i, condition) in conditions.iter().enumerate() {
        match condition.text("expression").trim() {
            "" => condition.required("expression", "", errors),
            text => {
                let field = condition.under("expression");
                expressions.check(field, text, text, With::Authorizer, &[Type::Bool], errors);
            }
        }
        let name = condition.text("name");
        condition.required_shaped("name", names::qualified_name, errors);
        if !name.is_empty() && conditions[..i].iter().any(|other| other.text("name") == name) {
            errors.duplicate(condition.under("name"), name);
        }
    }
}
