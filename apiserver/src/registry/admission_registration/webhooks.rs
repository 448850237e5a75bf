//! Validating and mutating webhook configurations.

use common::status::{FieldErrorKind, FieldErrors};
use serde_json::Value;

use super::expressions::Expressions;
use super::{match_conditions, rule};
use crate::object::Object;
use crate::registry::advice;
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::others::defaults;
use crate::registry::rules::Rules;
use crate::registry::tolerance::{SELECTOR_VALUES, Sort};

/// The versions of reviews that are spoken.
pub const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const ONE_OF_VERSIONS: &str = "must include at least one of v1, v1beta1";
const TIMEOUT_SECONDS_MAX: i64 = 30;

const BASE: Rules = Rules {
    validate: |configuration, errors| validate(configuration, None, errors),
    validate_update: |configuration, old, errors| validate(configuration, Some(old), errors),
    update_validates: false,
    tolerated: &[SELECTOR_VALUES, SIDE_EFFECTS, UNKNOWN_REVIEWS, SAME_NAMES],
    warnings: advice::of_admission,
    gated: super::reserved,
    unconditional_update: false,
    ..Rules::COUNTED
};

pub const VALIDATING_WEBHOOKS: Rules = Rules { default: defaults::validating_webhooks, ..BASE };

pub const MUTATING_WEBHOOKS: Rules = Rules { default: defaults::mutating_webhooks, ..BASE };

/// Side effects that v1beta1 allowed.
const SIDE_EFFECTS: Sort = |error| {
    error.field.ends_with(".sideEffects") && matches!(error.value.as_str(), "\"Some\"" | "\"Unknown\"")
};
/// Reviews in no version that a server sends.
const UNKNOWN_REVIEWS: Sort = |error| error.detail == ONE_OF_VERSIONS;
const SAME_NAMES: Sort = |error| {
    error.kind == FieldErrorKind::Duplicate
        && error.field.ends_with("].name")
        && !error.field.contains(".matchConditions")
};

fn validate(configuration: &Object, old: Option<&Object>, errors: &mut FieldErrors) {
    let hooks = At::root(configuration).each("webhooks");
    let conditions =
        |hooks: &[At<'_>]| hooks.iter().map(|hook| hook.at("matchConditions").value.clone()).collect();
    let unchanged = old.is_some_and(|old| {
        let (now, before): (Vec<Value>, Vec<Value>) =
            (conditions(&hooks), conditions(&At::root(old).each("webhooks")));
        now == before
    });
    let wanted = !unchanged && hooks.iter().any(|hook| hook.has("matchConditions"));
    let expressions = wanted.then(|| Expressions::new(false));
    for (i, hook) in hooks.iter().enumerate() {
        webhook(hook, errors);
        if let Some(expressions) = &expressions {
            match_conditions(hook, expressions, errors);
        }
        review_versions(hook, "admissionReviewVersions", "must specify one of v1, v1beta1", true, errors);
        let name = hook.text("name");
        if !name.is_empty() && hooks[..i].iter().any(|other| other.text("name") == name) {
            errors.duplicate(hook.under("name"), name);
        }
    }
}

/// `a.b.c`: a domain of three parts at least.
fn fully_qualified(hook: &At<'_>, errors: &mut FieldErrors) {
    if !hook.required_text("name", errors) {
        return;
    }
    let name = hook.text("name");
    let messages = names::dns1123_subdomain(name);
    if !messages.is_empty() {
        hook.invalid("name", messages.join(","), errors);
    } else if name.split('.').count() < 3 {
        hook.invalid("name", "should be a domain with at least three segments separated by dots", errors);
    }
}

fn webhook(hook: &At<'_>, errors: &mut FieldErrors) {
    fully_qualified(hook, errors);
    for place in hook.each("rules") {
        rule(&place, errors);
    }
    hook.choice("failurePolicy", &["Fail", "Ignore"], errors);
    hook.choice("matchPolicy", &["Equivalent", "Exact"], errors);
    let effects = ["None", "NoneOnDryRun"];
    if hook.has("sideEffects") {
        hook.choice("sideEffects", &effects, errors);
    } else {
        hook.required("sideEffects", "must specify one of None, NoneOnDryRun", errors);
    }
    if hook.int("timeoutSeconds").is_some_and(|s| !(1..=TIMEOUT_SECONDS_MAX).contains(&s)) {
        hook.invalid("timeoutSeconds", "the timeout value must be between 1 and 30 seconds", errors);
    }
    hook.selector("namespaceSelector", errors);
    hook.selector("objectSelector", errors);
    hook.choice("reinvocationPolicy", &["Never", "IfNeeded"], errors);
    client(&hook.at("clientConfig"), errors);
}

/// A `clientConfig`: where the webhook is.
pub fn client(client: &At<'_>, errors: &mut FieldErrors) {
    match (client.has("url"), client.has("service")) {
        (true, false) => url(client, errors),
        (false, true) => service(&client.at("service"), errors),
        _ => errors.required(&client.path, "exactly one of url or service is required"),
    }
}

/// The versions of reviews that a webhook takes; `none` is what is said when there are none. With `known` one of them
/// must be spoken here.
pub fn review_versions(hook: &At<'_>, key: &str, none: &str, known: bool, errors: &mut FieldErrors) {
    let versions = hook.strings(key);
    if versions.is_empty() {
        hook.required(key, none, errors);
        return;
    }
    for (i, version) in versions.iter().enumerate() {
        let path = format!("{}[{i}]", hook.under(key));
        if versions[..i].contains(version) {
            errors.invalid(path, version, "duplicate version");
            continue;
        }
        for message in names::dns1035_label(version) {
            errors.invalid(&path, version, message);
        }
    }
    if known && !versions.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        hook.invalid(key, ONE_OF_VERSIONS, errors);
    }
}

/// `ValidateWebhookURL`.
fn url(client: &At<'_>, errors: &mut FieldErrors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = client.text("url");
    let path = client.under("url");
    if text.chars().any(char::is_control) {
        let detail = format!(
            "url must be a valid URL: parse {text:?}: net/url: invalid control character in URL{FORM}"
        );
        errors.required(path, detail);
        return;
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if scheme != "https" {
        errors.invalid(&path, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or("") };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    if host.is_empty() {
        errors.invalid(&path, host, format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        errors.invalid(&path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid(&path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid(&path, query, "query parameters are not permitted in the URL");
    }
}

/// `ValidateWebhookService`.
fn service(service: &At<'_>, errors: &mut FieldErrors) {
    // Upstream passes name and namespace the other way round.
    for (key, shown) in [("namespace", "name"), ("name", "namespace")] {
        if service.text(key).is_empty() {
            service.required(shown, "", errors);
        }
    }
    let port = service.int("port").unwrap_or(0);
    if let Some(message) = names::port_number(port) {
        errors.invalid(service.under("port"), port, format!("port is not valid: {message}"));
    }
    let path = service.text("path");
    let mut bad = |detail: String| errors.invalid(service.under("path"), path, detail);
    match path {
        "" | "/" => return,
        "//" => {
            bad("segment[0] may not be empty".to_owned());
            return;
        }
        _ => {}
    }
    if !path.starts_with('/') {
        bad("must start with a '/'".to_owned());
    }
    let mut rest = path.chars();
    rest.next();
    let rest = rest.as_str();
    for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            bad(format!("segment[{i}] may not be empty"));
            continue;
        }
        for message in names::dns1123_subdomain(step) {
            bad(format!("segment[{i}]: {message}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use serde_json::json;

    #[test]
    fn what_old_webhooks_have_may_stay() {
        let hook = |name: &str| {
            json!({"name": name, "sideEffects": "Some", "admissionReviewVersions": ["v9"],
                "clientConfig": {"url": "https://host/path"}, "matchConditions": [{"name": "c"}],
                "objectSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": ["a b"]}]}})
        };
        let old = json!({"webhooks": [hook("a.b.c"), hook("a.b.c")]});
        assert_eq!(found_on_update(VALIDATING_WEBHOOKS, &old, |_| {}), [""; 0]);
        let errors = found_on_update(VALIDATING_WEBHOOKS, &old, |new| {
            new["webhooks"][0]["matchConditions"][0]["name"] = json!("d");
            new["webhooks"][1]["sideEffects"] = json!("Other");
        });
        assert_eq!(
            errors,
            [
                "webhooks[0].matchConditions[0].expression: Required value",
                "webhooks[1].sideEffects: Unsupported value: \"Other\": supported values: \"None\", \"NoneOnDryRun\"",
                "webhooks[1].matchConditions[0].expression: Required value",
            ]
        );
    }

    #[test]
    fn bad_webhooks_are_refused_in_upstreams_words() {
        let check = |key: &str, value: Value, expected: &[&str]| {
            let mut hook = json!({"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://host/path"},
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
            crate::registry::tree::set(&mut hook, key, value);
            assert_eq!(found(VALIDATING_WEBHOOKS, &json!({"webhooks": [hook]})), expected, "{key}");
        };
        check("matchPolicy", json!("Exact"), &[]);
        check(
            "name",
            json!("a.b"),
            &[
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ],
        );
        check(
            "sideEffects",
            json!("Some"),
            &[
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ],
        );
        check(
            "sideEffects",
            Value::Null,
            &["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
        );
        check(
            "timeoutSeconds",
            json!(31),
            &[
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ],
        );
        check(
            "admissionReviewVersions",
            json!(["v9"]),
            &[
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
            ],
        );
        check(
            "clientConfig",
            json!({}),
            &["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
        );
        check(
            "clientConfig",
            json!({"url": "http://host"}),
            &[
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ],
        );
        check(
            "clientConfig",
            json!({"service": {"name": "s", "namespace": "n", "path": "/a//b"}}),
            &["webhooks[0].clientConfig.service.path: Invalid value: \"/a//b\": segment[1] may not be empty"],
        );
        check(
            "rules",
            json!([{"operations": ["*", "CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["pods/*", "pods/log"]}]),
            &[
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log",
            ],
        );
        check(
            "matchConditions",
            json!([{"name": "a"}]),
            &["webhooks[0].matchConditions[0].expression: Required value"],
        );
        check(
            "matchConditions",
            json!([{"name": "a", "expression": "request.userInfo.username != '' && authorizer.requestResource.check('get').allowed()"}]),
            &[],
        );
        check(
            "matchConditions",
            json!([{"name": "b", "expression": "object.a"}, {"name": "c", "expression": "params.x"}]),
            &[
                "webhooks[0].matchConditions[0].expression: Invalid value: \"object.a\": must evaluate to bool but got dyn",
                "webhooks[0].matchConditions[1].expression: Invalid value: \"params.x\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x\n | ^",
            ],
        );
    }

    /// What the conformance suite creates.
    #[test]
    fn an_expression_that_does_not_parse_is_refused() {
        let hook = json!({"webhooks": [{"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://host/path"},
            "matchConditions": [{"name": "invalid-expression-1", "expression": "... [] bad expression"}]}]});
        let found = found(MUTATING_WEBHOOKS, &hook);
        let wanted = "webhooks[0].matchConditions[0].expression: Invalid value: \"... [] bad expression\": compilation failed: ERROR: <input>:1:";
        assert!(found.len() == 1 && found[0].starts_with(wanted), "{found:?}");
    }

    #[test]
    fn match_conditions_that_stay_are_left_alone() {
        let hook = json!({"webhooks": [{"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://host/path"}, "matchConditions": [{"name": "a", "expression": "nope"}]}]});
        let change = |new: &mut Value| new["webhooks"][0]["timeoutSeconds"] = json!(5);
        assert_eq!(found_on_update(VALIDATING_WEBHOOKS, &hook, change), Vec::<String>::new());
        let found = found_on_update(VALIDATING_WEBHOOKS, &hook, |new| {
            new["webhooks"][0]["matchConditions"][0]["name"] = json!("b");
        });
        assert_eq!(found.len(), 1, "{found:?}");
    }
}
