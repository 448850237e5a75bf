//! Which served kinds are on their way out, and the words of the warning that every answer about them carries.
//!
//! Upstream: `zz_generated.prerelease-lifecycle.go` beside the types, `apiserver/pkg/endpoints/deprecation`.

/// This API level's minor version: a kind that will be deprecated later gives no warning yet.
const MINOR: u32 = 36;

/// Version, kind, deprecated in 1.x, unavailable in 1.x (0: not decided), what to use instead.
type Line = (&'static str, &'static str, u32, u32, &'static str);

#[rustfmt::skip]
const LINES: &[Line] = &[
    ("v1", "ComponentStatus", 19, 0, ""),
    ("v1", "Endpoints", 33, 0, "discovery.k8s.io/v1 EndpointSlice"),
    ("admissionregistration.k8s.io/v1alpha1", "MutatingAdmissionPolicy", 35, 38, ""),
    ("admissionregistration.k8s.io/v1alpha1", "MutatingAdmissionPolicyBinding", 35, 38, ""),
    ("admissionregistration.k8s.io/v1beta1", "MutatingAdmissionPolicy", 37, 40, "admissionregistration.k8s.io/v1 MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io/v1beta1", "MutatingAdmissionPolicyBinding", 37, 40, "admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding"),
    ("certificates.k8s.io/v1alpha1", "ClusterTrustBundle", 34, 37, ""),
    ("certificates.k8s.io/v1beta1", "ClusterTrustBundle", 37, 40, ""),
    ("certificates.k8s.io/v1beta1", "PodCertificateRequest", 38, 41, ""),
    ("coordination.k8s.io/v1alpha2", "LeaseCandidate", 35, 38, ""),
    ("coordination.k8s.io/v1beta1", "LeaseCandidate", 36, 39, ""),
    ("networking.k8s.io/v1beta1", "IPAddress", 34, 37, ""),
    ("networking.k8s.io/v1beta1", "ServiceCIDR", 34, 37, ""),
    ("resource.k8s.io/v1alpha3", "DeviceTaintRule", 36, 39, ""),
    ("resource.k8s.io/v1alpha3", "ResourcePoolStatusRequest", 39, 42, ""),
    ("resource.k8s.io/v1beta1", "DeviceClass", 35, 38, ""),
    ("resource.k8s.io/v1beta1", "ResourceClaim", 35, 38, ""),
    ("resource.k8s.io/v1beta1", "ResourceClaimTemplate", 35, 38, ""),
    ("resource.k8s.io/v1beta1", "ResourceSlice", 35, 38, ""),
    ("resource.k8s.io/v1beta2", "DeviceClass", 36, 39, ""),
    ("resource.k8s.io/v1beta2", "DeviceTaintRule", 39, 42, ""),
    ("resource.k8s.io/v1beta2", "ResourceClaim", 36, 39, ""),
    ("resource.k8s.io/v1beta2", "ResourceClaimTemplate", 36, 39, ""),
    ("resource.k8s.io/v1beta2", "ResourceSlice", 36, 39, ""),
    ("storage.k8s.io/v1beta1", "VolumeAttributesClass", 34, 37, "storage.k8s.io/v1 VolumeAttributesClass"),
    ("storagemigration.k8s.io/v1beta1", "StorageVersionMigration", 38, 41, ""),
];

/// The warning for a built-in kind, when it is deprecated by now.
pub fn warning(api_version: &str, kind: &str) -> Option<String> {
    let (_, _, since, gone, instead) = LINES
        .iter()
        .find(|(version, name, since, ..)| *version == api_version && *name == kind && *since <= MINOR)?;
    let mut text = format!("{api_version} {kind} is deprecated in v1.{since}+");
    if *gone > 0 {
        text.push_str(&format!(", unavailable in v1.{gone}+"));
    }
    if !instead.is_empty() {
        text.push_str(&format!("; use {instead}"));
    }
    Some(text)
}

/// In which release a built-in resource goes (`1.38`, empty when that is not decided); `None` when it is not
/// deprecated by now.
pub fn removed_release(group: &str, version: &str, resource: &str) -> Option<String> {
    let deprecated = |kind: &str| {
        let api_version = super::api_version(group, version);
        LINES.iter().find(|(of, name, since, ..)| *of == api_version && *name == kind && *since <= MINOR)
    };
    let row = super::rows()
        .iter()
        .find(|row| row.resource == resource && row.version == version && row.group == group)?;
    let (_, _, _, gone, _) = deprecated(row.kind)?;
    Some(if *gone > 0 { format!("1.{gone}") } else { String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worded_as_upstream() {
        assert_eq!(
            warning("v1", "ComponentStatus").as_deref(),
            Some("v1 ComponentStatus is deprecated in v1.19+")
        );
        assert_eq!(
            warning("v1", "Endpoints").as_deref(),
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        );
        assert_eq!(
            warning("storage.k8s.io/v1beta1", "VolumeAttributesClass").as_deref(),
            Some(
                "storage.k8s.io/v1beta1 VolumeAttributesClass is deprecated in v1.34+, unavailable in v1.37+; use storage.k8s.io/v1 VolumeAttributesClass"
            )
        );
        assert_eq!(warning("storagemigration.k8s.io/v1beta1", "StorageVersionMigration"), None);
        assert_eq!(warning("v1", "Pod"), None);
    }

    #[test]
    fn every_line_is_a_row() {
        for (version, kind, ..) in LINES {
            assert!(
                crate::resources::rows()
                    .iter()
                    .any(|r| super::super::api_version(r.group, r.version) == *version && r.kind == *kind),
                "{version} {kind}"
            );
        }
    }
}
