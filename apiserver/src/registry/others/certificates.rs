//! CertificateSigningRequests. Who asks is filled in by the admission plugin that knows it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::status::FieldErrors;
use serde_json::Value;

use crate::object::Object;
use crate::registry::gated::Gated;
use crate::registry::pod_template::containers::one_of;
use crate::registry::rules::{Rules, StatusRule, ViewStrategy, carry_all_but};
use crate::registry::tree::{carry, field, has, int, items, set, strings, struct_mut, text};

pub const RULES: Rules = Rules {
    validate,
    prepare_update: |new, old| carry(new, old, "spec"),
    prepare_status,
    validate_status,
    status: StatusRule::Split,
    resets: &[&["spec"], &["status"]],
    // Kubelets name their requests by a digest with capital letters.
    name: crate::registry::names::path_segment,
    ..Rules::PLAIN
};

const USAGES: [&str; 23] = [
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
    "any",
    "server auth",
    "client auth",
    "code signing",
    "email protection",
    "s/mime",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "timestamping",
    "ocsp signing",
    "microsoft sgc",
    "netscape sgc",
];
const SECONDS_MIN: i64 = 600;

fn validate(request: &Object, errors: &mut FieldErrors) {
    let spec = field(request, "spec");
    let der = STANDARD
        .decode(text(spec, "request"))
        .ok()
        .and_then(|bytes| pem::parse(bytes).ok())
        .filter(|p| matches!(p.tag(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST"));
    let parsed = der.as_ref().is_some_and(|p| {
        use x509_parser::prelude::FromDer;
        x509_parser::certification_request::X509CertificationRequest::from_der(p.contents())
            .is_ok_and(|(rest, csr)| rest.is_empty() && csr.verify_signature().is_ok())
    });
    if !parsed {
        errors.invalid("spec.request", text(spec, "request"), "PEM block type must be CERTIFICATE REQUEST");
    }
    let usages = strings(spec, "usages");
    if usages.is_empty() {
        errors.required("spec.usages", "");
    }
    for (i, usage) in usages.iter().enumerate() {
        if !USAGES.contains(usage) {
            errors.not_supported(format!("spec.usages[{i}]"), usage, &USAGES);
        }
        if usages[..i].contains(usage) {
            errors.duplicate(format!("spec.usages[{i}]"), usage);
        }
    }
    signer_name(text(spec, "signerName"), errors);
    if let Some(seconds) = int(spec, "expirationSeconds").filter(|s| *s < SECONDS_MIN) {
        errors.invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    conditions(request, errors);
}

fn signer_name(name: &str, errors: &mut FieldErrors) {
    let path = "spec.signerName";
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, rest] = parts.as_slice() else {
        errors.invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        return;
    };
    for message in crate::registry::names::dns1123_subdomain(domain) {
        errors.invalid(path, domain, format!("validating label \"{domain}\": {message}"));
    }
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    for message in crate::registry::names::dns1123_subdomain(rest) {
        errors.invalid(path, rest, format!("validating label \"{rest}\": {message}"));
    }
    if name == "kubernetes.io/legacy-unknown" {
        errors.invalid(path, name, "the legacy signerName is not allowed via this API version");
    }
}

fn conditions(request: &Object, errors: &mut FieldErrors) {
    let (mut approved, mut denied) = (false, false);
    for (i, condition) in items(field(request, "status"), "conditions").iter().enumerate() {
        let here = format!("status.conditions[{i}]");
        let kind = text(condition, "type");
        approved |= kind == "Approved";
        denied |= kind == "Denied";
        if kind.is_empty() {
            errors.required(format!("{here}.type"), "");
        }
        if matches!(kind, "Approved" | "Denied" | "Failed") {
            let status = text(condition, "status");
            if status.is_empty() {
                errors.required(format!("{here}.status"), "");
            } else if status != "True" {
                errors.not_supported(format!("{here}.status"), status, &["True"]);
            }
        } else {
            one_of(condition, "status", &["True", "False", "Unknown"], &here, errors);
        }
    }
    if approved && denied {
        errors.invalid(
            "status.conditions",
            "Denied",
            "Approved and Denied conditions are mutually exclusive",
        );
    }
}

fn of_kinds(object: &Object, kinds: &[&str], inside: bool) -> Vec<Value> {
    items(field(object, "status"), "conditions")
        .iter()
        .filter(|c| kinds.contains(&text(c, "type")) == inside)
        .cloned()
        .collect()
}

const DECISIONS: [&str; 2] = ["Approved", "Denied"];

/// Signers write the certificate and may add conditions, but not decide.
fn prepare_status(new: &mut Object, old: &Object) {
    let mut all = of_kinds(old, &DECISIONS, true);
    all.extend(of_kinds(new, &DECISIONS, false));
    put_conditions(new, old, all);
}

fn put_conditions(new: &mut Object, old: &Object, mut all: Vec<Value>) {
    let before = items(field(old, "status"), "conditions").to_vec();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for condition in &mut all {
        let twin = before.iter().find(|c| text(c, "type") == text(condition, "type"));
        if twin.is_none_or(|t| t != condition) && !has(condition, "lastUpdateTime") {
            set(condition, "lastUpdateTime", now.clone());
        }
        if !has(condition, "lastTransitionTime") {
            set(condition, "lastTransitionTime", now.clone());
        }
    }
    if let Some(status) = struct_mut(new, "status") {
        if all.is_empty() {
            crate::registry::tree::remove(status, "conditions");
        } else {
            set(status, "conditions", Value::Array(all));
        }
    }
}

fn validate_status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    conditions(new, errors);
    let (now, then) = (text(field(new, "status"), "certificate"), text(field(old, "status"), "certificate"));
    if !then.is_empty() && now != then {
        errors.forbidden("status.certificate", "updates may not modify an existing certificate");
    }
}

/// `certificatesigningrequests/approval`: only the conditions.
pub fn approval(gated: Gated) -> ViewStrategy {
    ViewStrategy {
        gated,
        resets: &[&["spec"], &["status", "certificate"]],
        rules: RULES,
        prepare: |new, old, _| {
            let wanted = items(field(new, "status"), "conditions").to_vec();
            carry_all_but(new, old, &[]);
            put_conditions(new, old, wanted);
        },
        validate: |new, old, _, errors| {
            conditions(new, errors);
            for kind in ["Approved", "Denied", "Failed"] {
                let of = |o: &Object| of_kinds(o, &[kind], true).len();
                if of(new) < of(old) {
                    errors.forbidden(
                        "status.conditions",
                        format!("updates may not remove a condition of type \"{kind}\""),
                    );
                }
            }
        },
    }
}
