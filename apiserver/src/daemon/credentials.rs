//! The certificates and keys that the flags name.

use std::path::PathBuf;
use std::sync::Arc;

use super::BuildError;
use crate::authentication::service_account::{self, Signer, Verifier};
use crate::authentication::x509::CaBundle;
use crate::config::Config;
use crate::server::tls::{Tls, TlsError};

/// The name of the self-signed pair in --cert-dir, upstream's.
const SELF_SIGNED_NAME: &str = "apiserver";

pub(super) fn load_ca(
    flag: &'static str,
    path: Option<&PathBuf>,
) -> Result<Option<Arc<CaBundle>>, BuildError> {
    path.map(|path| CaBundle::load(path).map(Arc::new).map_err(|source| BuildError::Ca { flag, source }))
        .transpose()
}

pub(super) fn load_tls(config: &Config, cas: [&Option<Arc<CaBundle>>; 2]) -> Result<Tls, TlsError> {
    let (certificate, key) = match &config.tls_files {
        Some(files) => files.clone(),
        None => {
            let mut hosts: Vec<String> =
                ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                    .map(str::to_owned)
                    .to_vec();
            hosts.push(config.advertise_address.to_string());
            hosts.extend(config.service_ip().map(|ip| ip.to_string()));
            common::tls::self_signed(&config.flags.cert_dir, SELF_SIGNED_NAME, &hosts)?
        }
    };
    let cas = cas.into_iter().flatten().cloned().collect();
    Tls::load(certificate, key, config.tls_profile.clone(), cas)
}

pub(super) fn load_signer(config: &Config) -> Result<Option<Arc<Signer>>, BuildError> {
    let key = |source| BuildError::Key { flag: "service-account-signing-key-file", source };
    let file = config.flags.service_account_signing_key_file.as_deref();
    file.map(|path| Signer::load(&config.issuer, path).map(Arc::new).map_err(key)).transpose()
}

/// The keys of all `--service-account-key-file`; the signing key's public half when there are none.
pub(super) fn load_verifier(
    config: &Config,
    signer: Option<&Arc<Signer>>,
) -> Result<Option<Verifier>, BuildError> {
    let mut keys = Vec::new();
    for path in &config.flags.service_account_key_file {
        let found = service_account::load_public(path)
            .map_err(|source| BuildError::Key { flag: "service-account-key-file", source })?;
        keys.extend(found);
    }
    if keys.is_empty() {
        keys.extend(signer.map(|signer| signer.public_key()));
    }
    let issuers = config.flags.service_account_issuer.clone();
    Ok((!keys.is_empty()).then(|| Verifier::new(issuers, keys, config.api_audiences.clone())))
}
