//! Where certificates of this node live: `<dir>/<name>-<time>.pem`, and `<name>-current.pem` that points to the
//! newest. A file holds the certificate chain, then its key; only root may read it.
//!
//! Answers to `client-go/util/certificate` FileStore.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::CertificateError;

/// A pair name in a folder.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    name: &'static str,
}

impl Store {
    pub fn new(dir: &Path, name: &'static str) -> Self {
        Self { dir: dir.to_owned(), name }
    }

    /// The link that configuration files name.
    pub fn current(&self) -> PathBuf {
        self.dir.join(format!("{}-current.pem", self.name))
    }

    /// Where a key waits for its certificate, so that a restart asks for the same one again.
    pub fn pending_key(&self) -> PathBuf {
        self.dir.join(format!("{}.key.tmp", self.name))
    }

    pub fn make_dir(&self) -> Result<(), CertificateError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.dir);
        made.map_err(|source| CertificateError::File { path: self.dir.clone(), source })
    }

    /// Writes a pair and points the link to it, at once.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn update(&self, certificate: &str, key: &str) -> Result<(), CertificateError> {
        self.make_dir()?;
        let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
        let file = self.dir.join(format!("{}-{}.pem", self.name, now.strftime("%Y-%m-%d-%H-%M-%S")));
        let pair = format!("{}\n{}", certificate.trim_end(), key);
        common::tls::write_private(&file, pair.as_bytes())?;
        let fresh = self.dir.join(format!("{}-updated.pem", self.name));
        let linked = remove_if_there(&fresh)
            .and_then(|()| symlink(&file, &fresh))
            .and_then(|()| fs::rename(&fresh, self.current()));
        linked.map_err(|source| CertificateError::File { path: self.current(), source })
    }

    /// When the current pair began and ends; None when there is none that can be read.
    pub fn validity(&self) -> Option<Validity> {
        validity(&fs::read(self.current()).ok()?)
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The time a certificate is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Validity {
    pub fn holds(&self, now: Timestamp) -> bool {
        now < self.not_after
    }

    /// When to ask for the next one: after 70 to 90% of its life.
    pub fn rotation_deadline(&self) -> Timestamp {
        let total = self.not_after.duration_since(self.not_before);
        let part = total.as_secs_f64().max(0.0) * rand::rng().random_range(0.7..0.9);
        let part = SignedDuration::try_from_secs_f64(part).unwrap_or(SignedDuration::ZERO);
        self.not_before.checked_add(part).unwrap_or(self.not_after)
    }
}

/// Of the first certificate in PEM.
pub fn validity(pem: &[u8]) -> Option<Validity> {
    let leaf = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
    let (_, certificate) = X509Certificate::from_der(&leaf).ok()?;
    let time = |t: x509_parser::time::ASN1Time| Timestamp::from_second(t.timestamp()).ok();
    Some(Validity {
        not_before: time(certificate.validity().not_before)?,
        not_after: time(certificate.validity().not_after)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Scratch;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_link_follows_the_newest_pair() {
        let dir = Scratch::new();
        let store = Store::new(&dir.path().join("pki"), "kubelet-client");
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let certificate = params.self_signed(&key).unwrap().pem();
        store.update("old", "key").unwrap();
        assert!(store.validity().is_none());
        store.update(&certificate, &key.serialize_pem()).unwrap();
        let validity = store.validity().unwrap();
        assert_eq!(validity.not_after.to_string(), "2027-01-01T00:00:00Z");
        let mode = fs::metadata(store.current()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for _ in 0..100 {
            let deadline = validity.rotation_deadline().to_string();
            assert!(deadline.as_str() > "2026-09-12" && deadline.as_str() < "2026-11-26", "{deadline}");
        }
        common::tls::read_key(&store.current()).unwrap();
        assert_eq!(common::tls::read_certificates(&store.current()).unwrap().len(), 1);
    }
}
