//! Validating and mutating admission policies.

use common::status::FieldErrors;

use super::expressions::{Expressions, With};
use super::{match_conditions, rule};
use crate::cel::Type;
use crate::cel::value::KEYWORDS;
use crate::object::{self, Object};
use crate::registry::advice;
use crate::registry::checks::At;
use crate::registry::conditions::conditions;
use crate::registry::names;
use crate::registry::others::defaults;
use crate::registry::rules::{Rules, StatusRule};

const AUDIT_ANNOTATIONS_MAX: usize = 20;
const AUDIT_EXPRESSION_BYTES_MAX: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];

/// Of policies and their bindings.
pub(super) const BASE: Rules = Rules {
    warnings: advice::of_admission,
    gated: super::reserved,
    unconditional_update: false,
    ..Rules::COUNTED
};
/// Of policies, whose update looks at what the old one had.
const POLICIES: Rules = Rules { default: defaults::admission_policy, update_validates: false, ..BASE };

pub const POLICY: Rules = Rules {
    validate: |policy, errors| validating_policy(policy, None, errors),
    validate_update: |policy, old, errors| validating_policy(policy, Some(old), errors),
    validate_status: |new, _, errors| {
        let checking = At::root(new).at("status").at("typeChecking");
        for warning in checking.each("expressionWarnings") {
            warning.required_text("warning", errors);
            warning.required_text("fieldRef", errors);
        }
        conditions(&At::root(new).at("status"), errors);
    },
    status: StatusRule::Split,
    ..POLICIES
};

pub const MUTATING_POLICY: Rules = Rules {
    validate: |policy, errors| mutating_policy(policy, None, errors),
    validate_update: |policy, old, errors| mutating_policy(policy, Some(old), errors),
    ..POLICIES
};

fn common_rules(spec: &At<'_>, errors: &mut FieldErrors) {
    if spec.has("failurePolicy") {
        spec.choice("failurePolicy", &["Fail", "Ignore"], errors);
    } else {
        spec.required("failurePolicy", "", errors);
    }
    if spec.has("paramKind") {
        param_kind(&spec.at("paramKind"), errors);
    }
    let constraints = spec.at("matchConstraints");
    if constraints.present() {
        match_resources(&constraints, errors);
        if constraints.each("resourceRules").is_empty() {
            constraints.required("resourceRules", "", errors);
        }
    } else {
        errors.required(&constraints.path, "");
    }
}

/// Match conditions, unless an update leaves them and the kind of their parameters alone.
fn conditions_of(spec: &At<'_>, old: Option<&Object>, expressions: &Expressions, errors: &mut FieldErrors) {
    let same = |old: &Object| {
        let old = At::root(old).at("spec");
        ["paramKind", "matchConditions"].into_iter().all(|key| old.at(key).value == spec.at(key).value)
    };
    if !old.is_some_and(same) {
        match_conditions(spec, expressions, errors);
    }
}

fn variables(spec: &At<'_>, expressions: &mut Expressions, errors: &mut FieldErrors) {
    for variable in spec.each("variables") {
        let name = variable.text("name");
        if name.trim().is_empty() {
            variable.required("name", "name is not specified", errors);
        } else {
            let mut bytes = name.bytes();
            let fits = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && !KEYWORDS.contains(&name);
            if !fits {
                variable.invalid("name", "must be a valid CEL identifier", errors);
            }
        }
        if variable.text("expression").trim().is_empty() {
            variable.required("expression", "expression is not specified", errors);
        } else {
            expressions.variable(name, &variable, errors);
        }
    }
}

fn validating_policy(policy: &Object, old: Option<&Object>, errors: &mut FieldErrors) {
    let spec = At::root(policy).at("spec");
    common_rules(&spec, errors);
    let mut expressions = Expressions::new(spec.has("paramKind"));
    conditions_of(&spec, old, &expressions, errors);
    if !spec.each("variables").is_empty() {
        expressions.compose();
    }
    variables(&spec, &mut expressions, errors);
    let (validations, annotations) = (spec.each("validations"), spec.each("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for key in ["validations", "auditAnnotations"] {
            spec.required(key, "validations or auditAnnotations must contain at least one item", errors);
        }
        return;
    }
    for validation in validations {
        let text = validation.text("expression");
        if text.trim().is_empty() {
            validation.required("expression", "expression is not specified", errors);
        } else {
            let field = validation.under("expression");
            expressions.check(field, text, text, With::Authorizer, &[Type::Bool], errors);
        }
        for key in ["messageExpression", "message"] {
            let text = validation.text(key);
            if !text.is_empty() && text.trim().is_empty() {
                validation.invalid(key, "must be non-empty if specified", errors);
            } else if key == "messageExpression" && !text.is_empty() {
                let field = validation.under(key);
                expressions.check(field, text, text, With::Nothing, &[Type::Str], errors);
            } else if key == "message" && text.trim().contains(['\n', '\r']) {
                validation.invalid(key, "must not contain line breaks", errors);
            }
        }
        validation.choice("reason", &REASONS, errors);
    }
    if annotations.len() > AUDIT_ANNOTATIONS_MAX {
        let detail = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        spec.invalid("auditAnnotations", detail, errors);
    }
    let name = object::name(policy);
    for (i, annotation) in annotations.iter().enumerate() {
        let key = annotation.text("key");
        if name.is_empty() {
            annotation.invalid("key", "requires metadata.name be non-empty", errors);
        } else {
            let whole = format!("{name}/{key}");
            for message in names::qualified_name(&whole) {
                errors.invalid(annotation.under("key"), &whole, message);
            }
        }
        let expression = annotation.text("valueExpression").trim();
        if expression.is_empty() {
            annotation.required("valueExpression", "valueExpression is not specified", errors);
        } else if expression.len() > AUDIT_EXPRESSION_BYTES_MAX {
            let detail = format!("must not exceed {AUDIT_EXPRESSION_BYTES_MAX} bytes in length");
            annotation.required("valueExpression", &detail, errors);
        } else {
            let (field, whole) = (annotation.under("valueExpression"), annotation.text("valueExpression"));
            expressions.check(field, expression, whole, With::Authorizer, &[Type::Str, Type::Null], errors);
        }
        if annotations[..i].iter().any(|other| other.text("key") == key) {
            errors.duplicate(annotation.under("key"), key);
        }
    }
}

fn mutating_policy(policy: &Object, old: Option<&Object>, errors: &mut FieldErrors) {
    let spec = At::root(policy).at("spec");
    common_rules(&spec, errors);
    no_deletes(&spec.at("matchConstraints"), errors);
    let mut expressions = Expressions::new(spec.has("paramKind"));
    conditions_of(&spec, old, &expressions, errors);
    expressions.compose();
    variables(&spec, &mut expressions, errors);
    let mutations = spec.each("mutations");
    if mutations.is_empty() {
        spec.required("mutations", "mutations must contain at least one item", errors);
    }
    for mutation in mutations {
        let (kind, wanted, other, made) = match mutation.text("patchType") {
            "" => {
                mutation.required("patchType", "", errors);
                continue;
            }
            "JSONPatch" => {
                let patches = Type::list(Type::object("JSONPatch"));
                ("JSONPatch", "jsonPatch", "applyConfiguration", patches)
            }
            "ApplyConfiguration" => {
                ("ApplyConfiguration", "applyConfiguration", "jsonPatch", Type::object("Object"))
            }
            unknown => {
                let known = ["ApplyConfiguration", "JSONPatch"];
                errors.not_supported(mutation.under("patchType"), unknown, &known);
                continue;
            }
        };
        let patch = mutation.at(wanted);
        if !patch.present() {
            mutation.required(wanted, &format!("must be specified when patchType is {kind}"), errors);
        } else {
            match patch.text("expression").trim() {
                "" => patch.required("expression", "", errors),
                text => {
                    let field = patch.under("expression");
                    expressions.check(field, text, text, With::Patches, &[made], errors);
                }
            }
        }
        if mutation.has(other) {
            errors.invalid(
                mutation.under(other),
                format!("{{{other}}}"),
                format!("must not be specified when patchType is {kind}"),
            );
        }
    }
    spec.required_choice("reinvocationPolicy", &["IfNeeded", "Never"], errors);
}

/// A mutating policy cannot look at deletes.
pub(super) fn no_deletes(matched: &At<'_>, errors: &mut FieldErrors) {
    let known = ["*", "CREATE", "UPDATE", "CONNECT"];
    for operation in matched.each("resourceRules").iter().flat_map(|rule| rule.strings("operations")) {
        if !known.contains(&operation) {
            errors.not_supported(matched.under("resourceRules.operations"), operation, &known);
        }
    }
}

fn param_kind(kind: &At<'_>, errors: &mut FieldErrors) {
    let api_version = kind.text("apiVersion");
    if kind.required_text("apiVersion", errors) {
        let mut whole = |value: &str, messages: Vec<String>| {
            if !messages.is_empty() {
                errors.invalid(kind.under("apiVersion"), value, messages.join(","));
            }
        };
        match api_version.split('/').collect::<Vec<_>>().as_slice() {
            [version] => whole(version, names::dns1035_label(version)),
            ["", ""] => whole(api_version, vec!["version must be specified".to_owned()]),
            [group, version] => {
                if !group.is_empty() {
                    whole(group, names::dns1123_subdomain(group));
                }
                if version.is_empty() {
                    whole(api_version, vec!["version must be specified".to_owned()]);
                } else {
                    whole(version, names::dns1035_label(version));
                }
            }
            _ => whole(api_version, vec![format!("unexpected GroupVersion string: {api_version}")]),
        }
    }
    if kind.required_text("kind", errors) {
        let messages = names::dns1035_label(&kind.text("kind").to_lowercase());
        if !messages.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
            kind.invalid("kind", detail, errors);
        }
    }
}

pub(super) fn match_resources(matched: &At<'_>, errors: &mut FieldErrors) {
    if matched.has("matchPolicy") {
        matched.choice("matchPolicy", &["Equivalent", "Exact"], errors);
    } else {
        matched.required("matchPolicy", "", errors);
    }
    for key in ["namespaceSelector", "objectSelector"] {
        if matched.has(key) {
            matched.selector(key, errors);
        } else {
            matched.required(key, "", errors);
        }
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        for place in matched.each(key) {
            let resource_names = place.strings("resourceNames");
            for (i, name) in resource_names.iter().enumerate() {
                let path = format!("{}[{i}]", place.under("resourceNames"));
                for message in names::path_segment(name) {
                    errors.invalid(&path, name, message);
                }
                if resource_names[..i].contains(name) {
                    errors.duplicate(&path, name);
                }
            }
            rule(&place, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::found;
    use serde_json::{Value, json};

    fn constraints() -> Value {
        json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["pods"]}]})
    }

    #[test]
    fn bad_policies_are_refused_in_upstreams_words() {
        let check = |key: &str, value: Value, expected: &[&str]| {
            let mut policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": constraints(),
                "validations": [{"expression": "true"}]}});
            crate::registry::tree::set(&mut policy["spec"], key, value);
            assert_eq!(found(POLICY, &policy), expected, "{key}");
        };
        check("failurePolicy", json!("Ignore"), &[]);
        check(
            "validations",
            Value::Null,
            &[
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ],
        );
        check("matchConstraints", Value::Null, &["spec.matchConstraints: Required value"]);
        check(
            "variables",
            json!([{"name": "if", "expression": "1"}]),
            &["spec.variables[0].name: Invalid value: \"if\": must be a valid CEL identifier"],
        );
        check(
            "paramKind",
            json!({"apiVersion": "a/b/c", "kind": "K"}),
            &["spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"],
        );
        check(
            "auditAnnotations",
            json!([{"key": "k", "valueExpression": "'v'"}, {"key": "k", "valueExpression": " "}]),
            &[
                "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
                "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
            ],
        );
    }

    #[test]
    fn expressions_of_policies_must_compile() {
        let check = |key: &str, value: Value, expected: &[&str]| {
            let mut policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": constraints(),
                "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
                "variables": [{"name": "n", "expression": "object.spec.replicas + 1"},
                    {"name": "o", "expression": "object.?spec"}, {"name": "l", "expression": "[variables.n]"}],
                "validations": [{"expression": "true"}]}});
            crate::registry::tree::set(&mut policy["spec"], key, value);
            let found = found(POLICY, &policy);
            assert_eq!(found.len(), expected.len(), "{key}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{key}: {found}");
            }
        };
        check(
            "validations",
            json!([{"expression": "variables.n > 1 && variables.l[0] == 1 && params.data.x == 'a' && has(namespaceObject.metadata.labels) && variables.o.x == 1",
                "messageExpression": "string(variables.n) + params.data.a"}]),
            &[],
        );
        check(
            "validations",
            json!([{"expression": "variables.n == 'a'", "messageExpression": "1"},
                {"expression": "variables.gone", "messageExpression": "authorizer.path('/a').check('get').reason()"},
                {"expression": "request.nope == ''"}]),
            &[
                "spec.validations[0].expression: Invalid value: \"variables.n == 'a'\": compilation failed: ERROR: <input>:1:13: found no matching overload for '_==_' applied to '(int, string)'\n | variables.n == 'a'\n | ............^",
                "spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string but got int",
                "spec.validations[1].expression: Invalid value: \"variables.gone\": compilation failed: ERROR: <input>:1:10: undefined field 'gone'",
                "spec.validations[1].messageExpression: Invalid value: \"authorizer.path('/a').check('get').reason()\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer' (in container '')",
                "spec.validations[2].expression: Invalid value: \"request.nope == ''\": compilation failed: ERROR: <input>:1:8: undefined field 'nope'",
            ],
        );
        check(
            "variables",
            json!([{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"},
                {"name": "c", "expression": "variables.a + variables.b"}]),
            &[
                "spec.variables[0].expression: Invalid value: \"variables.b\": compilation failed: ERROR: <input>:1:10: undefined field 'b'",
            ],
        );
        check(
            "auditAnnotations",
            json!([{"key": "k", "valueExpression": "1"}, {"key": "l", "valueExpression": " null "}]),
            &[
                "spec.auditAnnotations[0].valueExpression: Invalid value: \"1\": must evaluate to one of [string null_type] but got int",
            ],
        );
        check(
            "matchConditions",
            json!([{"name": "m", "expression": "variables.n > 1"}]),
            &[
                "spec.matchConditions[0].expression: Invalid value: \"variables.n > 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'variables' (in container '')",
            ],
        );
    }

    #[test]
    fn expressions_of_mutations_must_make_patches() {
        let check = |mutation: Value, expected: &[&str]| {
            let policy = json!({"spec": {"matchConstraints": constraints(), "reinvocationPolicy": "Never",
                "variables": [{"name": "n", "expression": "object.spec.replicas"}], "mutations": [mutation]}});
            let found = found(MUTATING_POLICY, &policy);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{found}");
            }
        };
        let apply = |text: &str| json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": text}});
        let patch = |text: &str| json!({"patchType": "JSONPatch", "jsonPatch": {"expression": text}});
        check(apply("Object{spec: Object.spec{replicas: variables.n + 1}}"), &[]);
        check(
            patch(
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]",
            ),
            &[],
        );
        check(
            apply("1"),
            &[
                "spec.mutations[0].applyConfiguration.expression: Invalid value: \"1\": must evaluate to Object but got int",
            ],
        );
        check(
            patch("JSONPatch{op: 'add'}"),
            &[
                "spec.mutations[0].jsonPatch.expression: Invalid value: \"JSONPatch{op: 'add'}\": must evaluate to list(JSONPatch) but got JSONPatch",
            ],
        );
        check(
            apply("Object{"),
            &[
                "spec.mutations[0].applyConfiguration.expression: Invalid value: \"Object{\": compilation failed: ERROR: <input>:1:8: Syntax error",
            ],
        );
    }

    #[test]
    fn a_mutation_is_of_its_type() {
        assert_eq!(
            found(
                MUTATING_POLICY,
                &json!({"spec": {"matchConstraints": constraints(),
                "reinvocationPolicy": "Never", "mutations": [{"patchType": "JSONPatch"}]}})
            ),
            ["spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch"]
        );
    }
}
