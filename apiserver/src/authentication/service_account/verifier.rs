//! Signature, issuer, time and audience of a token. Looks nothing up.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;

use super::keys::PublicKey;
use super::{Claims, LEEWAY_SECONDS};

/// Why a token of ours does not hold. Worded as upstream, since TokenReview shows it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("invalid signature, no keys found")]
    UnknownKey,
    #[error("go-jose/go-jose: error in cryptographic primitive")]
    BadSignature,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYetValid,
    #[error("service account token is issued in the future")]
    IssuedInTheFuture,
    #[error("token audiences {got:?} is invalid for the target audiences {wanted:?}")]
    Audience { got: Vec<String>, wanted: Vec<String> },
}

/// A token whose signature, issuer, time and audience hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub claims: Claims,
    /// The token's audiences among those asked for.
    pub audiences: Vec<String>,
}

/// Checks tokens of the given issuers against the given keys.
#[derive(Debug, Clone)]
pub struct Verifier {
    issuers: Vec<String>,
    keys: Vec<PublicKey>,
    api_audiences: Vec<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl Verifier {
    pub fn new(issuers: Vec<String>, keys: Vec<PublicKey>, api_audiences: Vec<String>) -> Self {
        Self { issuers, keys, api_audiences }
    }

    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    pub fn api_audiences(&self) -> &[String] {
        &self.api_audiences
    }

    /// `audiences` empty means the server's own. `Ok(None)`: not a JWT of one of the issuers.
    ///
    /// # Errors
    /// When the token claims to be of one of the issuers and does not hold.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<Verified>, VerifyError> {
        let Some((header, claims, message, signature)) = decode(token) else { return Ok(None) };
        if !self.issuers.contains(&claims.iss) {
            return Ok(None);
        }
        let mut candidates =
            self.keys.iter().filter(|key| header.kid.is_empty() || key.id == header.kid).peekable();
        if candidates.peek().is_none() {
            return Err(VerifyError::UnknownKey);
        }
        // The algorithm is the key's, never the token's to choose.
        if !candidates
            .any(|key| key.algorithm.name() == header.alg && key.verifies(message.as_bytes(), &signature))
        {
            return Err(VerifyError::BadSignature);
        }
        check_time(&claims, now.as_second())?;
        let wanted = if audiences.is_empty() { &self.api_audiences } else { audiences };
        // Tokens without audience are legacy ones, good for the server itself.
        let got = if claims.aud.is_empty() { &self.api_audiences } else { &claims.aud };
        let held: Vec<String> = got.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if held.is_empty() && !self.api_audiences.is_empty() {
            return Err(VerifyError::Audience { got: got.clone(), wanted: wanted.to_vec() });
        }
        Ok(Some(Verified { claims, audiences: held }))
    }
}

fn check_time(claims: &Claims, now: i64) -> Result<(), VerifyError> {
    if claims.nbf.is_some_and(|t| now.saturating_add(LEEWAY_SECONDS) < t) {
        return Err(VerifyError::NotYetValid);
    }
    if claims.exp.is_some_and(|t| now.saturating_sub(LEEWAY_SECONDS) > t) {
        return Err(VerifyError::Expired);
    }
    if claims.iat.is_some_and(|t| now.saturating_add(LEEWAY_SECONDS) < t) {
        return Err(VerifyError::IssuedInTheFuture);
    }
    Ok(())
}

fn decode(token: &str) -> Option<(Header, Claims, &str, Vec<u8>)> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    let claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    Some((header, claims, message, URL_SAFE_NO_PAD.decode(signature).ok()?))
}
