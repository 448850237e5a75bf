//! Bootstrap tokens: secrets in `kube-system` by which new nodes introduce themselves.
//!
//! Answers to `plugin/pkg/auth/authenticator/token/bootstrap` upstream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::object::{Object, str_at};
use crate::request::UserInfo;
use crate::resources::Registry;

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const DEFAULT_GROUP: &str = "system:bootstrappers";

/// The user of `<id>.<secret>`, when such a token is valid now.
pub fn authenticate(registry: &Registry, token: &str, now: Timestamp) -> Option<UserInfo> {
    let (id, secret) = parse(token)?;
    let stored = registry.store("", "secrets").cached(NAMESPACE, &format!("bootstrap-token-{id}"))?;
    check(&stored.tree(), id, secret, now)
        .inspect_err(|why| tracing::debug!(id, why, "bootstrap token refused"))
        .ok()
}

/// `[a-z0-9]{6}.[a-z0-9]{16}`.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

fn check(object: &Object, id: &str, secret: &str, now: Timestamp) -> Result<UserInfo, &'static str> {
    let data = |key: &str| -> String {
        let decoded = STANDARD.decode(str_at(object, &["data", key])).unwrap_or_default();
        String::from_utf8(decoded).unwrap_or_default()
    };
    if !str_at(object, &["metadata", "deletionTimestamp"]).is_empty() {
        return Err("is deleted and awaiting removal");
    }
    if str_at(object, &["type"]) != SECRET_TYPE {
        return Err("has invalid type");
    }
    // Comparing digests gives nothing away about where the strings differ.
    if Sha256::digest(data("token-secret")) != Sha256::digest(secret) {
        return Err("has invalid value for key token-secret");
    }
    if data("token-id") != id {
        return Err("has invalid value for key token-id");
    }
    let expiration = data("expiration");
    if !expiration.is_empty() && expiration.parse::<Timestamp>().map_or(true, |at| at <= now) {
        return Err("has expired");
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("not marked usage-bootstrap-authentication=true");
    }
    let mut groups = vec![DEFAULT_GROUP.to_owned()];
    let extra = data("auth-extra-groups");
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !valid_group(group) {
            return Err("has invalid value for key auth-extra-groups");
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Ok(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..Default::default() })
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`.
fn valid_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|b| plain(b) || b == b':' || b == b'-')
        && rest.bytes().last().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(expiration: &str, groups: &str) -> Object {
        let encode = |s: &str| STANDARD.encode(s);
        json!({"type": SECRET_TYPE, "data": {
            "token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
            "usage-bootstrap-authentication": encode("true"),
            "expiration": encode(expiration), "auth-extra-groups": encode(groups),
        }})
    }

    #[test]
    fn a_token_holds_until_it_expires() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let valid = secret("2026-01-02T00:00:00Z", "system:bootstrappers:kubeadm:default-node-token");
        let user = check(&valid, "abcdef", "0123456789abcdef", now).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token"]);
        assert!(check(&valid, "abcdef", "0123456789abcdee", now).is_err());
        assert!(check(&secret("2025-12-31T00:00:00Z", ""), "abcdef", "0123456789abcdef", now).is_err());
        assert!(check(&secret("", "system:masters"), "abcdef", "0123456789abcdef", now).is_err());
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        assert_eq!(parse("abcdef.short"), None);
    }
}
