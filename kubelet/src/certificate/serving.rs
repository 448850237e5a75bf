//! What :10250 shows: given files, a certificate the cluster signed, or one of the node's own making.

use std::sync::Arc;
use std::time::Duration;

use common::tls::AnyClientCertificate;
use parking_lot::RwLock;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use super::client::wait_for_deadline;
use super::csr::{self, Wanted};
use super::store::Store;
use super::{CertificateError, CertificateOptions};

const STORE_NAME: &str = "kubelet-server";
/// Between attempts to get a serving certificate, doubled up to the maximum.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(5 * 60);

/// Shows the newest certificate; a handshake fails while there is none.
#[derive(Debug, Default)]
pub(super) struct Newest(RwLock<Option<Arc<CertifiedKey>>>);

impl Newest {
    fn put(&self, certificate: &std::path::Path, key: &std::path::Path) -> Result<(), CertificateError> {
        let chain = common::tls::read_certificates(certificate)?;
        let key = common::tls::read_key(key)?;
        let provider = rustls::crypto::ring::default_provider();
        let pair = CertifiedKey::from_der(chain, key, &provider).map_err(common::tls::TlsError::Pair)?;
        *self.0.write() = Some(Arc::new(pair));
        Ok(())
    }
}

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

fn config(newest: Arc<Newest>, ask_clients: bool) -> Result<ServerConfig, CertificateError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(common::tls::TlsError::Pair)?;
    let builder = if ask_clients {
        builder.with_client_cert_verifier(AnyClientCertificate::new(provider, Vec::new()))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(newest);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// See [`super::serving_config`].
pub(super) async fn serving(
    options: &CertificateOptions,
    client: Option<kube::Client>,
    ask_clients: bool,
    stop: CancellationToken,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let newest = Arc::new(Newest::default());
    let config = Arc::new(config(newest.clone(), ask_clients)?);
    match (&options.tls_cert_file, &options.tls_private_key_file, client) {
        (Some(certificate), Some(key), _) => newest.put(certificate, key)?,
        (Some(_), None, _) | (None, Some(_), _) => return Err(CertificateError::HalfPair),
        (None, None, Some(client)) if options.server_tls_bootstrap => {
            let store = Store::new(&options.cert_dir, STORE_NAME);
            // One from an earlier run serves until it is replaced.
            if store.validity().is_some_and(|v| v.holds(jiff::Timestamp::now()))
                && let Err(error) = newest.put(&store.current(), &store.current())
            {
                tracing::warn!(%error, "the stored serving certificate cannot be used");
            }
            let wanted = Wanted::serving(&options.node_name, &options.node_ips);
            tokio::spawn(follow(store, wanted, client, newest, stop));
        }
        (None, None, None) if options.server_tls_bootstrap => return Err(CertificateError::NoClient),
        (None, None, _) => {
            let mut hosts = vec![options.node_name.clone()];
            hosts.extend(options.node_ips.iter().map(ToString::to_string));
            let (certificate, key) = common::tls::self_signed(&options.cert_dir, "kubelet", &hosts)?;
            newest.put(&certificate, &key)?;
        }
    }
    Ok(config)
}

/// Gets and rotates the serving certificate until `stop`.
async fn follow(
    store: Store,
    wanted: Wanted,
    client: kube::Client,
    newest: Arc<Newest>,
    stop: CancellationToken,
) {
    let work = async {
        let mut pause = RETRY_MIN;
        loop {
            wait_for_deadline(&store).await;
            match obtain(&store, &wanted, &client, &newest).await {
                Ok(()) => {
                    tracing::info!("serving certificate issued");
                    pause = RETRY_MIN;
                }
                Err(error) => {
                    tracing::warn!(%error, "no serving certificate yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

async fn obtain(
    store: &Store,
    wanted: &Wanted,
    client: &kube::Client,
    newest: &Newest,
) -> Result<(), CertificateError> {
    let key = KeyPair::generate().map_err(CertificateError::Request)?;
    let certificate = csr::obtain(client, wanted, &key, false).await?;
    store.update(&certificate, &key.serialize_pem())?;
    newest.put(&store.current(), &store.current())
}
