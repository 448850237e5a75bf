//! PodCertificateRequests: a kubelet asks a signer for a certificate in the name of a pod.
//!
//! What is asked for never changes; the status goes once from nothing to issued, denied or failed. Keys on the
//! curve P-521 are accepted by upstream and refused here, because their signatures cannot be checked.

use std::fmt::Display;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::status::{FieldError, FieldErrorKind, FieldErrors};
use jiff::Timestamp;
use serde_json::{Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::public_keys::{Key, key_of_request, key_of_spki};
use super::signer_names::{is_kubernetes, signer_name};
use super::user_annotations::user_annotations;
use crate::object::Object;
use crate::registry::checks::{At, invalid_without_value};
use crate::registry::conditions::conditions;
use crate::registry::core::immutable;
use crate::registry::names;
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree::{at, field, items, same, text};

const UID_BYTES_MAX: usize = 128;
const KEY_BYTES_MAX: usize = 10 * 1024;
const CHAIN_BYTES_MAX: usize = 100 * 1024;
const SECONDS_MIN: i64 = 60 * 60;
const SECONDS_MAX: i64 = 91 * 24 * 60 * 60;
const KUBERNETES_SECONDS_MAX: i64 = 24 * 60 * 60;
const CLOCK_SKEW_SECONDS: i64 = 5 * 60;
/// A certificate is fetched anew no sooner after its begin, and no later before its end.
const REFRESH_MARGIN_SECONDS: i64 = 10 * 60;
const ENDS: [&str; 3] = ["Issued", "Denied", "Failed"];

const CHAIN: &str = "status.certificateChain";
const PKCS10: &str = "spec.stubPKCS10Request";
const PKIX: &str = "spec.pkixPublicKey";
const PROOF: &str = "spec.proofOfPossession";

pub const POD_CERTIFICATE_REQUEST: Rules = Rules {
    validate,
    update_validates: false,
    validate_update: |new, old, errors| immutable(new, old, &["spec"], errors),
    validate_status: |new, old, errors| status(new, old, Timestamp::now(), errors),
    status: StatusRule::Split,
    unconditional_update: false,
    ..Rules::PLAIN
};

fn validate(request: &Object, errors: &mut FieldErrors) {
    let spec = At::root(request).at("spec");
    let signer = spec.text("signerName");
    signer_name(signer, "spec.signerName", errors);
    user_annotations(&spec, "unverifiedUserAnnotations", errors);
    for (name, uid) in
        [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")]
    {
        spec.shaped(name, names::dns1123_subdomain, errors);
        let text = spec.text(uid);
        if text.is_empty() {
            errors.invalid(spec.under(uid), text, "must not be empty");
        }
        if text.len() > UID_BYTES_MAX {
            errors.too_long(spec.under(uid), UID_BYTES_MAX);
        }
    }
    let Some(seconds) = spec.int("maxExpirationSeconds") else {
        spec.required("maxExpirationSeconds", "must be set", errors);
        return;
    };
    let most = if is_kubernetes(signer) { KUBERNETES_SECONDS_MAX } else { SECONDS_MAX };
    if !(SECONDS_MIN..=most).contains(&seconds) {
        let detail = format!("must be in the range [{SECONDS_MIN}, {most}]");
        errors.invalid(spec.under("maxExpirationSeconds"), seconds, detail);
    }
    let given = |key: &str| !spec.text(key).is_empty();
    match (given("stubPKCS10Request"), given("pkixPublicKey"), given("proofOfPossession")) {
        (true, false, false) => stub(&spec, errors),
        (false, true, true) => bare_key(&spec, errors),
        _ => invalid_without_value(
            "spec",
            "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set",
            errors,
        ),
    }
}

fn bytes(spec: &Value, key: &str) -> Vec<u8> {
    STANDARD.decode(text(spec, key)).unwrap_or_default()
}

/// What the request itself says is the signer's concern; here its key and its signature count.
fn stub(spec: &At<'_>, errors: &mut FieldErrors) {
    let der = bytes(spec.value, "stubPKCS10Request");
    if der.len() > KEY_BYTES_MAX {
        return errors.too_long(PKCS10, KEY_BYTES_MAX);
    }
    let Some((key, signed)) = key_of_request(&der) else {
        return invalid_without_value(PKCS10, "must be a valid PKCS#10 CSR", errors);
    };
    match key.wrong("elliptic public keys must use curve P256, P384, or P521") {
        Some((Some(value), detail)) => errors.invalid(PKCS10, value, detail),
        Some((None, detail)) => invalid_without_value(PKCS10, detail, errors),
        None if !signed => invalid_without_value(PKCS10, "invalid signature", errors),
        None => {}
    }
}

fn bare_key(spec: &At<'_>, errors: &mut FieldErrors) {
    let (der, proof) = (bytes(spec.value, "pkixPublicKey"), bytes(spec.value, "proofOfPossession"));
    for (path, given) in [(PKIX, &der), (PROOF, &proof)] {
        if given.len() > KEY_BYTES_MAX {
            return errors.too_long(path, KEY_BYTES_MAX);
        }
    }
    let Some(key) = key_of_spki(&der) else {
        return errors.invalid(
            PKIX,
            spec.text("pkixPublicKey"),
            "must be a valid PKIX-serialized public key",
        );
    };
    match key.wrong("elliptic public keys must use curve P256 or P384") {
        Some((value, detail)) => {
            let shown = value.unwrap_or_else(|| spec.text("pkixPublicKey").to_owned());
            errors.invalid(PKIX, shown, detail);
        }
        None if !key.verifies(spec.text("podUID").as_bytes(), &proof) => {
            invalid_without_value(PROOF, "could not verify proof-of-possession signature", errors);
        }
        None => {}
    }
}

fn ended(request: &Object, kind: &str) -> bool {
    let all = items(field(request, "status"), "conditions");
    all.iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

fn status(new: &Object, old: &Object, now: Timestamp, errors: &mut FieldErrors) {
    let status = At::root(new).at("status");
    end_conditions(&status, errors);
    conditions(&status, errors);
    if !errors.is_empty() {
        // What else must be there follows from the conditions.
        return;
    }
    let before = field(old, "status");
    let unchanged = same(status.value, before);
    let detail = if ENDS.iter().any(|end| ended(old, end)) {
        (!unchanged).then_some("immutable after PodCertificateRequest is issued, denied, or failed")
    } else if ended(new, "Denied") || ended(new, "Failed") {
        let only = json!({"conditions": field(status.value, "conditions")});
        (!same(status.value, &only)).then_some(
            "non-condition status fields must be empty when denying or failing the PodCertificateRequest",
        )
    } else if ended(new, "Issued") {
        if let Err(error) = issued(new, now, errors) {
            errors.0.push(error);
        }
        None
    } else {
        (!unchanged)
            .then_some("status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"")
    };
    if let Some(detail) = detail {
        invalid_without_value("status", detail, errors);
    }
}

/// At most one of the known ends, and nothing beside.
fn end_conditions(status: &At<'_>, errors: &mut FieldErrors) {
    for (i, condition) in items(status.value, "conditions").iter().enumerate() {
        // Upstream's paths have a dot before the index.
        let path = |key: &str| format!("status.conditions.[{i}].{key}");
        let (kind, state) = (text(condition, "type"), text(condition, "status"));
        if !ENDS.contains(&kind) {
            errors.not_supported(path("type"), kind, &ENDS);
            continue;
        }
        if i > 0 {
            let detail = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.invalid(path("type"), kind, detail);
        }
        if state != "True" {
            errors.not_supported(path("status"), state, &["True"]);
        }
    }
}

fn invalid(path: &str, value: impl serde::Serialize, detail: impl Display) -> FieldError {
    let mut errors = FieldErrors::new();
    errors.invalid(path, value, detail.to_string());
    errors.0.remove(0)
}

/// The chain begins with a certificate for the key that was asked for, and the times are those in it. Stops at the
/// first that is wrong.
fn issued(request: &Object, now: Timestamp, errors: &mut FieldErrors) -> Result<(), FieldError> {
    let status = field(request, "status");
    let chain = text(status, "certificateChain");
    let wrong = |detail: &str| invalid(CHAIN, chain, detail);
    if chain.len() > CHAIN_BYTES_MAX {
        let detail = format!("may not be more than {CHAIN_BYTES_MAX} bytes");
        let kind = FieldErrorKind::TooLong;
        return Err(FieldError { kind, field: CHAIN.to_owned(), value: String::new(), detail });
    }
    let blocks = pem::parse_many(chain).unwrap_or_default();
    let (leaf, rest) = blocks
        .split_first()
        .ok_or_else(|| wrong("issued certificate chain must contain at least one certificate"))?;
    if leaf.tag() != "CERTIFICATE" {
        return Err(wrong("issued certificate chain must consist entirely of CERTIFICATE PEM blocks"));
    }
    let leaf =
        parsed(leaf.contents()).ok_or_else(|| wrong("leaf certificate does not parse as valid X.509"))?;
    alternative_names(&leaf, errors);
    let spec = field(request, "spec");
    let stub = bytes(spec, "stubPKCS10Request");
    let (path, wanted) = if stub.is_empty() {
        (PKIX, key_of_spki(&bytes(spec, "pkixPublicKey")))
    } else {
        (PKCS10, key_of_request(&stub).map(|(key, _)| key))
    };
    let wanted = wanted.ok_or_else(|| {
        let kind = FieldErrorKind::Invalid;
        let detail = if path == PKIX {
            "must be a valid PKIX-serialized public key"
        } else {
            "must be a valid PKCS#10 CSR"
        };
        FieldError { kind, field: path.to_owned(), value: String::new(), detail: detail.to_owned() }
    })?;
    let got: Option<Key> = key_of_spki(leaf.tbs_certificate.subject_pki.raw);
    if got.as_ref() != Some(&wanted) {
        return Err(wrong("leaf certificate was not issued to the requested public key"));
    }
    times(request, &leaf, now, errors)?;
    for block in rest {
        if block.tag() != "CERTIFICATE" {
            return Err(wrong("issued certificate chain must consist entirely of CERTFICATE PEM blocks"));
        }
        if parsed(block.contents()).is_none() {
            return Err(wrong("intermediate certificate does not parse as valid X.509"));
        }
    }
    Ok(())
}

fn parsed(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der)
        .ok()
        .filter(|(rest, _)| rest.is_empty())
        .map(|(_, certificate)| certificate)
}

fn alternative_names(leaf: &X509Certificate<'_>, errors: &mut FieldErrors) {
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return };
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(name) => {
                if name.is_empty() {
                    errors.invalid(CHAIN, name, "leaf certificate should not contain empty DNSName");
                }
                if name.contains("..") {
                    errors.invalid(CHAIN, name, "leaf certificate's DNSName should not contain '..'");
                }
                if name.starts_with('.') || name.ends_with('.') {
                    let detail = "leaf certificate's DNSName should not start or end with '.'";
                    errors.invalid(CHAIN, name, detail);
                }
            }
            GeneralName::RFC822Name(address) => {
                let halves = address.rsplit_once('@');
                if !halves.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty()) {
                    let detail = "leaf certificate should not contain invalid EmailAddress";
                    errors.invalid(CHAIN, address, detail);
                }
            }
            _ => {}
        }
    }
}

fn times(
    request: &Object,
    leaf: &X509Certificate<'_>,
    now: Timestamp,
    errors: &mut FieldErrors,
) -> Result<(), FieldError> {
    const ISSUED: &str = "must be present and consistent with the issued certificate";
    const REFRESH: &str = "must be present and in the range [notbefore+10min, notafter-10min]";
    let status = At::root(request).at("status");
    let time = |key: &str| status.text(key).parse::<Timestamp>().ok().map(Timestamp::as_second);
    let (begin, end, refresh) = (time("notBefore"), time("notAfter"), time("beginRefreshAt"));
    let (Some(begin), Some(end), Some(refresh)) = (begin, end, refresh) else {
        for (key, given, detail) in
            [("notBefore", begin, ISSUED), ("notAfter", end, ISSUED), ("beginRefreshAt", refresh, REFRESH)]
        {
            if given.is_none() {
                status.required(key, detail, errors);
            }
        }
        return Ok(());
    };
    let wrong = |key: &str, detail: &str| Err(invalid(&status.under(key), status.text(key), detail));
    let (not_before, not_after) =
        (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    if begin != not_before {
        return wrong("notBefore", "must be set to the NotBefore time encoded in the leaf certificate");
    }
    if (begin - now.as_second()).abs() >= CLOCK_SKEW_SECONDS {
        return wrong("notBefore", "must be set to within 5 minutes of kube-apiserver's current time");
    }
    if end != not_after {
        return wrong("notAfter", "must be set to the NotAfter time encoded in the leaf certificate");
    }
    let lifetime = not_after.saturating_sub(not_before);
    let nanoseconds = lifetime.saturating_mul(1_000_000_000);
    if lifetime < SECONDS_MIN {
        return Err(invalid(CHAIN, nanoseconds, "leaf certificate lifetime must be >= 1 hour"));
    }
    let most = at(request, &["spec", "maxExpirationSeconds"]).as_i64().unwrap_or(0);
    if lifetime > most {
        let detail = format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({most})");
        return Err(invalid(CHAIN, nanoseconds, detail));
    }
    if refresh < begin.saturating_add(REFRESH_MARGIN_SECONDS) {
        return wrong("beginRefreshAt", "must be at least 10 minutes after status.notBefore");
    }
    if refresh > end.saturating_sub(REFRESH_MARGIN_SECONDS) {
        return wrong("beginRefreshAt", "must be at least 10 minutes before status.notAfter");
    }
    Ok(())
}

#[cfg(test)]
#[path = "pod_certificates_tests.rs"]
mod tests;
