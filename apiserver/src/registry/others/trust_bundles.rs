//! ClusterTrustBundles: the anchors of trust that a signer, or nobody in particular, publishes.

use std::collections::BTreeMap;

use common::status::FieldErrors;
use x509_parser::prelude::FromDer;

use super::signer_names::signer_name;
use crate::object::{self, Object};
use crate::registry::checks::At;
use crate::registry::core::immutable;
use crate::registry::names;
use crate::registry::rules::Rules;
use crate::registry::tree::{at, text};

const BUNDLE_BYTES_MAX: usize = 1024 * 1024;
const PATH: &str = "spec.trustBundle";

pub const CLUSTER_TRUST_BUNDLE: Rules = Rules {
    // What it may be called depends on its signer; see `name`.
    name: names::path_segment,
    validate: |bundle, errors| {
        name(bundle, errors);
        anchors(text(at(bundle, &["spec"]), "trustBundle"), errors);
    },
    update_validates: false,
    validate_update: |new, old, errors| {
        name(new, errors);
        let (bundle, before) = (text(at(new, &["spec"]), "trustBundle"), at(old, &["spec"]));
        // What another version of the server read is not parsed again.
        if bundle != text(before, "trustBundle") {
            anchors(bundle, errors);
        }
        immutable(new, old, &["spec", "signerName"], errors);
    },
    unconditional_update: false,
    ..Rules::PLAIN
};

/// With a signer the name begins with the signer's; without, it has no colon.
fn name(bundle: &Object, errors: &mut FieldErrors) {
    let (name, spec) = (object::name(bundle), At::root(bundle).at("spec"));
    let signer = spec.text("signerName");
    for message in wrong_with_name(name, signer) {
        errors.invalid("metadata.name", name, message);
    }
    if !signer.is_empty() {
        signer_name(signer, &spec.under("signerName"), errors);
    }
}

/// What is wrong with a bundle's name, given its signer or none (`ValidateClusterTrustBundleName`).
pub fn wrong_with_name(name: &str, signer: &str) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()]
        } else {
            names::dns1123_subdomain(name)
        }
    } else {
        let prefix = format!("{}:", signer.replace('/', ":"));
        match name.strip_prefix(&prefix) {
            Some(rest) => names::dns1123_subdomain(rest),
            None => {
                vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")]
            }
        }
    }
}

/// Certificates of authorities, each once, at least one.
fn anchors(bundle: &str, errors: &mut FieldErrors) {
    if bundle.len() > BUNDLE_BYTES_MAX {
        errors.too_long(PATH, BUNDLE_BYTES_MAX);
        return;
    }
    let mut refuse = |detail: String| errors.invalid(PATH, "<value omitted>", detail);
    let blocks = pem::parse_many(bundle).unwrap_or_default();
    let mut seen: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
    let mut sound = true;
    for (i, block) in blocks.iter().enumerate() {
        let wrong = if block.tag() == "CERTIFICATE" {
            wrong_with(block)
        } else {
            Some(format!("has bad block type: {}", block.tag()))
        };
        match wrong {
            Some(wrong) => {
                refuse(format!("entry {i} {wrong}"));
                sound = false;
            }
            None => seen.entry(block.contents()).or_default().push(i),
        }
    }
    if !sound {
        return;
    }
    if seen.is_empty() {
        refuse("at least one trust anchor must be provided".to_owned());
    }
    for indices in seen.values().filter(|indices| indices.len() > 1) {
        let indices: Vec<String> = indices.iter().map(ToString::to_string).collect();
        refuse(format!("duplicate trust anchor (indices [{}])", indices.join(" ")));
    }
}

fn wrong_with(block: &pem::Pem) -> Option<String> {
    if block.headers().iter().next().is_some() {
        return Some("has PEM block headers".to_owned());
    }
    let parsed = x509_parser::certificate::X509Certificate::from_der(block.contents());
    let Some((_, certificate)) = parsed.ok().filter(|(rest, _)| rest.is_empty()) else {
        return Some("does not parse as X.509".to_owned());
    };
    match certificate.basic_constraints() {
        Err(_) => Some("has invalid basic constraints".to_owned()),
        Ok(constraints) if constraints.as_ref().is_some_and(|c| c.value.ca) => None,
        Ok(_) => Some("does not have the CA bit set".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use serde_json::{Value, json};

    fn certificate(authority: bool) -> String {
        let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).expect("names");
        if authority {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").pem()
    }

    fn bundle(name: &str, signer: &str, anchors: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"signerName": signer, "trustBundle": anchors}})
    }

    #[test]
    fn a_bundle_is_named_after_its_signer() {
        let anchors = certificate(true);
        let check = |name: &str, signer: &str, expected: &[&str]| {
            assert_eq!(found(CLUSTER_TRUST_BUNDLE, &bundle(name, signer, &anchors)), expected);
        };
        check("roots", "", &[]);
        check("example.com:s:roots", "example.com/s", &[]);
        check(
            "a:b",
            "",
            &[
                "metadata.name: Invalid value: \"a:b\": ClusterTrustBundle without signer name must not have \":\" in its name",
            ],
        );
        check(
            "roots",
            "example.com/s",
            &[
                "metadata.name: Invalid value: \"roots\": ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:",
            ],
        );
    }

    #[test]
    fn anchors_are_authorities_each_once() {
        let check = |anchors: &str, expected: &[&str]| {
            let expected: Vec<String> = expected
                .iter()
                .map(|detail| format!("spec.trustBundle: Invalid value: \"<value omitted>\": {detail}"))
                .collect();
            assert_eq!(found(CLUSTER_TRUST_BUNDLE, &bundle("a", "", anchors)), expected);
        };
        let (one, leaf) = (certificate(true), certificate(false));
        check(&format!("{one}words between\n{}", certificate(true)), &[]);
        check("", &["at least one trust anchor must be provided"]);
        check(&format!("{one}{one}"), &["duplicate trust anchor (indices [0 1])"]);
        check(&leaf, &["entry 0 does not have the CA bit set"]);
        check(&one.replace("CERTIFICATE", "KEY"), &["entry 0 has bad block type: KEY"]);
        let nonsense = pem::encode(&pem::Pem::new("CERTIFICATE", b"x".to_vec()));
        check(&format!("{one}{nonsense}"), &["entry 1 does not parse as X.509"]);
    }

    #[test]
    fn anchors_that_stay_are_not_read_again() {
        let old = bundle("a", "", "nothing");
        assert_eq!(found_on_update(CLUSTER_TRUST_BUNDLE, &old, |_| {}), [""; 0]);
        let errors =
            found_on_update(CLUSTER_TRUST_BUNDLE, &old, |new| new["spec"]["trustBundle"] = json!("none"));
        assert_eq!(errors.len(), 1);
        let errors = found_on_update(
            CLUSTER_TRUST_BUNDLE,
            &bundle("example.com:s:a", "example.com/s", &certificate(true)),
            |new| new["spec"]["signerName"] = json!("example.com/t"),
        );
        assert_eq!(
            errors.last().map(String::as_str),
            Some("spec.signerName: Invalid value: \"example.com/t\": field is immutable")
        );
    }
}
