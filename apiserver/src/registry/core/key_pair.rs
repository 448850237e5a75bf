//! A certificate and its key, as Go's `tls.X509KeyPair` judges them and in its words.

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use x509_parser::der_parser::der::parse_der_sequence;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::registry::others::public_keys::{Key, key_of_spki};

const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";

/// What is wrong with the pair, if anything. A key of a kind that cannot be used here is not judged.
pub fn problem(certificate: &[u8], key: &[u8]) -> Option<String> {
    judge(certificate, key).err()
}

fn judge(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let certificate = certificate_block(certificate)?;
    let key = key_block(key)?;
    let Ok((_, certificate)) = X509Certificate::from_der(&certificate) else {
        return Err("x509: malformed certificate".to_owned());
    };
    let Some(private) = public_of(&key)? else { return Ok(()) };
    match (key_of_spki(certificate.public_key().raw), private) {
        (None | Some(Key::Unknown), _) => Err("tls: unknown public key algorithm".to_owned()),
        (Some(public), private) if public == private => Ok(()),
        (Some(public), private) if std::mem::discriminant(&public) == std::mem::discriminant(&private) => {
            Err("tls: private key does not match public key".to_owned())
        }
        _ => Err("tls: private key type does not match public key type".to_owned()),
    }
}

/// The first block that is wanted, or the types of those that were passed over.
fn find(text: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Vec<u8>, Vec<String>> {
    let mut skipped = Vec::new();
    for block in pem::parse_many(text).unwrap_or_default() {
        if wanted(block.tag()) {
            return Ok(block.into_contents());
        }
        skipped.push(block.tag().to_owned());
    }
    Err(skipped)
}

fn certificate_block(text: &[u8]) -> Result<Vec<u8>, String> {
    find(text, |tag| tag == CERTIFICATE).map_err(|skipped| match skipped.as_slice() {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [one] if one.ends_with(PRIVATE_KEY) => "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_owned(),
        _ => format!("tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]", skipped.join(" ")),
    })
}

fn key_block(text: &[u8]) -> Result<Vec<u8>, String> {
    let wanted = |tag: &str| tag == PRIVATE_KEY || tag.ends_with(" PRIVATE KEY");
    find(text, wanted).map_err(|skipped| match skipped.as_slice() {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [one] if one == CERTIFICATE => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        _ => format!("tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]", skipped.join(" ")),
    })
}

/// The public half of a private key, in whichever form it is; `None` for one of a kind that is not known here.
fn public_of(der: &[u8]) -> Result<Option<Key>, String> {
    let forms =
        [PrivateKeyDer::Pkcs8(der.into()), PrivateKeyDer::Pkcs1(der.into()), PrivateKeyDer::Sec1(der.into())];
    let Some(key) = forms.iter().find_map(|form| any_supported_type(form).ok()) else {
        let is_sequence = parse_der_sequence(der).is_ok_and(|(rest, _)| rest.is_empty());
        return if is_sequence { Ok(None) } else { Err("tls: failed to parse private key".to_owned()) };
    };
    Ok(key.public_key().and_then(|spki| key_of_spki(&spki)))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

    use super::*;

    fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let certificate = CertificateParams::default().self_signed(&key).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_pair_is_one_of_the_same_key() {
        let (certificate, key) = pair(&PKCS_ECDSA_P256_SHA256);
        let (other_certificate, other_key) = pair(&PKCS_ECDSA_P256_SHA256);
        let (ed_certificate, ed_key) = pair(&PKCS_ED25519);
        let nonsense = |tag: &str| pem::encode(&pem::Pem::new(tag, b"x".to_vec()));
        let check = |certificate: &str, key: &str, expected: Option<&str>| {
            assert_eq!(problem(certificate.as_bytes(), key.as_bytes()).as_deref(), expected);
        };
        check(&certificate, &key, None);
        check(&ed_certificate, &ed_key, None);
        check(&format!("# mine\n{certificate}{other_certificate}"), &key, None);
        check(&certificate, &other_key, Some("tls: private key does not match public key"));
        check(&certificate, &ed_key, Some("tls: private key type does not match public key type"));
        check("", &key, Some("tls: failed to find any PEM data in certificate input"));
        check(&certificate, "", Some("tls: failed to find any PEM data in key input"));
        let switched = "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched";
        check(&key, &certificate, Some(switched));
        let rather = "tls: found a certificate rather than a key in the PEM for the private key";
        check(&certificate, &certificate, Some(rather));
        let skipped = "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [A B]";
        check(&certificate, &(nonsense("A") + &nonsense("B")), Some(skipped));
        check(&nonsense("CERTIFICATE"), &key, Some("x509: malformed certificate"));
        check(&certificate, &nonsense("EC PRIVATE KEY"), Some("tls: failed to parse private key"));
    }
}
