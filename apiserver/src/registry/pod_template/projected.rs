//! Projected volumes: files of several sources in one folder.

use std::collections::BTreeSet;

use common::status::FieldErrors;
use serde_json::Value;

use super::volumes::{downward_items, file_path, key_items, mode};
use crate::registry::checks::At;
use crate::registry::others::signer_names::{is_kubernetes, signer_name};
use crate::registry::others::trust_bundles::wrong_with_name;
use crate::registry::others::user_annotations::user_annotations;
use crate::registry::tree::{items, text};

const TOKEN_SECONDS_MIN: i64 = 10 * 60;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const CERTIFICATE_SECONDS_MIN: i64 = 60 * 60;
const CERTIFICATE_SECONDS_MAX: i64 = 91 * 24 * 60 * 60;
const KUBERNETES_CERTIFICATE_SECONDS_MAX: i64 = 24 * 60 * 60;
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
const KINDS: [&str; 6] =
    ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

/// The paths that sources have taken.
struct Taken<'a> {
    volume: &'a str,
    paths: BTreeSet<&'a str>,
}

impl<'a> Taken<'a> {
    /// Takes a path; errors name `shown`.
    fn take(&mut self, path: &'a str, shown: &str, errors: &mut FieldErrors) {
        if !self.paths.insert(path) {
            errors.invalid(self.volume, shown, "conflicting duplicate paths");
        }
    }
}

pub(super) fn projected(source: &Value, path: &str, errors: &mut FieldErrors) {
    mode(source, "defaultMode", path, errors);
    let volume = At { value: source, path: path.to_owned() };
    let mut taken = Taken { volume: path, paths: BTreeSet::new() };
    for part in volume.each("sources") {
        let present: Vec<&str> = KINDS.into_iter().filter(|kind| part.has(kind)).collect();
        for kind in &present {
            let inner = part.at(kind);
            match *kind {
                "secret" | "configMap" => {
                    inner.required_text("name", errors);
                    key_items(inner.value, &inner.path, errors);
                    take_items(inner.value, Some(inner.text("name")), &mut taken, errors);
                }
                "downwardAPI" => {
                    downward_items(inner.value, &inner.path, errors);
                    take_items(inner.value, None, &mut taken, errors);
                }
                "serviceAccountToken" => token(&inner, path, errors),
                "clusterTrustBundle" => bundle(&inner, &mut taken, errors),
                _ => certificate(&inner, &mut taken, errors),
            }
        }
        if present.len() > 1 {
            errors.forbidden(&part.path, "may not specify more than 1 volume type per source");
        }
    }
}

fn take_items<'a>(source: &'a Value, name: Option<&str>, taken: &mut Taken<'a>, errors: &mut FieldErrors) {
    for path in items(source, "items").iter().map(|item| text(item, "path")).filter(|p| !p.is_empty()) {
        taken.take(path, name.unwrap_or(path), errors);
    }
}

/// Upstream places errors of the path beside the sources.
fn token(token: &At<'_>, volume: &str, errors: &mut FieldErrors) {
    let seconds = token.int("expirationSeconds").unwrap_or(3600);
    if seconds < TOKEN_SECONDS_MIN {
        let detail = "may not specify a duration less than 10 minutes";
        errors.invalid(token.under("expirationSeconds"), seconds, detail);
    } else if seconds > TOKEN_SECONDS_MAX {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.invalid(token.under("expirationSeconds"), seconds, detail);
    }
    let path = format!("{volume}.path");
    match token.text("path") {
        "" => errors.required(path, ""),
        text => file_path(text, &path, errors),
    }
}

fn bundle<'a>(bundle: &At<'a>, taken: &mut Taken<'a>, errors: &mut FieldErrors) {
    match (bundle.has("name"), bundle.has("signerName")) {
        (true, true) => {
            errors.invalid(&bundle.path, bundle.value, "only one of name and signerName may be used");
        }
        (true, false) => {
            let name = bundle.text("name");
            if name.is_empty() {
                bundle.required("name", "must be a valid object name", errors);
            }
            let signer = name.rsplit_once(':').map_or(String::new(), |(signer, _)| signer.replace(':', "/"));
            for message in wrong_with_name(name, &signer) {
                bundle.invalid("name", format!("not a valid clustertrustbundlename: {message}"), errors);
            }
            if bundle.has("labelSelector") {
                let detail = "labelSelector must be unset if name is specified";
                bundle.invalid("labelSelector", detail, errors);
            }
        }
        (false, true) => {
            let signer = bundle.text("signerName");
            if signer.is_empty() {
                bundle.required("signerName", "must be a valid signer name", errors);
            }
            signer_name(signer, &bundle.under("signerName"), errors);
            bundle.selector("labelSelector", errors);
        }
        (false, false) => errors.required(&bundle.path, "either name or signerName must be specified"),
    }
    bundle.required_text("path", errors);
    let path = bundle.text("path");
    file_path(path, &bundle.under("path"), errors);
    taken.take(path, path, errors);
}

fn certificate<'a>(certificate: &At<'a>, taken: &mut Taken<'a>, errors: &mut FieldErrors) {
    let signer = certificate.text("signerName");
    signer_name(signer, &certificate.under("signerName"), errors);
    user_annotations(certificate, "userAnnotations", errors);
    let kind = certificate.text("keyType");
    if !KEY_TYPES.contains(&kind) {
        errors.not_supported(certificate.under("keyType"), kind, &KEY_TYPES);
    }
    if let Some(seconds) = certificate.int("maxExpirationSeconds") {
        let most =
            if is_kubernetes(signer) { KUBERNETES_CERTIFICATE_SECONDS_MAX } else { CERTIFICATE_SECONDS_MAX };
        let bound = if seconds < CERTIFICATE_SECONDS_MIN {
            Some(format!(">= {CERTIFICATE_SECONDS_MIN}"))
        } else {
            (seconds > most).then(|| format!("<= {most}"))
        };
        if let Some(bound) = bound {
            let detail = format!("if provided, maxExpirationSeconds must be {bound}");
            errors.invalid(certificate.under("maxExpirationSeconds"), seconds, detail);
        }
    }
    let keys = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    let given: Vec<&str> = keys.into_iter().filter(|key| !certificate.text(key).is_empty()).collect();
    for key in &given {
        let path = certificate.text(key);
        file_path(path, &certificate.under(key), errors);
        taken.take(path, path, errors);
    }
    if given.is_empty() {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.required(&certificate.path, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bad_projections_are_refused_in_upstreams_words() {
        let check = |sources: Value, expected: &[&str]| {
            let volume = json!({"sources": sources});
            let mut errors = FieldErrors::new();
            projected(&volume, "v", &mut errors);
            let errors: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
            assert_eq!(errors, expected, "{volume}");
        };
        check(json!([{"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]), &[]);
        check(
            json!([{"serviceAccountToken": {"path": "../token", "expirationSeconds": 60}}]),
            &[
                "v.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
                "v.path: Invalid value: \"../token\": must not contain '..'",
            ],
        );
        check(json!([{"clusterTrustBundle": {"signerName": "a.b/c", "path": "ca"}}]), &[]);
        check(
            json!([{"clusterTrustBundle": {"path": "ca"}}, {"clusterTrustBundle": {"name": "a", "path": "ca"}}]),
            &[
                "v.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified",
                "v: Invalid value: \"ca\": conflicting duplicate paths",
            ],
        );
        let certificate = json!({"signerName": "a.b/c", "keyType": "ED25519", "keyPath": "k"});
        check(json!([{"podCertificate": certificate}]), &[]);
        check(
            json!([{"podCertificate": {"signerName": "x.kubernetes.io/c", "keyType": "DSA", "maxExpirationSeconds": 90_000}}]),
            &[
                "v.sources[0].podCertificate.keyType: Unsupported value: \"DSA\": supported values: \"ECDSAP256\", \"ECDSAP384\", \"ECDSAP521\", \"ED25519\", \"RSA3072\", \"RSA4096\"",
                "v.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 90000: if provided, maxExpirationSeconds must be <= 86400",
                "v.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
            ],
        );
        check(
            json!([{"secret": {"name": "s"}, "configMap": {"name": "c"}}]),
            &["v.sources[0]: Forbidden: may not specify more than 1 volume type per source"],
        );
    }
}
