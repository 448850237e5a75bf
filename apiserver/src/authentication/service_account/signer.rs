//! Tokens are made here and nowhere else.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Claims;
use super::keys::{KeyError, PrivateKey, PublicKey};

/// Signs service account tokens as one issuer with one key.
pub struct Signer {
    issuer: String,
    key: PrivateKey,
    /// The encoded JOSE header, the same for every token.
    header: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Signer {
    /// Loads the private key of `--service-account-signing-key-file`.
    ///
    /// # Errors
    /// When the file holds no usable RSA or EC private key.
    pub fn load(issuer: &str, key_file: &Path) -> Result<Self, KeyError> {
        let key = PrivateKey::load(key_file)?;
        let header = serde_json::json!({"alg": key.algorithm().name(), "kid": key.public().id});
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        Ok(Self { issuer: issuer.to_owned(), key, header })
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// The compact JWT of `claims`, with the issuer set to this signer's. `None` when the system's random
    /// source fails; nothing in the claims can make it fail.
    pub fn sign(&self, claims: &Claims) -> Option<String> {
        let claims = Claims { iss: self.issuer.clone(), ..claims.clone() };
        let body = serde_json::to_vec(&claims).expect("claims hold only strings and numbers");
        let message = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(body));
        let signature = self.key.sign(message.as_bytes())?;
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
