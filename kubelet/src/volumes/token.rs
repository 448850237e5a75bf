//! Projected service account tokens: asked for by TokenRequest, bound to the pod, renewed before they expire.
//!
//! Answers to upstream's `pkg/kubelet/token`.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;

/// A token is renewed after this long, however long it lives.
const AGE_MAX: SignedDuration = SignedDuration::from_hours(24);
/// Lifetime when a pod does not say (the API server's default).
const DEFAULT_LIFETIME_SECONDS: i64 = 3600;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    pod: String,
    audience: String,
    lifetime_seconds: i64,
}

#[derive(Clone)]
struct Cached {
    token: String,
    lifetime_seconds: i64,
    expires: Timestamp,
}

/// Tokens of the pods on this node; forgotten with their pod.
pub struct Tokens {
    client: Option<kube::Client>,
    cached: Mutex<HashMap<Key, Cached>>,
}

impl Tokens {
    pub fn new(client: Option<kube::Client>) -> Self {
        Self { client, cached: Mutex::default() }
    }

    /// A token that is good for at least a fifth of its lifetime; an older one only when no new one is to be
    /// had and it is still valid.
    ///
    /// # Errors
    /// When there is none.
    pub async fn get(&self, pod: &Pod, projection: &ServiceAccountTokenProjection) -> Result<String, String> {
        let key = Key {
            pod: pod.metadata.uid.clone().unwrap_or_default(),
            audience: projection.audience.clone().unwrap_or_default(),
            lifetime_seconds: projection.expiration_seconds.unwrap_or(DEFAULT_LIFETIME_SECONDS),
        };
        let known = self.cached.lock().get(&key).cloned();
        let now = Timestamp::now();
        if let Some(known) = &known
            && !needs_renewal(now, known.expires, known.lifetime_seconds)
        {
            return Ok(known.token.clone());
        }
        match self.request(pod, &key).await {
            Ok(fresh) => {
                let token = fresh.token.clone();
                self.cached.lock().insert(key, fresh);
                Ok(token)
            }
            Err(error) => match known {
                Some(known) if known.expires > now => {
                    tracing::warn!(
                        pod = key.pod,
                        error,
                        "cannot renew a service account token; the old one is still valid"
                    );
                    Ok(known.token)
                }
                _ => Err(format!("failed to fetch token: {error}")),
            },
        }
    }

    /// Drops the tokens of a pod.
    pub fn forget(&self, uid: &str) {
        self.cached.lock().retain(|key, _| key.pod != uid);
    }

    async fn request(&self, pod: &Pod, key: &Key) -> Result<Cached, String> {
        let client =
            self.client.clone().ok_or("cannot use TokenManager when kubelet is in standalone mode")?;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!key.audience.is_empty()).then(|| vec![key.audience.clone()]),
                expiration_seconds: Some(key.lifetime_seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.map_err(
            |error| match error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            },
        )?;
        let stated = answer.spec.and_then(|spec| spec.expiration_seconds);
        let status = answer.status.unwrap_or_default();
        match (status.token, status.expiration_timestamp) {
            (Some(token), Some(expires)) => Ok(Cached {
                token,
                lifetime_seconds: stated.unwrap_or(key.lifetime_seconds),
                expires: expires.0,
            }),
            _ => Err("the API server answered without a token".into()),
        }
    }
}

/// True in the last fifth of a token's life, and after a day.
fn needs_renewal(now: Timestamp, expires: Timestamp, lifetime_seconds: i64) -> bool {
    let lifetime = SignedDuration::from_secs(lifetime_seconds.clamp(0, 1 << 32));
    let left = expires.duration_since(now);
    let age = lifetime.saturating_sub(left);
    age > AGE_MAX || left < lifetime / 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_in_the_last_fifth_or_after_a_day() {
        let issued: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let check = |lifetime: i64, age: i64, renew: bool| {
            let expires = issued + SignedDuration::from_secs(lifetime);
            let now = issued + SignedDuration::from_secs(age);
            assert_eq!(needs_renewal(now, expires, lifetime), renew, "{lifetime} {age}");
        };
        check(3600, 0, false);
        check(3600, 2800, false);
        check(3600, 2900, true);
        check(3600, 4000, true);
        check(7 * 86400, 86000, false);
        check(7 * 86400, 86500, true);
    }
}
