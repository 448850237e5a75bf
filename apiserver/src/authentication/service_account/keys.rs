//! Key files: PEM with RSA or EC keys, private or public, or certificates.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    RsaKeyPair, UnparsedPublicKey,
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::der;

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("reading {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: data does not contain any valid RSA or ECDSA {what} keys")]
    NoKey { path: PathBuf, what: &'static str },
}

/// JOSE algorithms that keys here can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Es256,
    Es384,
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    fn curve(self) -> &'static [u8] {
        match self {
            Self::Es384 => der::P384,
            _ => der::P256,
        }
    }
}

/// A key that signatures are checked with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub algorithm: Algorithm,
    /// PKCS#1 `RSAPublicKey`, or the uncompressed point.
    material: Vec<u8>,
    /// Base64url of the SHA-256 of the SubjectPublicKeyInfo.
    pub id: String,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.algorithm.name(), self.id)
    }
}

impl PublicKey {
    fn new(algorithm: Algorithm, material: Vec<u8>) -> Self {
        let spki = match algorithm {
            Algorithm::Rs256 => der::rsa_spki(&material),
            _ => der::ec_spki(algorithm.curve(), &material),
        };
        Self { algorithm, material, id: URL_SAFE_NO_PAD.encode(Sha256::digest(spki)) }
    }

    fn from_spki(spki: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let material = spki.subject_public_key.data.to_vec();
        let oid = spki.algorithm.algorithm.to_id_string();
        match oid.as_str() {
            "1.2.840.113549.1.1.1" => Some(Self::new(Algorithm::Rs256, material)),
            "1.2.840.10045.2.1" => {
                let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
                match curve.as_str() {
                    "1.2.840.10045.3.1.7" => Some(Self::new(Algorithm::Es256, material)),
                    "1.3.132.0.34" => Some(Self::new(Algorithm::Es384, material)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// True when `signature` over `message` was made with the private half.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn ring::signature::VerificationAlgorithm = match self.algorithm {
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
        };
        UnparsedPublicKey::new(algorithm, &self.material).verify(message, signature).is_ok()
    }

    /// The JSON Web Key (RFC 7517).
    pub fn jwk(&self) -> serde_json::Value {
        let mut key = serde_json::json!({"use": "sig", "kid": self.id, "alg": self.algorithm.name()});
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self.algorithm {
            Algorithm::Rs256 => {
                let (n, e) = der::rsa_parts(&self.material).unwrap_or_default();
                key["kty"] = "RSA".into();
                key["n"] = encode(n).into();
                key["e"] = encode(e).into();
            }
            Algorithm::Es256 | Algorithm::Es384 => {
                // 0x04, then both coordinates.
                let point = self.material.get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                key["kty"] = "EC".into();
                key["crv"] = if self.algorithm == Algorithm::Es256 { "P-256" } else { "P-384" }.into();
                key["x"] = encode(x).into();
                key["y"] = encode(y).into();
            }
        }
        key
    }
}

/// A key that signs.
pub enum PrivateKey {
    Rsa(RsaKeyPair),
    Ec(Algorithm, EcdsaKeyPair),
}

impl PrivateKey {
    /// # Errors
    /// When the file cannot be read or holds no usable private key.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = std::fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
        blocks(&text)
            .iter()
            .find_map(Self::from_block)
            .ok_or_else(|| KeyError::NoKey { path: path.to_owned(), what: "private" })
    }

    fn from_block(block: &pem::Pem) -> Option<Self> {
        let der = block.contents();
        let random = SystemRandom::new();
        match block.tag() {
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(der).ok().map(Self::Rsa),
            "EC PRIVATE KEY" => {
                let (curve, private, public) = der::sec1(der)?;
                let (algorithm, signing) = if curve == der::P256 {
                    (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED_SIGNING)
                } else if curve == der::P384 {
                    (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED_SIGNING)
                } else {
                    return None;
                };
                EcdsaKeyPair::from_private_key_and_public_key(signing, private, public, &random)
                    .ok()
                    .map(|pair| Self::Ec(algorithm, pair))
            }
            "PRIVATE KEY" => {
                let ec = |signing| EcdsaKeyPair::from_pkcs8(signing, der, &random).ok();
                RsaKeyPair::from_pkcs8(der)
                    .ok()
                    .map(Self::Rsa)
                    .or_else(|| ec(&ECDSA_P256_SHA256_FIXED_SIGNING).map(|p| Self::Ec(Algorithm::Es256, p)))
                    .or_else(|| ec(&ECDSA_P384_SHA384_FIXED_SIGNING).map(|p| Self::Ec(Algorithm::Es384, p)))
            }
            _ => None,
        }
    }

    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa(_) => Algorithm::Rs256,
            Self::Ec(algorithm, _) => *algorithm,
        }
    }

    pub fn public(&self) -> PublicKey {
        match self {
            Self::Rsa(pair) => PublicKey::new(Algorithm::Rs256, pair.public_key().as_ref().to_vec()),
            Self::Ec(algorithm, pair) => PublicKey::new(*algorithm, pair.public_key().as_ref().to_vec()),
        }
    }

    /// The signature in JOSE form; `None` when the random source or the key fails.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut out = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut out).ok()?;
                Some(out)
            }
            Self::Ec(_, pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
        }
    }
}

/// Every public key in a file, those of private keys and certificates included.
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn load_public(path: &Path) -> Result<Vec<PublicKey>, KeyError> {
    let text = std::fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
    let keys: Vec<PublicKey> = blocks(&text).iter().filter_map(public_of).collect();
    if keys.is_empty() {
        return Err(KeyError::NoKey { path: path.to_owned(), what: "public" });
    }
    Ok(keys)
}

fn public_of(block: &pem::Pem) -> Option<PublicKey> {
    match block.tag() {
        "PUBLIC KEY" => {
            let (_, spki) = SubjectPublicKeyInfo::from_der(block.contents()).ok()?;
            PublicKey::from_spki(&spki)
        }
        "RSA PUBLIC KEY" => Some(PublicKey::new(Algorithm::Rs256, block.contents().to_vec())),
        "CERTIFICATE" => {
            let (_, certificate) = x509_parser::parse_x509_certificate(block.contents()).ok()?;
            PublicKey::from_spki(certificate.public_key())
        }
        _ => PrivateKey::from_block(block).map(|key| key.public()),
    }
}

fn blocks(text: &[u8]) -> Vec<pem::Pem> {
    pem::parse_many(text).unwrap_or_default()
}
