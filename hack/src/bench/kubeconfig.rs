//! The part of a kubeconfig that says how to reach a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use base64::Engine;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;

/// A server and how to be trusted by it.
#[derive(Clone)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub name: ServerName<'static>,
    pub tls: Arc<rustls::ClientConfig>,
    /// A bearer token, when the user has no certificate.
    pub token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    current_context: String,
    contexts: Vec<Named<ContextEntry>>,
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster", alias = "user")]
    value: T,
}

#[derive(Deserialize)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    #[serde(default)]
    certificate_authority: Option<PathBuf>,
    #[serde(default)]
    certificate_authority_data: Option<String>,
    #[serde(default)]
    tls_server_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(default)]
    client_certificate: Option<PathBuf>,
    #[serde(default)]
    client_certificate_data: Option<String>,
    #[serde(default)]
    client_key: Option<PathBuf>,
    #[serde(default)]
    client_key_data: Option<String>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    token_file: Option<PathBuf>,
}

/// Reads the current context of a file.
///
/// # Errors
/// Names what is missing or cannot be read.
pub fn read(path: &Path) -> anyhow::Result<Target> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let config: Config =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is no kubeconfig", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let context = find(config.contexts, &config.current_context, "context")?;
    let cluster = find(config.clusters, &context.cluster, "cluster")?;
    let user = find(config.users, &context.user, "user")?;

    let Some(address) = cluster.server.strip_prefix("https://") else {
        bail!("the server {} is not https", cluster.server);
    };
    let authority = address.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().with_context(|| format!("the port of {authority}"))?),
        None => (authority, 443),
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    let name = cluster.tls_server_name.unwrap_or_else(|| host.clone());

    let mut roots = rustls::RootCertStore::empty();
    let ca = data_or_file(cluster.certificate_authority_data, cluster.certificate_authority, folder)?
        .context("the cluster has no certificate-authority")?;
    for certificate in CertificateDer::pem_slice_iter(&ca) {
        roots.add(certificate?)?;
    }
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let certificate = data_or_file(user.client_certificate_data, user.client_certificate, folder)?;
    let key = data_or_file(user.client_key_data, user.client_key, folder)?;
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => builder.with_client_auth_cert(
            CertificateDer::pem_slice_iter(&certificate).collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_slice(&key)?,
        )?,
        _ => builder.with_no_client_auth(),
    };
    let token = match (user.token, user.token_file) {
        (Some(token), _) => Some(token),
        (None, Some(file)) => Some(std::fs::read_to_string(folder.join(file))?.trim().to_owned()),
        (None, None) => None,
    };
    let name = ServerName::try_from(name)?;
    Ok(Target { host, port, name, tls: Arc::new(tls), token })
}

fn find<T>(entries: Vec<Named<T>>, name: &str, what: &str) -> anyhow::Result<T> {
    let found = entries.into_iter().find(|entry| entry.name == name);
    Ok(found.with_context(|| format!("the kubeconfig has no {what} {name:?}"))?.value)
}

fn data_or_file(
    data: Option<String>,
    file: Option<PathBuf>,
    folder: &Path,
) -> anyhow::Result<Option<Vec<u8>>> {
    match (data, file) {
        (Some(data), _) => Ok(Some(
            base64::engine::general_purpose::STANDARD.decode(data).context("base64 in the kubeconfig")?,
        )),
        (None, Some(file)) => {
            let path = folder.join(file);
            Ok(Some(std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_tokens_are_read_relative_to_the_kubeconfig() {
        let folder = std::env::temp_dir().join(format!("pintle-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        std::fs::write(folder.join("ca.crt"), certificate.pem()).expect("written");
        let config = "current-context: c\ncontexts:\n- name: c\n  context: {cluster: k, user: u}\nclusters:\n- name: k\n  cluster: {server: 'https://127.0.0.1:6443', certificate-authority: ca.crt}\nusers:\n- name: u\n  user: {token: secret}\n";
        std::fs::write(folder.join("config"), config).expect("written");
        let _ = rustls::crypto::ring::default_provider().install_default();
        let target = read(&folder.join("config")).expect("a target");
        assert_eq!((target.host.as_str(), target.port), ("127.0.0.1", 6443));
        assert_eq!(target.token.as_deref(), Some("secret"));
        std::fs::write(folder.join("config"), config.replace("user: u", "user: v")).expect("written");
        assert!(read(&folder.join("config")).err().expect("an error").to_string().contains("\"v\""));
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
