//! TLS material: reading PEM files, serving certificates, self-signed ones for first starts, and the verifier of
//! servers that judge client certificates per request.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};

/// What can be wrong with a certificate or key file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{} holds no usable PEM: {what}", path.display())]
    Pem { path: PathBuf, what: String },
    #[error("certificate and key do not fit together")]
    Pair(#[source] rustls::Error),
    #[error("cannot make a self-signed certificate")]
    SelfSigned(#[source] rcgen::Error),
}

/// All certificates of a PEM file, in order.
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = fs::read(path).map_err(|source| TlsError::Read { path: path.into(), source })?;
    let pem_error = |what: String| TlsError::Pem { path: path.into(), what };
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| pem_error(e.to_string()))?;
    if certificates.is_empty() {
        return Err(pem_error("no certificate".into()));
    }
    Ok(certificates)
}

/// The first private key of a PEM file (PKCS#1, PKCS#8 or SEC1).
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = fs::read(path).map_err(|source| TlsError::Read { path: path.into(), source })?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|e| TlsError::Pem { path: path.into(), what: format!("no private key ({e})") })
}

/// A server configuration without client certificates, offering `protocols` by ALPN.
///
/// # Errors
/// When the files cannot be read or do not fit together.
pub fn server_config(
    certificate: &Path,
    key: &Path,
    protocols: &[&[u8]],
) -> Result<rustls::ServerConfig, TlsError> {
    serving(read_certificates(certificate)?, read_key(key)?, protocols)
}

fn serving(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    protocols: &[&[u8]],
) -> Result<rustls::ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}

/// Lets every client show a certificate, or none, as long as it proves to hold the key. Who that makes the client
/// is judged per request: a stranger is answered with 401 and not with a broken handshake.
#[derive(Debug)]
pub struct AnyClientCertificate {
    provider: Arc<CryptoProvider>,
    hints: Vec<DistinguishedName>,
}

impl AnyClientCertificate {
    /// `hints` are the subjects of the authorities that clients are told about; none lets them show anything.
    pub fn new(provider: Arc<CryptoProvider>, hints: Vec<DistinguishedName>) -> Arc<Self> {
        Arc::new(Self { provider, hints })
    }
}

impl ClientCertVerifier for AnyClientCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes `<dir>/<name>.crt` and `.key` when they are missing, for `hosts` (names or addresses);
/// returns their paths.
///
/// # Errors
/// When the directory cannot be written.
pub fn self_signed(dir: &Path, name: &str, hosts: &[String]) -> Result<(PathBuf, PathBuf), TlsError> {
    let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    if certificate.exists() && key.exists() {
        return Ok((certificate, key));
    }
    fs::create_dir_all(dir).map_err(|source| TlsError::Write { path: dir.into(), source })?;
    let (signed, pair) = made_up(hosts)?;
    write_private(&key, pair.serialize_pem().as_bytes())?;
    fs::write(&certificate, signed.pem())
        .map_err(|source| TlsError::Write { path: certificate.clone(), source })?;
    Ok((certificate, key))
}

/// A server configuration with a certificate made up for this run, which nothing keeps.
///
/// # Errors
/// When a host is neither a name nor an address.
pub fn self_signed_in_memory(
    hosts: &[String],
    protocols: &[&[u8]],
) -> Result<rustls::ServerConfig, TlsError> {
    let (signed, pair) = made_up(hosts)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    serving(vec![signed.der().clone()], key, protocols)
}

fn made_up(hosts: &[String]) -> Result<(rcgen::Certificate, KeyPair), TlsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, hosts.first().map_or("localhost", String::as_str));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    for host in hosts {
        let san = match host.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(host.clone().try_into().map_err(TlsError::SelfSigned)?),
        };
        params.subject_alt_names.push(san);
    }
    let pair = KeyPair::generate().map_err(TlsError::SelfSigned)?;
    let signed = params.self_signed(&pair).map_err(TlsError::SelfSigned)?;
    Ok((signed, pair))
}

/// Writes a file that only its owner can read, by rename, so that no reader sees half of it.
///
/// # Errors
/// When the file or its directory cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    let wrap = |source| TlsError::Write { path: path.into(), source };
    let temporary = path.with_extension(format!("tmp.{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(wrap)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(wrap)?;
    fs::rename(&temporary, path).map_err(wrap)
}
