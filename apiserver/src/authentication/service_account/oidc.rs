//! The two documents by which others verify our tokens (OpenID Connect Discovery 1.0).

use super::keys::PublicKey;

/// Where the provider metadata is served.
pub const METADATA_PATH: &str = "/.well-known/openid-configuration";
/// Where the keys are served.
pub const JWKS_PATH: &str = "/openid/v1/jwks";

/// Both documents, encoded once.
#[derive(Debug, Clone)]
pub struct OpenIdDocuments {
    pub metadata: bytes::Bytes,
    pub jwks: bytes::Bytes,
}

impl OpenIdDocuments {
    /// `jwks_uri` is the absolute URL that others reach [`JWKS_PATH`] at. `None` when the issuer is no https
    /// URL: then there is nothing to discover, as upstream.
    pub fn new(issuer: &str, jwks_uri: &str, keys: &[PublicKey]) -> Option<Self> {
        if !issuer.starts_with("https://") {
            return None;
        }
        let mut algorithms: Vec<&str> = keys.iter().map(|k| k.algorithm.name()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        let metadata = serde_json::json!({
            "issuer": issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        });
        let jwks = serde_json::json!({"keys": keys.iter().map(PublicKey::jwk).collect::<Vec<_>>()});
        Some(Self { metadata: metadata.to_string().into(), jwks: jwks.to_string().into() })
    }
}
