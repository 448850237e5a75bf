//! How objects become those of another version.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::status::FieldErrors;
use serde_json::Value;

use super::options::Options;
use crate::registry::admission_registration::{REVIEW_VERSIONS, review_versions, webhook_client};
use crate::registry::checks::At;
use crate::registry::tree::{at, field, has, strings, text};

const NOT_WEBHOOK: &str = "should not be set when strategy is not set to Webhook";

/// `spec.conversion`. Upstream's internal type, whose paths these are, has no `webhook`.
pub(super) fn validate(conversion: &Value, preserves: bool, options: &Options, errors: &mut FieldErrors) {
    if conversion.is_null() {
        return;
    }
    let place = At { value: conversion, path: "spec.conversion".to_owned() };
    let strategy = place.text("strategy");
    if strategy != "None" && preserves {
        place.invalid("strategy", "must be None if spec.preserveUnknownFields is true", errors);
    }
    if place.required_text("strategy", errors) {
        place.choice("strategy", &["None", "Webhook"], errors);
    }
    let webhook = field(conversion, "webhook");
    let client = At { value: field(webhook, "clientConfig"), path: place.under("webhookClientConfig") };
    let reviews = At { value: webhook, path: place.path.clone() };
    if strategy == "Webhook" {
        self::client(&client, conversion, options, errors);
        review_versions(&reviews, "conversionReviewVersions", "", options.require_known_review, errors);
        return;
    }
    if client.present() {
        errors.forbidden(client.path, NOT_WEBHOOK);
    }
    if !reviews.strings("conversionReviewVersions").is_empty() {
        errors.forbidden(reviews.under("conversionReviewVersions"), NOT_WEBHOOK);
    }
}

fn client(client: &At<'_>, conversion: &Value, options: &Options, errors: &mut FieldErrors) {
    if !client.present() {
        errors.required(&client.path, "required when strategy is set to Webhook");
        return;
    }
    webhook_client(client, errors);
    if !options.allow_any_bundle
        && let Some(why) = wrong_bundle(conversion)
    {
        client.invalid("caBundle", why, errors);
    }
}

/// Whether a conversion names versions of reviews, and none that is spoken.
pub(super) fn has_unknown_reviews(conversion: &Value) -> bool {
    let versions = strings(field(conversion, "webhook"), "conversionReviewVersions");
    !versions.is_empty() && !versions.iter().any(|v| REVIEW_VERSIONS.contains(v))
}

/// Why the certificates that a conversion's webhook is to be checked by are none (`ValidateCABundle`).
pub fn wrong_bundle(conversion: &Value) -> Option<String> {
    let client = at(conversion, &["webhook", "clientConfig"]);
    if !has(client, "caBundle") || text(client, "caBundle").is_empty() {
        return None;
    }
    let bytes = STANDARD.decode(text(client, "caBundle")).unwrap_or_default();
    let blocks = pem::parse_many(&bytes).unwrap_or_default();
    let certificates =
        || blocks.iter().filter(|b| b.tag() == "CERTIFICATE" && b.headers().iter().next().is_none());
    let parses = |block: &pem::Pem| x509_parser::parse_x509_certificate(block.contents()).is_ok();
    if certificates().any(parses) {
        return None;
    }
    let why = if blocks.is_empty() {
        "unable to parse bytes as PEM block"
    } else if certificates().next().is_some() {
        "failed to parse certificate: x509: malformed certificate"
    } else {
        "no valid certificate authority data seen"
    };
    Some(format!("unable to load root certificates: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(conversion: Value, options: &Options, wanted: &[&str]) {
        let mut errors = FieldErrors::new();
        validate(&conversion, false, options, &mut errors);
        let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, wanted, "{conversion}");
    }

    fn webhook(client: Value, versions: Value) -> Value {
        json!({"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": versions}})
    }

    #[test]
    fn a_webhook_is_whole() {
        let strict = Options::strict();
        let service = json!({"service": {"name": "a", "namespace": "b", "port": 443}});
        check(webhook(service.clone(), json!(["v1"])), &strict, &[]);
        check(
            webhook(json!({"url": "http://u@h/?q", "caBundle": "eA=="}), json!(["v2", "v2"])),
            &strict,
            &[
                "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "spec.conversion.webhookClientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
                "spec.conversion.webhookClientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
                "spec.conversion.conversionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
                "spec.conversion.conversionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
            ],
        );
        check(
            json!({"strategy": "Webhook"}),
            &strict,
            &[
                "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                "spec.conversion.conversionReviewVersions: Required value",
            ],
        );
        check(
            webhook(json!({"service": {"name": "a", "port": 0, "path": "xy"}}), json!(["v1beta1"])),
            &strict,
            &[
                "spec.conversion.webhookClientConfig.service.name: Required value",
                "spec.conversion.webhookClientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "spec.conversion.webhookClientConfig.service.path: Invalid value: \"xy\": must start with a '/'",
            ],
        );
        let none = json!({"strategy": "None", "webhook": {"clientConfig": service, "conversionReviewVersions": ["v1"]}});
        check(
            none,
            &strict,
            &[
                "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook",
                "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
            ],
        );
    }

    #[test]
    fn what_was_wrong_may_stay_so() {
        let client = |bundle: &str| json!({"url": "https://h", "caBundle": STANDARD.encode(bundle)});
        let crd = |bundle: &str, versions: Value, established: &str| {
            json!({"spec": {"conversion": webhook(client(bundle), versions)},
                "status": {"conditions": [{"type": "Established", "status": established}]}})
        };
        let good =
            rcgen::generate_simple_self_signed(vec!["a".to_owned()]).expect("a certificate").cert.pem();
        let bad = crd("x", json!(["v2"]), "True");
        check(bad["spec"]["conversion"].clone(), &Options::for_update(&bad, &bad), &[]);
        let before = crd(&good, json!(["v1"]), "True");
        check(before["spec"]["conversion"].clone(), &Options::for_update(&before, &before), &[]);
        check(
            bad["spec"]["conversion"].clone(),
            &Options::for_update(&bad, &before),
            &[
                "spec.conversion.webhookClientConfig.caBundle: Invalid value: \"eA==\": unable to load root certificates: unable to parse bytes as PEM block",
                "spec.conversion.conversionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ],
        );
        let new = crd(&good, json!(["v1"]), "False");
        let options = Options::for_update(&bad, &new);
        assert!(options.allow_any_bundle && options.require_known_review);
    }
}
