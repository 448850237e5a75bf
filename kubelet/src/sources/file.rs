//! Static pods from a folder of manifests (or one file): read at start, on change and periodically.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::shutdown::CancellationToken;
use futures::StreamExt as _;
use inotify::{Inotify, WatchMask};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{Source, Update, defaults};
use crate::pod;

/// Manifests larger than this are not read.
const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Editors write in several steps; wait until they are done.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches until stopped and sends the whole set when it differs from the one before.
pub async fn run(
    path: PathBuf,
    node: String,
    every: Duration,
    updates: mpsc::Sender<Update>,
    stop: CancellationToken,
) {
    let mut last: Option<BTreeMap<String, String>> = None;
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut buffer = [0; 4096];
    let mut events = watch(&path).and_then(|i| i.into_event_stream(&mut buffer).ok());
    loop {
        let changed = async {
            match &mut events {
                Some(stream) => drop(stream.next().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = changed => tokio::time::sleep(SETTLE).await,
        }
        let pods = read(&path, &node);
        let hashes: BTreeMap<String, String> = pods
            .iter()
            .map(|p| (pod::full_name(p), pod::annotation(p, pod::CONFIG_HASH).unwrap_or("").to_owned()))
            .collect();
        if last.as_ref() == Some(&hashes) {
            continue;
        }
        last = Some(hashes);
        if updates.send(Update::All(Source::File, pods)).await.is_err() {
            return;
        }
    }
}

fn watch(path: &Path) -> Option<Inotify> {
    let inotify = Inotify::init().ok()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::CREATE
        | WatchMask::MODIFY;
    match inotify.watches().add(path, mask) {
        Ok(_) => Some(inotify),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "manifests are only read periodically");
            None
        }
    }
}

/// Every manifest that can be read, by file name; a broken one is told and left out.
fn read(path: &Path, node: &str) -> Vec<Arc<Pod>> {
    let mut files = Vec::new();
    if path.is_dir() {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        files.extend(
            entries.map(|e| e.path()).filter(|p| {
                p.is_file() && p.file_name().is_some_and(|n| !n.to_string_lossy().starts_with('.'))
            }),
        );
        files.sort();
    } else if path.is_file() {
        files.push(path.to_owned());
    }
    let mut out: Vec<Arc<Pod>> = Vec::new();
    for file in files {
        match read_one(&file, node) {
            Ok(found) if out.iter().any(|p| pod::full_name(p) == pod::full_name(&found)) => {
                tracing::error!(path = %file.display(), "manifest names a pod that another manifest has");
            }
            Ok(found) => out.push(Arc::new(found)),
            Err(reason) => tracing::error!(path = %file.display(), reason, "manifest cannot be used"),
        }
    }
    out
}

fn read_one(file: &Path, node: &str) -> Result<Pod, String> {
    let size = std::fs::metadata(file).map_err(|e| e.to_string())?.len();
    if size > MANIFEST_BYTES_MAX {
        return Err(format!("{size} bytes are more than {MANIFEST_BYTES_MAX}"));
    }
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    parse(&text, &file.to_string_lossy(), node)
}

fn parse(text: &str, origin: &str, node: &str) -> Result<Pod, String> {
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    match (value["apiVersion"].as_str(), value["kind"].as_str()) {
        (Some("v1"), Some("Pod")) => {}
        (version, kind) => return Err(format!("expected a v1 Pod, found {version:?} {kind:?}")),
    }
    let mut pod: Pod = serde_json::from_value(value).map_err(|e| e.to_string())?;
    if pod.metadata.name.as_deref().unwrap_or("").is_empty() {
        return Err("metadata.name: Required value".into());
    }
    let spec = pod.spec.as_ref().ok_or("spec: Required value")?;
    if spec.containers.is_empty() {
        return Err("spec.containers: Required value".into());
    }
    identify(&mut pod, text, origin, node);
    defaults::apply(&mut pod);
    Ok(pod)
}

/// Name with the node's, a UID that follows the content, and the annotations of a static pod.
fn identify(pod: &mut Pod, text: &str, origin: &str, node: &str) {
    let mut hash = Sha256::new();
    for part in [node, origin, text] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut hash = hex::encode(hash.finalize());
    hash.truncate(32);
    let meta = &mut pod.metadata;
    if meta.uid.as_deref().unwrap_or("").is_empty() {
        meta.uid = Some(hash.clone());
    }
    meta.name = meta.name.as_ref().map(|n| format!("{n}-{}", node.to_lowercase()));
    if meta.namespace.as_deref().unwrap_or("").is_empty() {
        meta.namespace = Some("default".into());
    }
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(pod::CONFIG_HASH.into(), hash);
    annotations.insert(pod::CONFIG_SOURCE.into(), "file".into());
    annotations.insert(pod::CONFIG_SEEN.into(), Timestamp::now().to_string());
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node.to_owned());
        // A static pod stays on its node whatever the taints say.
        let everything = k8s_openapi::api::core::v1::Toleration {
            effect: Some("NoExecute".into()),
            operator: Some("Exists".into()),
            ..Default::default()
        };
        let tolerations = spec.tolerations.get_or_insert_default();
        if !tolerations.contains(&everything) {
            tolerations.push(everything);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_errors() {
        let text =
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n";
        let one = parse(text, "/m/a.yaml", "Node").unwrap();
        assert_eq!(pod::full_name(&one), "a-node_default");
        assert_eq!(pod::uid(&one), pod::annotation(&one, pod::CONFIG_HASH).unwrap());
        assert!(pod::is_static(&one));
        assert_ne!(pod::uid(&parse(&format!("{text}\n"), "/m/a.yaml", "Node").unwrap()), pod::uid(&one));
        assert!(parse("apiVersion: v1\nkind: Service\n", "", "n").is_err());
        assert!(
            parse("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}", "", "n").is_err()
        );
        assert!(parse("{", "", "n").is_err());
    }
}
