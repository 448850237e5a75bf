//! The API client of this node: bootstrapped once, its certificate rotated while it is used.
//!
//! Answers to upstream's `pkg/kubelet/certificate/bootstrap` and `transport.go`.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::config::Kubeconfig;
use parking_lot::RwLock;
use rcgen::KeyPair;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::csr::{self, Wanted};
use super::store::{self, Store};
use super::{CertificateError, CertificateOptions};

/// Between attempts to bootstrap or rotate, doubled up to the maximum.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// The clock is looked at this often while waiting for a rotation, so that a clock that is set is noticed.
const CLOCK_CHECK: Duration = Duration::from_secs(10 * 60);

pub(super) const STORE_NAME: &str = "kubelet-client";

/// Whether a kubeconfig can be used: it is there, and a certificate in it has not ended.
fn usable(path: &Path, now: Timestamp) -> bool {
    let Ok(config) = Kubeconfig::read_from(path) else { return false };
    let Some(user) = config.auth_infos.into_iter().find_map(|named| named.auth_info) else { return true };
    let pem = match (&user.client_certificate, &user.client_certificate_data) {
        (_, Some(data)) => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(data).ok()
        }
        (Some(file), None) => {
            let file = path.parent().map_or_else(|| file.into(), |dir| dir.join(file));
            fs::read(file).ok()
        }
        // Some other way to authenticate.
        (None, None) => return true,
    };
    pem.and_then(|pem| store::validity(&pem)).is_some_and(|validity| validity.holds(now))
}

/// Makes the kubeconfig usable by asking for a certificate with the bootstrap credentials; nothing when it is
/// usable already. Tries until `stop`, except when the request is denied.
pub(super) async fn bootstrap(
    options: &CertificateOptions,
    kubeconfig: &Path,
    bootstrap: &Path,
    stop: &CancellationToken,
) -> Result<(), CertificateError> {
    if usable(kubeconfig, Timestamp::now()) {
        tracing::debug!(path = %kubeconfig.display(), "kubeconfig is valid; no bootstrap");
        return Ok(());
    }
    tracing::info!(path = %bootstrap.display(), "using the bootstrap kubeconfig to ask for a client certificate");
    let client = common::client::load(Some(bootstrap), "kubelet").await?;
    let store = Store::new(&options.cert_dir, STORE_NAME);
    store.make_dir()?;
    let key = pending_key(&store)?;
    let wanted = Wanted::client(&options.node_name);
    let mut pause = RETRY_MIN;
    let certificate = loop {
        let attempt = tokio::select! {
            () = stop.cancelled() => return Err(CertificateError::Stopped),
            attempt = csr::obtain(&client, &wanted, &key, true) => attempt,
        };
        match attempt {
            Ok(certificate) => break certificate,
            Err(error @ CertificateError::Refused { .. }) => {
                // The next start asks anew, with another key.
                let _ = fs::remove_file(store.pending_key());
                return Err(error);
            }
            Err(error) => tracing::warn!(error = common::logs::chain(&error), "cannot bootstrap yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return Err(CertificateError::Stopped),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
        }
    };
    store.update(&certificate, &key.serialize_pem())?;
    write_kubeconfig(kubeconfig, bootstrap, &store.current())?;
    let _ = fs::remove_file(store.pending_key());
    tracing::info!(path = %kubeconfig.display(), "bootstrap is done");
    Ok(())
}

fn pending_key(store: &Store) -> Result<KeyPair, CertificateError> {
    let path = store.pending_key();
    if let Ok(pem) = fs::read_to_string(&path)
        && let Ok(key) = KeyPair::from_pem(&pem)
    {
        return Ok(key);
    }
    let key = KeyPair::generate().map_err(CertificateError::Request)?;
    common::tls::write_private(&path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// The kubeconfig of the node: the cluster as the bootstrap file names it, the user by the rotated pair.
fn write_kubeconfig(path: &Path, bootstrap: &Path, pair: &Path) -> Result<(), CertificateError> {
    let broken =
        |what: &str| CertificateError::Kubeconfig { path: bootstrap.to_owned(), what: what.to_owned() };
    let config = Kubeconfig::read_from(bootstrap).map_err(|e| broken(&e.to_string()))?;
    let current = config.current_context.clone().unwrap_or_default();
    let context = config.contexts.iter().find(|c| c.name == current).and_then(|c| c.context.as_ref());
    let cluster_name = context.map(|c| c.cluster.clone());
    let named = config.clusters.iter().find(|c| cluster_name.as_ref().is_none_or(|n| *n == c.name));
    let cluster = named.and_then(|c| c.cluster.as_ref()).ok_or_else(|| broken("names no cluster"))?;
    let mut entry = serde_json::to_value(cluster).map_err(|e| broken(&e.to_string()))?;
    if let (Some(file), Some(dir)) = (&cluster.certificate_authority, bootstrap.parent()) {
        entry["certificate-authority"] = json!(dir.join(file));
    }
    if let serde_json::Value::Object(fields) = &mut entry {
        fields.retain(|_, value| !value.is_null());
    }
    let text = serde_saphyr::to_string(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": entry}],
        "contexts": [{"name": "default-context", "context":
            {"cluster": "default-cluster", "namespace": "default", "user": "default-auth"}}],
        "current-context": "default-context",
        "users": [{"name": "default-auth", "user": {"client-certificate": pair, "client-key": pair}}],
    }))
    .map_err(|e| broken(&e.to_string()))?;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(|source| CertificateError::File { path: dir.to_owned(), source })?;
    }
    Ok(common::tls::write_private(path, text.as_bytes())?)
}

/// A client whose requests always go through the newest certificate: what it wraps is exchanged by rotation.
pub(super) fn exchangeable(first: kube::Client) -> (kube::Client, Arc<RwLock<kube::Client>>) {
    let namespace = first.default_namespace().to_owned();
    let inner = Arc::new(RwLock::new(first));
    let used = inner.clone();
    let service = tower::service_fn(move |request| {
        let client = used.read().clone();
        async move { client.send(request).await }
    });
    (kube::Client::new(service, namespace), inner)
}

/// Whether the kubeconfig's user is the pair that is rotated here.
pub(super) fn uses_store(kubeconfig: &Path, store: &Store) -> bool {
    let Ok(config) = Kubeconfig::read_from(kubeconfig) else { return false };
    let files = config.auth_infos.into_iter().filter_map(|named| named.auth_info?.client_certificate);
    files.into_iter().any(|file| Path::new(&file) == store.current())
}

/// Rotates the client certificate until `stop`.
pub(super) async fn rotate(
    kubeconfig: std::path::PathBuf,
    store: Store,
    node_name: String,
    inner: Arc<RwLock<kube::Client>>,
    stop: CancellationToken,
) {
    let work = async {
        loop {
            wait_for_deadline(&store).await;
            let mut pause = RETRY_MIN;
            while let Err(error) = rotate_once(&kubeconfig, &store, &node_name, &inner).await {
                tracing::warn!(
                    error = common::logs::chain(&error),
                    "cannot rotate the client certificate yet"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            tracing::info!("client certificate rotated");
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Resolves when the current pair of a store shall be replaced; at once when there is none.
pub(super) async fn wait_for_deadline(store: &Store) {
    let Some(validity) = store.validity() else { return };
    let deadline = validity.rotation_deadline();
    tracing::debug!(%deadline, "next certificate rotation");
    loop {
        let left = deadline.duration_since(Timestamp::now());
        let Ok(left) = Duration::try_from(left) else { return };
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(CLOCK_CHECK)).await;
    }
}

async fn rotate_once(
    kubeconfig: &Path,
    store: &Store,
    node_name: &str,
    inner: &RwLock<kube::Client>,
) -> Result<(), CertificateError> {
    let key = KeyPair::generate().map_err(CertificateError::Request)?;
    let client = inner.read().clone();
    let certificate = csr::obtain(&client, &Wanted::client(node_name), &key, false).await?;
    store.update(&certificate, &key.serialize_pem())?;
    let fresh = common::client::load(Some(kubeconfig), "kubelet").await?;
    *inner.write() = fresh;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Scratch;

    fn bootstrap_file(dir: &Path) -> std::path::PathBuf {
        let path = dir.join("bootstrap.conf");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
            clusters:\n- name: k\n  cluster: {server: 'https://10.0.0.1:6443', certificate-authority-data: QQ==}\n\
            contexts:\n- name: c\n  context: {cluster: k, user: u}\n\
            users:\n- name: u\n  user: {token: abcdef.0123456789abcdef}\n";
        fs::write(&path, text).unwrap();
        path
    }

    fn pair(until: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn the_kubeconfig_written_is_usable_until_its_certificate_ends() {
        let dir = Scratch::new();
        let store = Store::new(dir.path(), STORE_NAME);
        let path = dir.path().join("kubelet.conf");
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert!(!usable(&path, now));
        let bootstrap = bootstrap_file(dir.path());
        assert!(usable(&bootstrap, now), "a token has no end we can see");
        write_kubeconfig(&path, &bootstrap, &store.current()).unwrap();
        assert!(!usable(&path, now), "the pair is missing");
        let (certificate, key) = pair(2021);
        store.update(&certificate, &key).unwrap();
        assert!(!usable(&path, now), "the pair has ended");
        let (certificate, key) = pair(2099);
        store.update(&certificate, &key).unwrap();
        assert!(usable(&path, now) && uses_store(&path, &store));
        assert!(!uses_store(&bootstrap, &store));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("https://10.0.0.1:6443") && !text.contains("token"), "{text}");
    }

    #[test]
    fn a_key_that_waits_is_used_again() {
        let dir = Scratch::new();
        let store = Store::new(dir.path(), STORE_NAME);
        let first = pending_key(&store).unwrap().serialize_pem();
        assert_eq!(pending_key(&store).unwrap().serialize_pem(), first);
    }
}
