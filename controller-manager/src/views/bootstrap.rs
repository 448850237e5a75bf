//! Views of what a joining machine is told: the bootstrap tokens and the cluster's public description.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::nullable;
use crate::controller::View;

/// A secret that is a bootstrap token; no other secret is watched with its data.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct BootstrapToken {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub data: TokenData,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TokenData {
    pub token_id: Option<ByteString>,
    pub token_secret: Option<ByteString>,
    pub expiration: Option<ByteString>,
    pub usage_bootstrap_signing: Option<ByteString>,
}

/// Names the fields that are there and shows none.
impl fmt::Debug for TokenData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenData")
            .field("token_id", &self.token_id.is_some())
            .field("token_secret", &self.token_secret.is_some())
            .field("expiration", &self.expiration.is_some())
            .finish_non_exhaustive()
    }
}

common::view_of!(BootstrapToken, k8s_openapi::api::core::v1::Secret);
impl View for BootstrapToken {
    const FIELDS: Option<&'static str> =
        Some("metadata.namespace=kube-system,type=bootstrap.kubernetes.io/token");
}

/// The config map `cluster-info` in `kube-public`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ClusterInfo {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub data: BTreeMap<String, String>,
}

common::view_of!(ClusterInfo, k8s_openapi::api::core::v1::ConfigMap);
impl View for ClusterInfo {
    const FIELDS: Option<&'static str> = Some("metadata.namespace=kube-public,metadata.name=cluster-info");
}
