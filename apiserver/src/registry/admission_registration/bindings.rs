//! Bindings of admission policies: where a policy holds, with what parameters.

use common::status::FieldErrors;

use super::policies::{BASE, match_resources, no_deletes};
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::others::defaults;
use crate::registry::rules::Rules;

pub const BINDING: Rules = Rules {
    default: defaults::admission_policy_binding,
    validate: |binding, errors| {
        let spec = At::root(binding).at("spec");
        binding_spec(&spec, errors);
        let actions = spec.strings("validationActions");
        let known = ["Deny", "Warn", "Audit"];
        for (i, action) in actions.iter().enumerate() {
            let path = format!("{}[{i}]", spec.under("validationActions"));
            if !known.contains(action) {
                errors.not_supported(&path, action, &known);
            }
            if actions[..i].contains(action) {
                errors.duplicate(&path, action);
            }
        }
        if actions.contains(&"Deny") && actions.contains(&"Warn") {
            spec.invalid("validationActions", "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)", errors);
        }
        if actions.is_empty() {
            spec.required("validationActions", "at least one validation action is required", errors);
        }
    },
    ..BASE
};

pub const MUTATING_BINDING: Rules = Rules {
    default: defaults::admission_policy_binding,
    validate: |binding, errors| {
        let spec = At::root(binding).at("spec");
        binding_spec(&spec, errors);
        no_deletes(&spec.at("matchResources"), errors);
    },
    ..BASE
};

fn binding_spec(spec: &At<'_>, errors: &mut FieldErrors) {
    spec.required_shaped("policyName", names::dns1123_subdomain, errors);
    let reference = spec.at("paramRef");
    if reference.present() {
        let (named, selected) = (!reference.text("name").is_empty(), reference.has("selector"));
        reference.shaped_if_set("name", names::path_segment, errors);
        if named && selected {
            reference.forbidden("name", "name and selector are mutually exclusive", errors);
        }
        reference.selector("selector", errors);
        if named && selected {
            reference.forbidden("selector", "name and selector are mutually exclusive", errors);
        }
        if !named && !selected {
            errors.required(&reference.path, "one of name or selector must be specified");
        }
        reference.required_choice("parameterNotFoundAction", &["Deny", "Allow"], errors);
    }
    let matched = spec.at("matchResources");
    if matched.present() {
        match_resources(&matched, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::found;
    use serde_json::json;

    #[test]
    fn bad_bindings_are_refused_in_upstreams_words() {
        assert_eq!(
            found(BINDING, &json!({"spec": {"validationActions": ["Deny", "Warn"]}})),
            [
                "spec.policyName: Required value",
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"
            ]
        );
    }
}
