//! Client certificates: the chain is checked here, not in the handshake, so that a wrong certificate is a 401
//! and not a broken connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::AuthenticationError;
use crate::request::UserInfo;

/// The subject attribute that carries a user's uid.
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// A CA bundle that may change on disk.
pub struct CaBundle {
    path: PathBuf,
    loaded: ArcSwapOption<Loaded>,
}

struct Loaded {
    pem: String,
    verifier: Arc<dyn ClientCertVerifier>,
    subjects: Vec<Vec<u8>>,
}

/// What is wrong with a CA file.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("reading {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Invalid { path: PathBuf, message: String },
}

impl CaBundle {
    /// # Errors
    /// When the file cannot be read or holds no usable CA certificate.
    pub fn load(path: &Path) -> Result<Self, CaError> {
        let this = Self { path: path.to_owned(), loaded: ArcSwapOption::empty() };
        this.reload()?;
        Ok(this)
    }

    /// Reads the file again; true when it changed. On error the old content stays.
    ///
    /// # Errors
    /// As [`CaBundle::load`].
    pub fn reload(&self) -> Result<bool, CaError> {
        let path = || self.path.clone();
        let pem =
            std::fs::read_to_string(&self.path).map_err(|source| CaError::Read { path: path(), source })?;
        if self.loaded.load().as_ref().is_some_and(|old| old.pem == pem) {
            return Ok(false);
        }
        let invalid = |message: String| CaError::Invalid { path: path(), message };
        let mut roots = RootCertStore::empty();
        for block in pem::parse_many(&pem).map_err(|e| invalid(e.to_string()))? {
            if block.tag() == "CERTIFICATE" {
                let der = CertificateDer::from(block.into_contents());
                roots.add(der).map_err(|e| invalid(e.to_string()))?;
            }
        }
        if roots.is_empty() {
            return Err(invalid("data does not contain any valid certificates".into()));
        }
        let subjects = roots.subjects().into_iter().map(|s| s.as_ref().to_vec()).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| invalid(e.to_string()))?;
        self.loaded.store(Some(Arc::new(Loaded { pem, verifier, subjects })));
        Ok(true)
    }

    /// The bundle as it was read.
    pub fn pem(&self) -> String {
        self.loaded.load().as_ref().map(|l| l.pem.clone()).unwrap_or_default()
    }

    /// The DER names of the CAs, as a hint to clients with several certificates.
    pub fn subjects(&self) -> Vec<Vec<u8>> {
        self.loaded.load().as_ref().map(|l| l.subjects.clone()).unwrap_or_default()
    }

    /// Checks chain, time and client usage of what a peer presented (its own certificate first).
    ///
    /// # Errors
    /// When no chain leads to the bundle.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), AuthenticationError> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(AuthenticationError("no certificate".into()));
        };
        let loaded = self.loaded.load();
        let Some(loaded) = loaded.as_ref() else {
            return Err(AuthenticationError("no certificate authority".into()));
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        loaded.verifier.verify_client_cert(leaf, intermediates, at).map(|_| ()).map_err(|error| {
            AuthenticationError(format!("verifying certificate {} failed: {error}", identify(leaf)))
        })
    }
}

fn identify(leaf: &CertificateDer<'_>) -> String {
    match X509Certificate::from_der(leaf) {
        Ok((_, certificate)) => format!(
            "SN={}, subject={}, issuer={}",
            certificate.tbs_certificate.serial,
            certificate.subject(),
            certificate.issuer()
        ),
        Err(_) => "that cannot be parsed".into(),
    }
}

/// The common name of a certificate; empty when it has none.
pub fn common_name(leaf: &CertificateDer<'_>) -> String {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return String::new() };
    let name = certificate.subject().iter_common_name().last().and_then(|cn| cn.as_str().ok());
    name.unwrap_or_default().to_owned()
}

/// The user that a checked certificate stands for; `None` without a common name.
///
/// # Errors
/// When its uid attribute is not one non-empty string.
pub fn user_of(leaf: &CertificateDer<'_>) -> Result<Option<UserInfo>, AuthenticationError> {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return Ok(None) };
    let name = common_name(leaf);
    if name.is_empty() {
        return Ok(None);
    }
    let subject = certificate.subject();
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok())
        .map(str::to_owned)
        .collect();
    let uids: Vec<&str> = subject
        .iter_attributes()
        .filter(|attribute| attribute.attr_type().to_id_string() == UID_OID)
        .map(|attribute| attribute.as_str().unwrap_or_default())
        .collect();
    let uid = match uids.as_slice() {
        [] => String::new(),
        [""] => return Err(AuthenticationError("UID cannot be an empty string".into())),
        [one] => (*one).to_owned(),
        many => {
            return Err(AuthenticationError(format!("expected 1 UID, but found multiple: {many:?}")));
        }
    };
    let mut user = UserInfo { name, uid, groups, ..Default::default() };
    let fingerprint = hex::encode(Sha256::digest(leaf));
    user.extra.insert(
        "authentication.kubernetes.io/credential-id".into(),
        vec![format!("X509SHA256={fingerprint}")],
    );
    Ok(Some(user))
}
