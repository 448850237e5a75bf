//! Public keys of certificate requests: which they are, and what they signed.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

const ED25519: &str = "1.3.101.112";
const ED25519_BYTES: usize = 32;
/// Bits of the moduli that upstream takes.
const MODULI: [usize; 2] = [3072, 4096];

/// A public key, equal to another when it is the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    Ed25519(Vec<u8>),
    /// The curve's name as Go has it, and the point.
    Ecdsa(&'static str, Vec<u8>),
    /// The bits of the modulus, in whole bytes, and the key's DER.
    Rsa(usize, Vec<u8>),
    Unknown,
}

/// The key of a DER-encoded SubjectPublicKeyInfo; `None` when there is none in it.
pub fn key_of_spki(der: &[u8]) -> Option<Key> {
    let (rest, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
    rest.is_empty().then(|| key(&info)).flatten()
}

/// The key of a DER-encoded PKCS#10 request, and whether the request is signed with it.
pub fn key_of_request(der: &[u8]) -> Option<(Key, bool)> {
    let (rest, request) = X509CertificationRequest::from_der(der).ok()?;
    let key = key(&request.certification_request_info.subject_pki)?;
    rest.is_empty().then(|| (key, request.verify_signature().is_ok()))
}

fn key(info: &SubjectPublicKeyInfo<'_>) -> Option<Key> {
    let bits = info.subject_public_key.data.to_vec();
    if info.algorithm.algorithm.to_id_string() == ED25519 {
        return (bits.len() == ED25519_BYTES).then_some(Key::Ed25519(bits));
    }
    match info.parsed() {
        Ok(PublicKey::RSA(rsa)) => {
            let modulus = rsa.modulus.iter().skip_while(|b| **b == 0).count();
            Some(Key::Rsa(modulus * 8, bits))
        }
        Ok(PublicKey::EC(_)) => {
            let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
            let name = match curve.to_id_string().as_str() {
                "1.3.132.0.33" => "P-224",
                "1.2.840.10045.3.1.7" => "P-256",
                "1.3.132.0.34" => "P-384",
                "1.3.132.0.35" => "P-521",
                _ => return None,
            };
            Some(Key::Ecdsa(name, bits))
        }
        Ok(_) => Some(Key::Unknown),
        Err(_) => None,
    }
}

impl Key {
    /// Why a key of this kind is not taken: the value to show, where there is one, and the reason.
    pub fn wrong(&self, curves: &'static str) -> Option<(Option<String>, &'static str)> {
        match self {
            Self::Ed25519(_) | Self::Ecdsa("P-256" | "P-384" | "P-521", _) => None,
            Self::Ecdsa(name, _) => Some((Some(format!("curve {name}")), curves)),
            Self::Rsa(bits, _) if MODULI.contains(bits) => None,
            Self::Rsa(bits, _) => {
                Some((Some(format!("{bits}-bit modulus")), "RSA keys must have modulus size 3072 or 4096"))
            }
            Self::Unknown => {
                Some((None, "unknown public key type; supported types are Ed25519, ECDSA, and RSA"))
            }
        }
    }

    /// `signature` is this key's over the message (over its SHA-256 but for Ed25519).
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (algorithm, key): (&dyn VerificationAlgorithm, &Vec<u8>) = match self {
            Self::Ed25519(key) => (&signature::ED25519, key),
            Self::Ecdsa("P-256", key) => (&signature::ECDSA_P256_SHA256_ASN1, key),
            Self::Ecdsa("P-384", key) => (&signature::ECDSA_P384_SHA256_ASN1, key),
            Self::Rsa(_, key) => (&signature::RSA_PSS_2048_8192_SHA256, key),
            Self::Ecdsa(..) | Self::Unknown => return false,
        };
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }
}
