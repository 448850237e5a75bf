use super::*;
use crate::registry::checks::{found, found_on_update};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};

fn request(key: &KeyPair) -> Value {
    let csr = CertificateParams::default().serialize_request(key).expect("a request");
    json!({"metadata": {"name": "r"}, "spec": {
        "signerName": "example.com/s", "podName": "p", "podUID": "1", "serviceAccountName": "s",
        "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3", "maxExpirationSeconds": 86400,
        "stubPKCS10Request": STANDARD.encode(csr.der())}})
}

#[test]
fn bad_requests_are_refused_in_upstreams_words() {
    let key = KeyPair::generate().expect("a key");
    let check = |pointer: &str, value: Value, expected: &[&str]| {
        let mut request = request(&key);
        let (owner, field) = pointer.rsplit_once('/').expect("a pointer");
        crate::registry::tree::set(request.pointer_mut(owner).expect("an owner"), field, value);
        assert_eq!(found(POD_CERTIFICATE_REQUEST, &request), expected, "{pointer}");
    };
    check("/spec/podName", json!("q"), &[]);
    check("/spec/podUID", json!(""), &["spec.podUID: Invalid value: \"\": must not be empty"]);
    check("/spec/signerName", json!(""), &["spec.signerName: Required value"]);
    check(
        "/spec/maxExpirationSeconds",
        Value::Null,
        &["spec.maxExpirationSeconds: Required value: must be set"],
    );
    check(
        "/spec/maxExpirationSeconds",
        json!(60),
        &["spec.maxExpirationSeconds: Invalid value: 60: must be in the range [3600, 7862400]"],
    );
    check(
        "/spec/unverifiedUserAnnotations",
        json!({"plain": "x"}),
        &[
            "spec.unverifiedUserAnnotations: Invalid value: \"plain\": must be a domain-prefixed key (such as \"acme.io/foo\")",
        ],
    );
    check(
        "/spec/stubPKCS10Request",
        Value::Null,
        &[
            "spec: Invalid value: exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set",
        ],
    );
    check(
        "/spec/stubPKCS10Request",
        json!("AAAA"),
        &["spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR"],
    );
    let errors = found_on_update(POD_CERTIFICATE_REQUEST, &request(&key), |new| {
        new["spec"]["podName"] = json!("q");
    });
    assert!(errors[0].ends_with("field is immutable"), "{errors:?}");
}

#[test]
fn a_bare_key_comes_with_a_proof() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let pair = ring::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key.serialize_der());
    let pair = pair.expect("PKCS#8");
    let check = |signed: &[u8], expected: &[&str]| {
        let mut request = request(&key);
        crate::registry::tree::remove(&mut request["spec"], "stubPKCS10Request");
        request["spec"]["pkixPublicKey"] = json!(STANDARD.encode(key.subject_public_key_info()));
        request["spec"]["proofOfPossession"] = json!(STANDARD.encode(pair.sign(signed).as_ref()));
        assert_eq!(found(POD_CERTIFICATE_REQUEST, &request), expected);
    };
    check(b"1", &[]);
    check(b"2", &["spec.proofOfPossession: Invalid value: could not verify proof-of-possession signature"]);
}

/// 2027-01-15, midnight.
const NOW: i64 = 1_799_971_200;

fn rfc3339(seconds: i64) -> String {
    Timestamp::from_second(seconds).expect("a time").to_string()
}

/// What an issuer writes, valid from now for so long.
fn answer(key: &KeyPair, seconds: i64) -> Value {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2027, 1, 15);
    params.not_after = params.not_before + std::time::Duration::from_secs(seconds.unsigned_abs());
    let pem = params.self_signed(key).expect("a certificate").pem();
    json!({"certificateChain": pem, "notBefore": rfc3339(NOW), "notAfter": rfc3339(NOW + seconds),
        "beginRefreshAt": rfc3339(NOW + seconds / 2), "conditions": [condition("Issued")]})
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "R", "lastTransitionTime": rfc3339(NOW)})
}

fn changed(key: &KeyPair, old: Value, new: Value) -> Vec<String> {
    let with = |status: Value| {
        let mut request = request(key);
        request["status"] = status;
        request
    };
    let mut errors = FieldErrors::new();
    let now = Timestamp::from_second(NOW + 60).expect("a time");
    status(&with(new), &with(old), now, &mut errors);
    errors.0.iter().map(ToString::to_string).collect()
}

#[test]
fn a_request_ends_once() {
    let key = KeyPair::generate().expect("a key");
    let end = |kind: &str| json!({"conditions": [condition(kind)]});
    let issued = answer(&key, 7200);
    assert_eq!(changed(&key, json!({}), issued.clone()), [""; 0]);
    assert_eq!(changed(&key, json!({}), end("Denied")), [""; 0]);
    assert_eq!(changed(&key, issued.clone(), issued.clone()), [""; 0]);
    assert_eq!(
        changed(&key, end("Failed"), issued.clone()),
        ["status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed"]
    );
    assert_eq!(
        changed(&key, json!({}), json!({"notBefore": rfc3339(NOW)})),
        [
            "status: Invalid value: status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\""
        ]
    );
    let mut both = end("Denied");
    both["certificateChain"] = json!("x");
    assert_eq!(
        changed(&key, json!({}), both),
        [
            "status: Invalid value: non-condition status fields must be empty when denying or failing the PodCertificateRequest"
        ]
    );
    assert_eq!(
        changed(&key, json!({}), json!({"conditions": [condition("Issued"), condition("Other")]})),
        [
            "status.conditions.[1].type: Unsupported value: \"Other\": supported values: \"Denied\", \"Failed\", \"Issued\""
        ]
    );
}

#[test]
fn a_certificate_is_for_the_key_and_the_time() {
    let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let check = |mut status: Value, change: (&str, Value), expected: &str| {
        crate::registry::tree::set(&mut status, change.0, change.1);
        let errors = changed(&key, json!({}), status);
        assert!(errors.len() == 1 && errors[0].ends_with(expected), "{expected}: {errors:?}");
    };
    let none = ("reason", Value::Null);
    check(answer(&other, 7200), none.clone(), "leaf certificate was not issued to the requested public key");
    check(answer(&key, 1800), none.clone(), ": leaf certificate lifetime must be >= 1 hour");
    check(answer(&key, 90_000), none, "lifetime must be <= spec.maxExpirationSeconds (86400)");
    check(answer(&key, 7200), ("certificateChain", json!("")), "must contain at least one certificate");
    check(
        answer(&key, 7200),
        ("notBefore", json!(rfc3339(NOW + 1))),
        "must be set to the NotBefore time encoded in the leaf certificate",
    );
    check(
        answer(&key, 7200),
        ("beginRefreshAt", json!(rfc3339(NOW + 60))),
        "must be at least 10 minutes after status.notBefore",
    );
    check(
        answer(&key, 7200),
        ("beginRefreshAt", Value::Null),
        "status.beginRefreshAt: Required value: must be present and in the range [notbefore+10min, notafter-10min]",
    );
}
