//! CertificateSigningRequests. Who asks is filled in by the admission plugin that knows it.
//!
//! What an old request already had wrong may stay so through updates.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::status::FieldErrors;
use serde_json::Value;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::signer_names::signer_name;
use crate::object::Object;
use crate::registry::gated::Gated;
use crate::registry::pod_template::containers::one_of;
use crate::registry::rules::{Rules, StatusRule, ViewStrategy, carry_all_but};
use crate::registry::tree::{at, carry, child_mut, field, has, int, items, items_mut, set, strings, text};

pub const RULES: Rules = Rules {
    validate: |request, errors| validate(request, &Tolerated::default(), errors),
    prepare_update: |new, old| carry(new, old, "spec"),
    update_validates: false,
    validate_update: |new, old, errors| update(new, old, Change::Main, errors),
    prepare_status,
    validate_status: |new, old, errors| update(new, old, Change::Status, errors),
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

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
const ENDS: [&str; 3] = ["Approved", "Denied", "Failed"];
const CERTIFICATE: &str = "status.certificate";
const CONDITIONS: &str = "status.conditions";

/// Through which endpoint a change comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Main,
    Status,
    Approval,
}

/// What is let pass because the old object has it.
#[derive(Debug, Default)]
struct Tolerated {
    both_decisions: bool,
    legacy_signer: bool,
    duplicate_types: bool,
    empty_type: bool,
    any_certificate: bool,
    duplicate_usages: bool,
    unknown_usages: bool,
}

impl Tolerated {
    fn by(old: &Object, new: &Object) -> Self {
        let types: Vec<&str> = listed(old).iter().map(|c| text(c, "type")).collect();
        let usages = strings(field(old, "spec"), "usages");
        let repeats = |list: &[&str]| list.iter().collect::<BTreeSet<_>>().len() < list.len();
        let (before, after) = (certificate(old), certificate(new));
        Self {
            both_decisions: DECISIONS.iter().all(|kind| types.contains(kind)),
            legacy_signer: text(field(old, "spec"), "signerName") == LEGACY_SIGNER,
            duplicate_types: repeats(&types),
            empty_type: types.contains(&""),
            any_certificate: before == after || wrong_with_certificate(before).is_some(),
            duplicate_usages: repeats(&usages),
            unknown_usages: usages.iter().any(|usage| !USAGES.contains(usage)),
        }
    }
}

fn listed(request: &Object) -> &[Value] {
    items(field(request, "status"), "conditions")
}

fn certificate(request: &Object) -> &str {
    text(field(request, "status"), "certificate")
}

fn validate(request: &Object, tolerated: &Tolerated, errors: &mut FieldErrors) {
    let spec = field(request, "spec");
    if let Some(wrong) = wrong_with_request(text(spec, "request")) {
        errors.invalid("spec.request", text(spec, "request"), wrong);
    }
    let usages = strings(spec, "usages");
    if usages.is_empty() {
        errors.required("spec.usages", "");
    }
    for (i, usage) in usages.iter().enumerate() {
        if !tolerated.unknown_usages && !USAGES.contains(usage) {
            errors.not_supported(format!("spec.usages[{i}]"), usage, &USAGES);
        }
    }
    for (i, usage) in usages.iter().enumerate() {
        if !tolerated.duplicate_usages && usages[..i].contains(usage) {
            errors.duplicate(format!("spec.usages[{i}]"), usage);
        }
    }
    let signer = text(spec, "signerName");
    if signer == LEGACY_SIGNER && !tolerated.legacy_signer {
        let detail = "the legacy signerName is not allowed via this API version";
        errors.invalid("spec.signerName", signer, detail);
    } else {
        signer_name(signer, "spec.signerName", errors);
    }
    if let Some(seconds) = int(spec, "expirationSeconds").filter(|s| *s < SECONDS_MIN) {
        errors.invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    conditions(request, tolerated, errors);
    if !tolerated.any_certificate
        && let Some(wrong) = wrong_with_certificate(certificate(request))
    {
        errors.invalid(CERTIFICATE, "<certificate data>", wrong);
    }
}

/// A PEM-encoded PKCS#10 request, signed with its own key.
fn wrong_with_request(base64: &str) -> Option<&'static str> {
    let block = STANDARD.decode(base64).ok().and_then(|bytes| pem::parse(bytes).ok());
    let Some(block) = block.filter(|block| block.tag() == "CERTIFICATE REQUEST") else {
        return Some("PEM block type must be CERTIFICATE REQUEST");
    };
    match X509CertificationRequest::from_der(block.contents()) {
        Ok(([], request)) => {
            request.verify_signature().is_err().then_some("x509: signature verification failed")
        }
        _ => Some("x509: malformed certificate request"),
    }
}

/// Certificates in PEM, at least one; nothing at all is fine too.
fn wrong_with_certificate(base64: &str) -> Option<String> {
    if base64.is_empty() {
        return None;
    }
    let blocks = STANDARD.decode(base64).ok().and_then(|bytes| pem::parse_many(bytes).ok());
    let blocks = blocks.unwrap_or_default();
    if blocks.is_empty() {
        return Some("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    blocks.iter().find_map(|block| {
        if block.tag() != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.tag()));
        }
        if block.headers().iter().next().is_some() {
            return Some("no PEM block headers are permitted".to_owned());
        }
        if block.contents().is_empty() {
            return Some("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        let mut rest = block.contents();
        while !rest.is_empty() {
            match X509Certificate::from_der(rest) {
                Ok((after, _)) => rest = after,
                Err(_) => return Some("x509: malformed certificate".to_owned()),
            }
        }
        None
    })
}

fn conditions(request: &Object, tolerated: &Tolerated, errors: &mut FieldErrors) {
    let list = listed(request);
    for (i, condition) in list.iter().enumerate() {
        let here = format!("{CONDITIONS}[{i}]");
        let kind = text(condition, "type");
        let earlier = |wanted: &str| list[..i].iter().any(|other| text(other, "type") == wanted);
        if kind.is_empty() && !tolerated.empty_type {
            errors.required(format!("{here}.type"), "");
        }
        if ENDS.contains(&kind) {
            let status = text(condition, "status");
            if status.is_empty() {
                errors.required(format!("{here}.status"), "");
            } else if status != "True" {
                errors.not_supported(format!("{here}.status"), status, &["True"]);
            }
        } else {
            one_of(condition, "status", &["True", "False", "Unknown"], &here, errors);
        }
        let opposite = match kind {
            "Approved" => Some("Denied"),
            "Denied" => Some("Approved"),
            _ => None,
        };
        if opposite.is_some_and(earlier) && !tolerated.both_decisions {
            errors.invalid(CONDITIONS, kind, "Approved and Denied conditions are mutually exclusive");
        }
        if earlier(kind) && !tolerated.duplicate_types {
            errors.duplicate(format!("{here}.type"), kind);
        }
    }
}

fn of_kind<'a>(request: &'a Object, kind: &str) -> Vec<&'a Value> {
    listed(request).iter().filter(|c| text(c, "type") == kind).collect()
}

fn update(new: &Object, old: &Object, change: Change, errors: &mut FieldErrors) {
    validate(new, &Tolerated::by(old, new), errors);
    for kind in ENDS {
        if of_kind(new, kind).len() < of_kind(old, kind).len() {
            let detail = format!("updates may not remove a condition of type \"{kind}\"");
            errors.forbidden(CONDITIONS, detail);
        }
    }
    if change != Change::Approval {
        for kind in DECISIONS {
            let (before, after) = (of_kind(old, kind), of_kind(new, kind));
            if after.len() > before.len() {
                let detail = format!("updates may not add a condition of type \"{kind}\"");
                errors.forbidden(CONDITIONS, detail);
            } else if after.len() == before.len() && after != before {
                let detail = format!("updates may not modify a condition of type \"{kind}\"");
                errors.forbidden(CONDITIONS, detail);
            }
        }
    }
    if certificate(new) != certificate(old) {
        if change != Change::Status {
            errors.forbidden(CERTIFICATE, "updates may not set certificate content");
        } else if !certificate(old).is_empty() {
            errors.forbidden(CERTIFICATE, "updates may not modify existing certificate content");
        }
    }
}

/// Signers write the certificate and may add conditions, but not decide: decisions that are still there, as many as
/// before, are the old ones.
fn prepare_status(new: &mut Object, old: &Object) {
    for kind in DECISIONS {
        let before = of_kind(old, kind);
        if before.len() != of_kind(new, kind).len() {
            continue;
        }
        let mut before = before.into_iter().cloned();
        let Some(status) = child_mut(new, "status") else { continue };
        for condition in items_mut(status, "conditions").iter_mut().filter(|c| text(c, "type") == kind) {
            if let Some(kept) = before.next() {
                *condition = kept;
            }
        }
    }
    fill_times(new, old);
}

/// A condition without times is of now, or as old as it was in this state.
fn fill_times(new: &mut Object, old: &Object) {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let Some(status) = child_mut(new, "status") else { return };
    for condition in items_mut(status, "conditions") {
        if !has(condition, "lastUpdateTime") {
            set(condition, "lastUpdateTime", now.clone());
        }
        if !has(condition, "lastTransitionTime") {
            let twin = listed(old).iter().find(|other| {
                ["type", "status"].iter().all(|key| text(other, key) == text(condition, key))
                    && has(other, "lastTransitionTime")
            });
            let since = twin.map_or(now.as_str(), |twin| text(twin, "lastTransitionTime")).to_owned();
            set(condition, "lastTransitionTime", since);
        }
    }
}

/// `certificatesigningrequests/approval`: only the conditions.
pub fn approval(gated: Gated) -> ViewStrategy {
    ViewStrategy {
        gated,
        resets: &[&["spec"], &["status", "certificate"]],
        rules: RULES,
        prepare: |new, old, _| {
            fill_times(new, old);
            let wanted = at(new, &["status", "conditions"]).clone();
            carry_all_but(new, old, &[]);
            if let Some(status) = crate::registry::tree::struct_mut(new, "status") {
                set(status, "conditions", wanted);
            }
        },
        validate: |new, old, _, errors| update(new, old, Change::Approval, errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::found;
    use crate::registry::rules::StatusStrategy;
    use crate::resources::Strategy;
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::json;

    fn request() -> Value {
        let key = KeyPair::generate().expect("a key");
        let csr = CertificateParams::default().serialize_request(&key).expect("a request");
        let pem = csr.pem().expect("PEM");
        json!({"metadata": {"name": "r"}, "spec": {"request": STANDARD.encode(pem), "usages": ["client auth"],
            "signerName": "example.com/s"}})
    }

    #[test]
    fn bad_requests_are_refused_in_upstreams_words() {
        let check = |key: &str, value: Value, expected: &[&str]| {
            let mut request = request();
            set(&mut request["spec"], key, value);
            assert_eq!(found(RULES, &request), expected, "{key}");
        };
        check("expirationSeconds", json!(600), &[]);
        check("usages", json!([]), &["spec.usages: Required value"]);
        check("usages", json!(["any", "any"]), &["spec.usages[1]: Duplicate value: \"any\""]);
        check(
            "signerName",
            json!(LEGACY_SIGNER),
            &[
                "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
            ],
        );
        check(
            "request",
            json!("AAAA"),
            &["spec.request: Invalid value: \"AAAA\": PEM block type must be CERTIFICATE REQUEST"],
        );
    }

    fn condition(kind: &str) -> Value {
        json!({"type": kind, "status": "True", "reason": "R"})
    }

    fn changed(strategy: &dyn Strategy, old: Value, new: Value) -> Vec<String> {
        let base = request();
        let with = |status: Value| {
            let mut request = base.clone();
            request["status"] = status;
            request
        };
        let (old, mut new) = (with(old), with(new));
        strategy.prepare_for_update(&mut new, &old);
        strategy.validate_update(&new, &old).0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn approvers_decide_and_signers_sign() {
        let status = StatusStrategy::new(RULES, &[]);
        let approved = json!({"conditions": [condition("Approved")]});
        assert_eq!(changed(&approval(Gated::defaults()), json!({}), approved.clone()), [""; 0]);
        assert_eq!(
            changed(&status, json!({}), approved.clone()),
            ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
        );
        assert_eq!(
            changed(&status, approved.clone(), json!({})),
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
        assert_eq!(
            changed(
                &approval(Gated::defaults()),
                approved,
                json!({"conditions": [condition("Approved"), condition("Denied")]})
            ),
            [
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
            ]
        );
        assert_eq!(
            changed(&status, json!({}), json!({"certificate": STANDARD.encode("x")})),
            [
                "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"
            ]
        );
    }

    #[test]
    fn what_was_wrong_before_may_stay() {
        let dated = |kind: &str| {
            json!({"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let both = json!({"conditions": [dated("Approved"), dated("Denied"), dated("")],
            "certificate": STANDARD.encode("x")});
        let status = StatusStrategy::new(RULES, &[]);
        assert_eq!(changed(&status, both.clone(), both.clone()), [""; 0]);
        let mut old = request();
        old["spec"]["usages"] = json!(["any", "any", "new"]);
        old["spec"]["signerName"] = json!(LEGACY_SIGNER);
        let mut errors = FieldErrors::new();
        update(&old, &old, Change::Main, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn conditions_are_given_times() {
        let mut new = json!({"status": {"conditions": [condition("Failed"), condition("Other")]}});
        let mut before = condition("Failed");
        before["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
        fill_times(&mut new, &json!({"status": {"conditions": [before]}}));
        assert_eq!(new["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert!(has(&new["status"]["conditions"][1], "lastTransitionTime"));
        assert!(has(&new["status"]["conditions"][0], "lastUpdateTime"));
    }
}
