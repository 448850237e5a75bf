//! Views of volumes and claims.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};

use super::nullable;
use crate::controller::View;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolumeClaim {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
}

common::view_of!(PersistentVolumeClaim, k8s_openapi::api::core::v1::PersistentVolumeClaim);
impl View for PersistentVolumeClaim {}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolume {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub status: PersistentVolumeStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolumeStatus {
    #[serde(deserialize_with = "nullable")]
    pub phase: Box<str>,
}

common::view_of!(PersistentVolume, k8s_openapi::api::core::v1::PersistentVolume);
impl View for PersistentVolume {}

/// A claim that a pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodClaim {
    /// By the claim's name.
    Named(Box<str>),
    /// One made for the volume of this name.
    Ephemeral(Box<str>),
}

impl PodClaim {
    /// The claim's name, for a pod of that name.
    pub fn name(&self, pod: &str) -> String {
        match self {
            Self::Named(name) => name.to_string(),
            Self::Ephemeral(volume) => format!("{pod}-{volume}"),
        }
    }
}

/// Of a pod's volumes those with a claim.
pub(super) fn claims<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PodClaim>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Volume {
        #[serde(default)]
        name: Box<str>,
        persistent_volume_claim: Option<Source>,
        ephemeral: Option<serde::de::IgnoredAny>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Source {
        #[serde(default)]
        claim_name: Box<str>,
    }
    let volumes = Option::<Vec<Volume>>::deserialize(deserializer)?.unwrap_or_default();
    let claim = |volume: Volume| match (volume.persistent_volume_claim, volume.ephemeral) {
        (Some(source), _) => Some(PodClaim::Named(source.claim_name)),
        (None, Some(_)) => Some(PodClaim::Ephemeral(volume.name)),
        (None, None) => None,
    };
    Ok(volumes.into_iter().filter_map(claim).collect())
}
