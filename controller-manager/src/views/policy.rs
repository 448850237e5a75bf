//! Views of the certificates group.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::{WorkloadCondition, nullable};
use crate::controller::View;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CertificateSigningRequest {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: CsrSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: CsrStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsrSpec {
    /// Base64 of the PEM of a PKCS#10 request.
    pub request: String,
    #[serde(deserialize_with = "nullable")]
    pub signer_name: String,
    #[serde(deserialize_with = "nullable")]
    pub usages: Vec<String>,
    pub expiration_seconds: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub username: String,
    #[serde(deserialize_with = "nullable")]
    pub uid: String,
    #[serde(deserialize_with = "nullable")]
    pub groups: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub extra: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CsrStatus {
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<WorkloadCondition>,
    /// Base64 of the issued chain.
    #[serde(deserialize_with = "nullable")]
    pub certificate: String,
}

common::view_of!(CertificateSigningRequest, k8s_openapi::api::certificates::v1::CertificateSigningRequest);
impl View for CertificateSigningRequest {}

impl CertificateSigningRequest {
    pub fn has_condition(&self, type_: &str) -> bool {
        self.status.conditions.iter().any(|c| c.type_ == type_ && c.status != "False")
    }
}
