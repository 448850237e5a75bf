//! TLS: our certificate, reloaded when its files change, and client certificates that are asked for but not
//! judged in the handshake.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use common::tls::AnyClientCertificate;
use rustls::{CipherSuite, DistinguishedName, Error, ServerConfig};

use crate::authentication::x509::CaBundle;

/// What is wrong with the serving certificate or the TLS flags.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Material(#[from] common::tls::TlsError),
    #[error("{certificate}, {key}: {source}")]
    Pair { certificate: PathBuf, key: PathBuf, source: Error },
    #[error("--tls-min-version: unknown tls version {0:?}")]
    Version(String),
    #[error("--tls-cipher-suites: cipher suite {0} not supported or doesn't exist")]
    CipherSuite(String),
}

/// `--tls-min-version` and `--tls-cipher-suites`.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    pub min_version: String,
    pub cipher_suites: Vec<String>,
}

/// Makes server configurations from files.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    profile: Profile,
    client_cas: Vec<Arc<CaBundle>>,
    current: ArcSwap<ServerConfig>,
    /// What the current configuration was made from.
    read: parking_lot::Mutex<Vec<u8>>,
}

impl Tls {
    /// # Errors
    /// When files or flags cannot be used.
    pub fn load(
        certificate: PathBuf,
        key: PathBuf,
        profile: Profile,
        client_cas: Vec<Arc<CaBundle>>,
    ) -> Result<Self, TlsError> {
        let config = build(&certificate, &key, &profile, &client_cas)?;
        let this = Self {
            certificate,
            key,
            profile,
            client_cas,
            current: ArcSwap::from_pointee(config),
            read: parking_lot::Mutex::default(),
        };
        *this.read.lock() = this.contents();
        Ok(this)
    }

    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Takes changed files into use; new connections get the new certificate. Files that cannot be used are
    /// reported and the old ones stay.
    pub fn refresh(&self) {
        for ca in &self.client_cas {
            if let Err(error) = ca.reload() {
                tracing::warn!(%error, "keeping the previous client CA");
            }
        }
        let contents = self.contents();
        if *self.read.lock() == contents {
            return;
        }
        match build(&self.certificate, &self.key, &self.profile, &self.client_cas) {
            Ok(config) => {
                tracing::info!(certificate = %self.certificate.display(), "serving certificate reloaded");
                self.current.store(Arc::new(config));
            }
            Err(error) => tracing::warn!(%error, "keeping the previous serving certificate"),
        }
        *self.read.lock() = contents;
    }

    fn contents(&self) -> Vec<u8> {
        let mut all = std::fs::read(&self.certificate).unwrap_or_default();
        all.extend(std::fs::read(&self.key).unwrap_or_default());
        for ca in &self.client_cas {
            all.extend(ca.pem().into_bytes());
        }
        all
    }
}

fn build(
    certificate: &std::path::Path,
    key: &std::path::Path,
    profile: &Profile,
    client_cas: &[Arc<CaBundle>],
) -> Result<ServerConfig, TlsError> {
    let mut provider = rustls::crypto::ring::default_provider();
    let quick = aes_in_hardware();
    if quick {
        // As Go's server: half the key length costs a quarter less time per byte, and lists are bytes.
        let first = [CipherSuite::TLS13_AES_128_GCM_SHA256];
        provider.cipher_suites.sort_by_key(|suite| !first.contains(&suite.suite()));
    }
    if !profile.cipher_suites.is_empty() {
        let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite());
        let known: Vec<String> = provider.cipher_suites.iter().map(name).collect();
        for wanted in &profile.cipher_suites {
            if !known.contains(wanted) && !known.contains(&wanted.replacen("TLS_", "TLS13_", 1)) {
                return Err(TlsError::CipherSuite(wanted.clone()));
            }
        }
        // The suites of TLS 1.3 are not for choice, as upstream.
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || profile.cipher_suites.contains(&name(suite)));
    }
    let versions: &[&rustls::SupportedProtocolVersion] = match profile.min_version.as_str() {
        "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => rustls::ALL_VERSIONS,
        "VersionTLS13" => &[&rustls::version::TLS13],
        other => return Err(TlsError::Version(other.to_owned())),
    };
    let provider = Arc::new(provider);
    let pair = |source| TlsError::Pair { certificate: certificate.into(), key: key.into(), source };
    let hints = client_cas.iter().flat_map(|ca| ca.subjects()).map(DistinguishedName::from).collect();
    let verifier = AnyClientCertificate::new(Arc::clone(&provider), hints);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(pair)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(common::tls::read_certificates(certificate)?, common::tls::read_key(key)?)
        .map_err(pair)?;
    config.ignore_client_order = quick;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Without it the client knows better which cipher is cheap.
fn aes_in_hardware() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}
