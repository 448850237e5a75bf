//! Where and with which certificate a daemon serves HTTPS.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use crate::serving::Endpoints;
use crate::shutdown::Tasks;
use crate::tls::{self, TlsError};

/// Names that a certificate made up at start is for.
const OWN_NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// `--secure-port` and its neighbours. The port's default is the daemon's: it sets it with `mut_arg`.
#[derive(Debug, Clone, Args)]
pub struct SecureServingFlags {
    /// The IP address on which to listen for the --secure-port port.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The port on which to serve HTTPS. If 0, don't serve HTTPS at all.
    #[arg(long, default_value_t = 0)]
    pub secure_port: u16,
    /// File containing the default x509 certificate for HTTPS.
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// File containing the default x509 private key matching --tls-cert-file.
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Where a certificate is made and kept when none is given; in memory when this is not given either.
    #[arg(long)]
    pub cert_dir: Option<PathBuf>,
}

/// Why a daemon cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    #[error("--tls-cert-file and --tls-private-key-file must be given together")]
    HalfPair,
    #[error("no certificate to serve with")]
    Tls(#[from] TlsError),
    #[error("cannot serve on {address}")]
    Bind { address: SocketAddr, source: std::io::Error },
}

impl SecureServingFlags {
    /// Where to listen; None when the port is 0.
    fn address(&self) -> Option<SocketAddr> {
        (self.secure_port != 0).then(|| SocketAddr::new(self.bind_address, self.secure_port))
    }

    /// Serves `endpoints` unless the port is 0. A taken port is an error at once.
    ///
    /// # Errors
    /// When there is no certificate to serve with, or the address cannot be bound.
    pub async fn serve(&self, name: &str, endpoints: Endpoints, tasks: &Tasks) -> Result<(), ServingError> {
        let Some(address) = self.address() else { return Ok(()) };
        let config = self.tls(name)?;
        crate::serving::serve("secure-serving", address, Some(config), endpoints, tasks)
            .await
            .map(drop)
            .map_err(|source| ServingError::Bind { address, source })
    }

    /// The given certificate, or one made up: `<cert-dir>/<name>.crt`, or for this run alone.
    ///
    /// # Errors
    /// When the files are missing or do not fit together.
    fn tls(&self, name: &str) -> Result<rustls::ServerConfig, ServingError> {
        let names = OWN_NAMES.map(str::to_owned);
        let (certificate, key) = match (&self.tls_cert_file, &self.tls_private_key_file, &self.cert_dir) {
            (Some(certificate), Some(key), _) => (certificate.clone(), key.clone()),
            (None, None, Some(dir)) => tls::self_signed(dir, name, &names)?,
            (None, None, None) => return Ok(tls::self_signed_in_memory(&names, &PROTOCOLS)?),
            _ => return Err(ServingError::HalfPair),
        };
        Ok(tls::server_config(&certificate, &key, &PROTOCOLS)?)
    }
}
