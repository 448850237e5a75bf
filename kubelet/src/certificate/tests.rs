//! Handshakes against what this room serves.

use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::volumes::tests::Scratch;

fn options(dir: &Scratch) -> CertificateOptions {
    CertificateOptions {
        kubeconfig: None,
        bootstrap_kubeconfig: None,
        cert_dir: dir.path().join("pki"),
        node_name: "node1".into(),
        node_ips: vec!["10.0.0.1".parse().unwrap()],
        rotate_certificates: true,
        server_tls_bootstrap: false,
        tls_cert_file: None,
        tls_private_key_file: None,
    }
}

#[tokio::test]
async fn a_client_may_show_a_certificate_of_any_signer() {
    let dir = Scratch::new();
    let options = options(&dir);
    let ca = Some(dir.path().join("ca.crt"));
    let config = serving_config(&options, None, ca, CancellationToken::new()).await.unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let server = options.cert_dir.join("kubelet.crt");
    roots.add(common::tls::read_certificates(&server).unwrap().remove(0)).unwrap();
    let (certificate, key) =
        common::tls::self_signed(dir.path(), "stranger", &["stranger".to_owned()]).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            common::tls::read_certificates(&certificate).unwrap(),
            common::tls::read_key(&key).unwrap(),
        )
        .unwrap();
    let (near, far) = tokio::io::duplex(4096);
    let name = ServerName::try_from("node1").unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let acceptor = TlsAcceptor::from(config);
    let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    client.unwrap();
    let server = server.unwrap();
    let shown = server.get_ref().1.peer_certificates().unwrap();
    assert_eq!(shown, common::tls::read_certificates(&certificate).unwrap());
}

#[tokio::test]
async fn half_a_pair_is_told() {
    let dir = Scratch::new();
    let mut options = options(&dir);
    options.tls_cert_file = Some("/x.crt".into());
    let error = serving_config(&options, None, None, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, CertificateError::HalfPair));
    options.tls_cert_file = None;
    options.server_tls_bootstrap = true;
    let error = serving_config(&options, None, None, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, CertificateError::NoClient));
    assert!(client(&options, CancellationToken::new()).await.unwrap().is_none());
}
