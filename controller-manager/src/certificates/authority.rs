//! Issues certificates with the cluster's signing key.
//!
//! The files are read for every certificate, so that a replaced authority is used at once and the key is not
//! kept in memory between the few times it is needed.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::policy::Request;
use crate::config::Signing;

/// Clocks may differ by this much.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Below this lifetime the end is not moved for the backdating.
const SHORT: Duration = Duration::from_secs(8 * 3600);
/// No certificate is shorter than this.
const SHORTEST: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: std::path::PathBuf, source: std::io::Error },
    #[error("--cluster-signing-cert-file: {0}")]
    Certificate(String),
    #[error("--cluster-signing-key-file: {0}")]
    Key(String),
    #[error("the signer has expired")]
    Expired,
    #[error("unrecognized usage \"{0}\"")]
    Usage(String),
    #[error("the request is not supported: {0}")]
    Unsupported(String),
    #[error("cannot sign: {0}")]
    Sign(String),
}

/// From PKCS#1, which `openssl genrsa` and kubeadm write, to the PKCS#8 that the signing library reads.
fn pkcs8_of_rsa(pkcs1: &[u8]) -> Vec<u8> {
    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        let length = content.len();
        if length < 0x80 {
            out.push(u8::try_from(length).unwrap_or(0x7f));
        } else {
            let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
            out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(0));
            out.extend(bytes);
        }
        out.extend_from_slice(content);
        out
    }
    // SEQUENCE { rsaEncryption, NULL }
    let algorithm =
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let mut content = vec![0x02, 0x01, 0x00];
    content.extend_from_slice(&algorithm);
    content.extend(tlv(0x04, pkcs1));
    tlv(0x30, &content)
}

fn key_pair(pem: &[u8]) -> Result<KeyPair, AuthorityError> {
    let wrong = |what: String| AuthorityError::Key(what);
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|e| wrong(e.to_string()))?;
    let key = match key {
        PrivateKeyDer::Pkcs1(rsa) => {
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8_of_rsa(rsa.secret_pkcs1_der())))
        }
        other => other,
    };
    KeyPair::try_from(&key).map_err(|e| wrong(e.to_string()))
}

/// How long a certificate lives: what was asked for, within limits.
pub fn lifetime(asked_seconds: Option<i32>, longest: Duration) -> Duration {
    match asked_seconds {
        None => longest,
        Some(seconds) => {
            let asked = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            if asked > longest { longest } else { asked.max(SHORTEST) }
        }
    }
}

fn usages(usages: &[String]) -> Result<(Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>), AuthorityError> {
    let (mut key, mut extended) = (Vec::new(), Vec::new());
    for usage in usages {
        match usage.as_str() {
            "signing" | "digital signature" => key.push(KeyUsagePurpose::DigitalSignature),
            "content commitment" => key.push(KeyUsagePurpose::ContentCommitment),
            "key encipherment" => key.push(KeyUsagePurpose::KeyEncipherment),
            "key agreement" => key.push(KeyUsagePurpose::KeyAgreement),
            "data encipherment" => key.push(KeyUsagePurpose::DataEncipherment),
            "cert sign" => key.push(KeyUsagePurpose::KeyCertSign),
            "crl sign" => key.push(KeyUsagePurpose::CrlSign),
            "encipher only" => key.push(KeyUsagePurpose::EncipherOnly),
            "decipher only" => key.push(KeyUsagePurpose::DecipherOnly),
            "any" => extended.push(ExtendedKeyUsagePurpose::Any),
            "server auth" => extended.push(ExtendedKeyUsagePurpose::ServerAuth),
            "client auth" => extended.push(ExtendedKeyUsagePurpose::ClientAuth),
            "code signing" => extended.push(ExtendedKeyUsagePurpose::CodeSigning),
            "email protection" | "s/mime" => extended.push(ExtendedKeyUsagePurpose::EmailProtection),
            "timestamping" => extended.push(ExtendedKeyUsagePurpose::TimeStamping),
            "ocsp signing" => extended.push(ExtendedKeyUsagePurpose::OcspSigning),
            other => return Err(AuthorityError::Usage(other.to_owned())),
        }
    }
    key.dedup();
    Ok((key, extended))
}

/// Issues the certificate that `request` asks for, as PEM.
///
/// # Errors
/// See [`AuthorityError`]; nothing of the key is in any text.
pub fn issue(
    signing: &Signing,
    request: &Request,
    wanted: &[String],
    asked_seconds: Option<i32>,
    now: Timestamp,
) -> Result<String, AuthorityError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|source| AuthorityError::Read { path: path.to_owned(), source })
    };
    let certificate = CertificateDer::from_pem_slice(&read(&signing.certificate)?)
        .map_err(|e| AuthorityError::Certificate(e.to_string()))?;
    let key = key_pair(&read(&signing.key)?)?;
    let (_, parsed) =
        X509Certificate::from_der(&certificate).map_err(|e| AuthorityError::Certificate(e.to_string()))?;
    let signer_end = parsed.validity().not_after.timestamp();
    if now.as_second() >= signer_end {
        return Err(AuthorityError::Expired);
    }
    let issuer = Issuer::from_ca_cert_der(&certificate, key)
        .map_err(|e| AuthorityError::Certificate(e.to_string()))?;
    if request.organizations.len() > 1 {
        return Err(AuthorityError::Unsupported("several organizations in the subject".into()));
    }
    let mut csr =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request.der.clone()))
            .map_err(|e| AuthorityError::Unsupported(e.to_string()))?;
    let (key_usages, extended) = usages(wanted)?;
    let life = lifetime(asked_seconds, signing.duration);
    let tail = if life < SHORT { life } else { life.saturating_sub(BACKDATE) };
    let begin = now.as_second() - i64::try_from(BACKDATE.as_secs()).unwrap_or(0);
    let end = (now.as_second() + i64::try_from(tail.as_secs()).unwrap_or(0)).min(signer_end);
    csr.params.key_usages = key_usages;
    csr.params.extended_key_usages = extended;
    csr.params.is_ca = IsCa::ExplicitNoCa;
    csr.params.custom_extensions.clear();
    csr.params.use_authority_key_identifier_extension = true;
    csr.params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 16]>()));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    csr.params.not_before = epoch + Duration::from_secs(u64::try_from(begin).unwrap_or(0));
    csr.params.not_after = epoch + Duration::from_secs(u64::try_from(end).unwrap_or(0));
    let issued = csr.signed_by(&issuer).map_err(|e| AuthorityError::Sign(e.to_string()))?;
    let (_, made) =
        X509Certificate::from_der(issued.der()).map_err(|e| AuthorityError::Sign(e.to_string()))?;
    // The library derives the key's type from the request's signature; a certificate for another key must
    // not leave this function.
    if made.tbs_certificate.subject_pki.raw != request.public_key {
        return Err(AuthorityError::Unsupported("this combination of key and signature algorithm".into()));
    }
    Ok(issued.pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_limits() {
        let year = Duration::from_secs(365 * 86400);
        assert_eq!(lifetime(None, year), year);
        assert_eq!(lifetime(Some(i32::MAX), year), year);
        assert_eq!(lifetime(Some(3600), year).as_secs(), 3600);
        assert_eq!(lifetime(Some(-5), year), SHORTEST);
    }
}
