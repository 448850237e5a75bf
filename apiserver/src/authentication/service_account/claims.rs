//! What a token says.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

/// A name and the uid it had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl ObjectRef {
    pub fn new(name: &str, uid: &str) -> Self {
        Self { name: name.to_owned(), uid: uid.to_owned() }
    }
}

/// The `kubernetes.io` claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubernetesClaims {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectRef>,
    #[serde(rename = "serviceaccount")]
    pub service_account: ObjectRef,
    #[serde(rename = "warnafter", skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub warn_after: Option<i64>,
}

/// All claims of a token. Times are seconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub iat: Option<i64>,
    pub iss: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub nbf: Option<i64>,
    pub sub: String,
}

/// What a token is for and bound to.
#[derive(Debug, Clone, Default)]
pub struct Bindings {
    pub namespace: String,
    pub service_account: ObjectRef,
    /// With a pod, `node` may name the pod's node.
    pub pod: Option<ObjectRef>,
    pub secret: Option<ObjectRef>,
    pub node: Option<ObjectRef>,
}

impl Claims {
    /// Claims of a new token with a random `jti`; the issuer is filled in by the signer.
    /// `warn_after_seconds` is 0 for none.
    pub fn new(
        bindings: Bindings,
        audiences: Vec<String>,
        now: Timestamp,
        expiration_seconds: i64,
        warn_after_seconds: i64,
    ) -> Self {
        let now = now.as_second();
        let sub = super::username(&bindings.namespace, &bindings.service_account.name);
        Self {
            aud: audiences,
            exp: Some(now.saturating_add(expiration_seconds)),
            iat: Some(now),
            iss: String::new(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: KubernetesClaims {
                namespace: bindings.namespace,
                node: bindings.node,
                pod: bindings.pod,
                secret: bindings.secret,
                service_account: bindings.service_account,
                warn_after: (warn_after_seconds != 0).then(|| now.saturating_add(warn_after_seconds)),
            },
            nbf: Some(now),
            sub,
        }
    }
}

/// JWT dates may be fractions; whole seconds are enough here.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(deserializer)?;
    Ok(number.and_then(|n| n.as_i64().or_else(|| n.as_f64().map(|f| f as i64))))
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<Audience>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Audience::One(one)) => vec![one],
        Some(Audience::Many(many)) => many,
    })
}
