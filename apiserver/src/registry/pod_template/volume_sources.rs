//! The volume kinds that name something outside the cluster: what pods and persistent volumes share, and where
//! they differ.

use common::status::FieldErrors;

use super::volumes::{local_descending_path, no_backsteps};
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::tree::entries;

/// Who holds the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder<'a> {
    Pod,
    /// A persistent volume, with its name: it also says whose namespace a secret is in.
    Volume(&'a str),
}

impl Holder<'_> {
    fn is_volume(self) -> bool {
        self != Self::Pod
    }
}

/// Checks one source at its place. Kinds that live inside the cluster (config maps, claims ...) pass unseen.
pub fn check(kind: &str, source: &At<'_>, holder: Holder<'_>, errors: &mut FieldErrors) {
    match kind {
        "gcePersistentDisk" => {
            source.required_text("pdName", errors);
            partition(source, errors);
        }
        "awsElasticBlockStore" => {
            source.required_text("volumeID", errors);
            partition(source, errors);
        }
        "gitRepo" => {
            source.required_text("repository", errors);
            local_descending_path(source.text("directory"), &source.under("directory"), errors);
        }
        "iscsi" => iscsi(source, holder, errors),
        "fc" => fibre_channel(source, errors),
        "glusterfs" => {
            source.required_text("endpoints", errors);
            source.required_text("path", errors);
            if source.has("endpointsNamespace") {
                if source.text("endpointsNamespace").is_empty() {
                    let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                    source.invalid("endpointsNamespace", detail, errors);
                } else {
                    source.shaped("endpointsNamespace", names::dns1123_label, errors);
                }
            }
        }
        "flocker" => flocker(source, errors),
        "rbd" => {
            monitors(source, errors);
            source.required_text("image", errors);
        }
        "cephfs" => monitors(source, errors),
        "cinder" => {
            source.required_text("volumeID", errors);
            secret(source, holder, errors);
        }
        "quobyte" => quobyte(source, errors),
        "flexVolume" => flex(source, errors),
        "azureFile" => {
            source.required_text("secretName", errors);
            source.required_text("shareName", errors);
            if source.has("secretNamespace") {
                source.required_text("secretNamespace", errors);
            }
        }
        "azureDisk" => azure_disk(source, errors),
        "vsphereVolume" => {
            source.required_text("volumePath", errors);
        }
        "photonPersistentDisk" => {
            source.required_text("pdID", errors);
        }
        "portworxVolume" => {
            source.required_text("volumeID", errors);
        }
        "scaleIO" => {
            for key in ["gateway", "system", "volumeName"] {
                source.required_text(key, errors);
            }
        }
        "storageos" => {
            source.required_shaped("volumeName", names::dns1123_label, errors);
            source.shaped_if_set("volumeNamespace", names::dns1123_label, errors);
            secret(source, holder, errors);
        }
        "local" => {
            let given = source.required_text("path", errors);
            if given {
                no_backsteps(source.text("path"), &source.under("path"), errors);
            }
        }
        "nfs" => {
            source.required_text("server", errors);
            source.required_text("path", errors);
            if !source.text("path").starts_with('/') {
                errors.invalid(source.under("path"), source.text("path"), "must be an absolute path");
            }
        }
        "csi" => csi(source, holder, errors),
        _ => {}
    }
}

fn partition(source: &At<'_>, errors: &mut FieldErrors) {
    source.between("partition", 0, 255, errors);
}

fn monitors(source: &At<'_>, errors: &mut FieldErrors) {
    if source.strings("monitors").is_empty() {
        source.required("monitors", "", errors);
    }
}

fn secret(source: &At<'_>, holder: Holder<'_>, errors: &mut FieldErrors) {
    let reference = source.at("secretRef");
    if reference.present() {
        reference.required_text("name", errors);
        if holder.is_volume() {
            reference.required_text("namespace", errors);
        }
    }
}

const IQN_PATTERN: &str = "iqn";

fn iscsi(source: &At<'_>, holder: Holder<'_>, errors: &mut FieldErrors) {
    source.required_text("targetPortal", errors);
    let portal = source.text("targetPortal");
    if let Holder::Volume(name) = holder
        && source.has("initiatorName")
        && name.len() + 1 + portal.len() > 64
    {
        errors.invalid(source.under("targetportal"), portal, "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.");
    }
    let start = if holder.is_volume() {
        "must be valid format"
    } else {
        "must be valid format starting with iqn, eui, or naa"
    };
    if source.required_text("iqn", errors) {
        qualified(source.text("iqn"), &source.under("iqn"), start, errors);
    }
    source.between("lun", 0, 255, errors);
    if (source.flag("chapAuthDiscovery") || source.flag("chapAuthSession")) && !source.has("secretRef") {
        source.required("secretRef", "", errors);
    }
    if holder.is_volume() && source.has("secretRef") {
        source.at("secretRef").required_text("name", errors);
    }
    if source.has("initiatorName") {
        qualified(source.text("initiatorName"), &source.under("initiatorname"), start, errors);
    }
}

/// An iSCSI name in one of its three forms.
fn qualified(name: &str, path: &str, start: &str, errors: &mut FieldErrors) {
    let hex = |text: &str, lengths: &[usize]| {
        lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let fits = if let Some(rest) = name.strip_prefix(IQN_PATTERN) {
        iqn(rest)
    } else if let Some(rest) = name.strip_prefix("eui") {
        rest.strip_prefix('.').is_some_and(|id| hex(id, &[16]))
    } else if let Some(rest) = name.strip_prefix("naa") {
        rest.strip_prefix('.').is_some_and(|id| hex(id, &[32]))
    } else {
        errors.invalid(path, name, start);
        return;
    };
    if !fits {
        errors.invalid(path, name, "must be valid format");
    }
}

/// `.2001-04.com.example:name`, after the `iqn`.
fn iqn(rest: &str) -> bool {
    let Some(rest) = rest.strip_prefix('.') else { return false };
    let bytes = rest.as_bytes();
    let date = bytes.len() > 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[5..7].iter().all(u8::is_ascii_digit)
        && bytes[7] == b'.';
    date && bytes[8..].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'_'))
}

fn fibre_channel(source: &At<'_>, errors: &mut FieldErrors) {
    let (targets, ids) = (source.strings("targetWWNs"), source.strings("wwids"));
    match (targets.is_empty(), ids.is_empty()) {
        (true, true) => {
            let detail = "must specify either targetWWNs or wwids, but not both";
            source.required("targetWWNs", detail, errors);
        }
        (false, false) => {
            let detail = "targetWWNs and wwids can not be specified simultaneously";
            source.invalid("targetWWNs", detail, errors);
        }
        _ => {}
    }
    if !targets.is_empty() {
        if source.has("lun") {
            source.between("lun", 0, 255, errors);
        } else {
            source.required("lun", "lun is required if targetWWNs is specified", errors);
        }
    }
}

fn flocker(source: &At<'_>, errors: &mut FieldErrors) {
    let (name, uuid) = (source.text("datasetName"), source.text("datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => errors.required(&source.path, "one of datasetName and datasetUUID is required"),
        (false, false) => errors.invalid(
            &source.path,
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        ),
        _ => {}
    }
    if name.contains('/') {
        source.invalid("datasetName", "must not contain '/'", errors);
    }
}

fn quobyte(source: &At<'_>, errors: &mut FieldErrors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = source.text("registry");
    if registry.is_empty() {
        source.required("registry", PAIRS, errors);
    } else if source.text("tenant").len() >= 65 {
        source.required("tenant", "must be a UUID and may not exceed a length of 64 characters", errors);
    } else {
        for pair in registry.split(',') {
            if pair.rsplit_once(':').is_none_or(|(host, _)| host.contains(':') && !host.starts_with('[')) {
                source.invalid("registry", PAIRS, errors);
            }
        }
    }
    source.required_text("volume", errors);
}

fn flex(source: &At<'_>, errors: &mut FieldErrors) {
    source.required_text("driver", errors);
    for (key, _) in entries(source.value, "options") {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace);
        let normalized = format!(".{}", namespace.to_lowercase());
        if normalized.ends_with(".kubernetes.io") || normalized.ends_with(".k8s.io") {
            errors.invalid(
                format!("{}[{key}]", source.under("options")),
                key,
                "kubernetes.io and k8s.io namespaces are reserved",
            );
        }
    }
}

fn azure_disk(source: &At<'_>, errors: &mut FieldErrors) {
    source.required_text("diskName", errors);
    source.required_text("diskURI", errors);
    source.choice("cachingMode", &["None", "ReadOnly", "ReadWrite"], errors);
    source.choice("kind", &["Shared", "Dedicated", "Managed"], errors);
    let uri = source.text("diskURI");
    let managed = source.text("kind") == "Managed";
    if source.has("kind") && managed && !uri.starts_with("/subscriptions/") {
        errors.not_supported(source.under("diskURI"), uri, &["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"]);
    }
    if source.has("kind") && !managed && !uri.starts_with("https://") {
        errors.not_supported(
            source.under("diskURI"),
            uri,
            &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"],
        );
    }
}

/// `ValidateCSIDriverName`.
pub fn csi_driver_name(source: &At<'_>, key: &str, errors: &mut FieldErrors) {
    const CHARACTERS_MAX: usize = 63;
    if source.required_text(key, errors) {
        let name = source.text(key);
        if name.len() > CHARACTERS_MAX {
            errors.too_long(source.under(key), CHARACTERS_MAX);
        }
        for message in names::dns1123_subdomain(&name.to_lowercase()) {
            errors.invalid(source.under(key), name, message);
        }
    }
}

fn csi(source: &At<'_>, holder: Holder<'_>, errors: &mut FieldErrors) {
    csi_driver_name(source, "driver", errors);
    if !holder.is_volume() {
        let reference = source.at("nodePublishSecretRef");
        if reference.present() && reference.required_text("name", errors) {
            for message in names::dns1123_subdomain(reference.text("name")) {
                errors.invalid(source.under("name"), reference.text("name"), message);
            }
        }
        return;
    }
    source.required_text("volumeHandle", errors);
    for key in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let reference = source.at(key);
        if reference.present() {
            reference.required_shaped("name", names::dns1123_subdomain, errors);
            reference.required_shaped("namespace", names::dns1123_label, errors);
        }
    }
}
