//! Pure: what a token's secret says.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;

use crate::controller::View;
use crate::views::BootstrapToken;

const NAME_PREFIX: &str = "bootstrap-token-";
const ID_LENGTH: usize = 6;

/// How long a token is still good.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Life {
    Unlimited,
    For(Duration),
    /// Past, or unreadable.
    Over,
}

pub fn life(token: &BootstrapToken, now: Timestamp) -> Life {
    let Some(expiration) = token.data.expiration.as_ref().filter(|b| !b.0.is_empty()) else {
        return Life::Unlimited;
    };
    let at = std::str::from_utf8(&expiration.0).ok().and_then(|t| t.parse::<Timestamp>().ok());
    match at {
        Some(at) if at > now => Life::For(at.duration_since(now).unsigned_abs()),
        _ => Life::Over,
    }
}

/// The two halves of a token that is well formed and made for signing. Whether it has expired is not asked.
pub fn signs(token: &BootstrapToken) -> Option<(&str, &[u8])> {
    let id = token.name().strip_prefix(NAME_PREFIX)?;
    let formed = id.len() == ID_LENGTH && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is = |field: &Option<ByteString>, text: &str| field.as_ref().is_some_and(|b| b.0 == text.as_bytes());
    let secret = token.data.token_secret.as_ref()?;
    (formed
        && is(&token.data.token_id, id)
        && !secret.0.is_empty()
        && is(&token.data.usage_bootstrap_signing, "true"))
    .then_some((id, secret.0.as_slice()))
}

#[cfg(test)]
pub mod tests {
    use base64::Engine;
    use serde_json::{Value, json};

    use super::*;

    /// A token for signing, with fields replaced.
    pub fn token(id: &str, changes: &[(&str, &str)]) -> BootstrapToken {
        let mut fields =
            vec![("token-id", id), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-signing", "true")];
        fields.extend_from_slice(changes);
        let data: serde_json::Map<String, Value> = fields
            .into_iter()
            .map(|(k, v)| (k.to_owned(), json!(base64::engine::general_purpose::STANDARD.encode(v))))
            .collect();
        let name = format!("{NAME_PREFIX}{id}");
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "kube-system" }, "data": data,
        }))
        .expect("token")
    }

    #[test]
    fn only_a_well_formed_token_signs() {
        assert!(signs(&token("abc123", &[])).is_some());
        for id in ["abc12", "abc1234", "ABC123", ""] {
            assert!(signs(&token(id, &[])).is_none(), "{id}");
        }
        for wrong in [("token-id", "other1"), ("token-secret", ""), ("usage-bootstrap-signing", "yes")] {
            assert!(signs(&token("abc123", &[wrong])).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn an_unreadable_expiration_is_past() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let at = |text: &str| life(&token("abc123", &[("expiration", text)]), now);
        assert_eq!(at(""), Life::Unlimited);
        assert_eq!(life(&token("abc123", &[]), now), Life::Unlimited);
        assert_eq!(at("2026-01-01T00:00:09Z"), Life::For(Duration::from_secs(9)));
        assert_eq!(at("2026-01-01T01:00:09+01:00"), Life::For(Duration::from_secs(9)));
        assert_eq!(at("2026-01-01T00:00:00Z"), Life::Over);
        assert_eq!(at("tomorrow"), Life::Over);
    }

    #[test]
    fn a_token_does_not_show_in_logs() {
        assert!(!format!("{:?}", token("abc123", &[]).data).contains("0123"));
    }
}
