//! Service account tokens: signed JWTs bound to an account and, optionally, to a pod, secret or node.
//!
//! [`Signer`] makes them (for `serviceaccounts/token`), [`Verifier`] checks signature, issuer, time and audience
//! without looking anything up, [`validator`] checks that what a token is bound to still exists. Answers to
//! `pkg/serviceaccount` upstream; claims and wording are upstream's.

mod claims;
mod der;
mod keys;
mod oidc;
mod signer;
pub mod validator;
mod verifier;

pub use claims::{Bindings, Claims, KubernetesClaims, ObjectRef};
pub use keys::{KeyError, PublicKey, load_public};
pub use oidc::{JWKS_PATH, METADATA_PATH, OpenIdDocuments};
pub use signer::Signer;
pub use verifier::{Verified, Verifier, VerifyError};

use crate::request::UserInfo;

/// A token asked for with this life is one of the kubelet's projected ones: it may be extended, and is then
/// marked with `warnafter`.
pub const WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS: i64 = 60 * 60 + 7;
/// The extended life of such a token.
pub const EXPIRATION_EXTENSION_SECONDS: i64 = 24 * 365 * 60 * 60;
/// How long after a deletion timestamp a bound object still counts as there (clock leeway).
pub const LEEWAY_SECONDS: i64 = 60;

/// `system:serviceaccount:<namespace>:<name>`.
pub fn username(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// The two groups of every service account in `namespace`.
pub fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

/// Namespace and name, when a user name is that of a service account.
pub fn split_username(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (common::labels::is_dns1123_label(namespace) && common::labels::is_dns1123_subdomain(name))
        .then_some((namespace, name))
}

/// The user that a verified token stands for (`ServiceAccountInfo.UserInfo` upstream).
pub fn user_of(claims: &Claims) -> UserInfo {
    let bound = &claims.kubernetes;
    let mut user = UserInfo {
        name: username(&bound.namespace, &bound.service_account.name),
        uid: bound.service_account.uid.clone(),
        groups: groups(&bound.namespace),
        ..Default::default()
    };
    let mut extra = |key: &str, value: &str| {
        user.extra.insert(key.to_owned(), vec![value.to_owned()]);
    };
    if let Some(pod) = &bound.pod {
        extra("authentication.kubernetes.io/pod-name", &pod.name);
        extra("authentication.kubernetes.io/pod-uid", &pod.uid);
    }
    if let Some(node) = &bound.node {
        extra("authentication.kubernetes.io/node-name", &node.name);
        extra("authentication.kubernetes.io/node-uid", &node.uid);
    }
    if !claims.jti.is_empty() {
        extra("authentication.kubernetes.io/credential-id", &format!("JTI={}", claims.jti));
    }
    user
}

#[cfg(test)]
mod tests;
