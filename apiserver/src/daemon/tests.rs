//! The whole server on loopback, over the memory store.

use std::path::PathBuf;

use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};

use super::*;
use crate::config::StoreConfig;
use crate::flags::Flags;

mod gates;
mod metrics;
mod sockets;
mod stores;

type Https = Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<bytes::Bytes>>;

struct Server {
    dir: PathBuf,
    address: SocketAddr,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<bool>,
    ca: (rcgen::Certificate, rcgen::KeyPair),
}

impl Server {
    async fn start() -> Self {
        Self::start_on(Some(StoreConfig::Memory), &[]).await
    }

    /// With the store that `more` flags name when `store` is not given.
    async fn start_on(store: Option<StoreConfig>, more: &[String]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = std::env::temp_dir().join(format!("pintle-apiserver-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&dir).unwrap();
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let key = write("sa.key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
        let tokens = write("tokens.csv", "admin-token,admin,1,system:masters\njane-token,jane,2\n");
        let ca_file = write("ca.crt", &ca.pem());
        let args = [
            "kube-apiserver",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
            "--advertise-address=10.1.2.3",
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--service-account-signing-key-file={key}"),
            &format!("--token-auth-file={tokens}"),
            &format!("--client-ca-file={ca_file}"),
            &format!("--cert-dir={}", dir.display()),
            "--authorization-mode=Node,RBAC",
        ];
        let args = args.map(str::to_owned).into_iter().chain(more.iter().cloned());
        let mut config = Config::new(Flags::parse_args(args).unwrap()).unwrap();
        config.store = store.unwrap_or(config.store);
        let daemon = build(config).await.unwrap();
        let address = daemon.address().unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(daemon.run(stop.clone()));
        let server = Self { dir, address, stop, running, ca: (ca, ca_key) };
        let client = server.client(None);
        server.until(&client, "/readyz", "admin-token").await;
        server
    }

    async fn stop(self) {
        self.stop.cancel();
        assert!(self.running.await.unwrap());
        let _ = std::fs::remove_dir_all(self.dir);
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in common::tls::read_certificates(&self.dir.join("apiserver.crt")).unwrap() {
            roots.add(certificate).unwrap();
        }
        roots
    }

    /// A client, with a certificate for `subject` signed by `ca` when given.
    fn client(&self, identity: Option<(Vec<rustls::pki_types::CertificateDer<'static>>, String)>) -> Https {
        let builder = rustls::ClientConfig::builder().with_root_certificates(self.roots());
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .enable_http2()
            .build();
        Client::builder(TokioExecutor::new()).build(connector)
    }

    fn certificate(
        &self,
        name: &str,
        group: &str,
        own_ca: bool,
    ) -> (Vec<rustls::pki_types::CertificateDer<'static>>, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = if own_ca {
            let (ca, ca_key) = &self.ca;
            let issuer = rcgen::Issuer::from_ca_cert_pem(&ca.pem(), ca_key).unwrap();
            params.signed_by(&key, &issuer).unwrap()
        } else {
            params.self_signed(&key).unwrap()
        };
        (vec![certificate.der().clone()], key.serialize_pem())
    }

    /// The answer as it comes.
    async fn raw(&self, client: &Https, path: &str, token: &str) -> http::Response<hyper::body::Incoming> {
        let request = http::Request::get(format!("https://{}{path}", self.address))
            .header("authorization", format!("Bearer {token}"))
            .body(Full::default());
        client.request(request.unwrap()).await.unwrap()
    }

    async fn call(
        &self,
        client: &Https,
        method: &str,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.address))
            .header("content-type", "application/json");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let response = client.request(request.body(Full::from(body)).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Asks until the answer is 200.
    async fn until(&self, client: &Https, path: &str, token: &str) {
        let asking = async { while self.get(client, path, token).await.0 != 200 {} };
        tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap();
    }

    async fn get(&self, client: &Https, path: &str, token: &str) -> (u16, Value) {
        self.call(client, "GET", path, token, None).await
    }
}

#[tokio::test]
async fn a_new_server_has_what_every_cluster_has() {
    let server = Server::start().await;
    assert!(server.dir.join("apiserver.key").exists());
    let client = server.client(None);
    for path in [
        "/api/v1/namespaces/kube-system",
        "/api/v1/namespaces/default/services/kubernetes",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/exempt",
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/global-default",
    ] {
        let (code, body) = server.get(&client, path, "admin-token").await;
        assert_eq!(code, 200, "{path}: {body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn credentials_decide_and_roles_allow() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let plain = server.client(None);
    assert_eq!(server.get(&plain, pods, "").await.0, 403);
    assert_eq!(server.get(&plain, pods, "no-such-token").await.0, 401);
    assert_eq!(server.get(&plain, "/version", "").await.0, 200);
    assert_eq!(server.get(&plain, pods, "jane-token").await.0, 403);
    let binding = json!({
        "kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let (code, body) = server.call(&plain, "POST", bindings, "admin-token", Some(binding)).await;
    assert_eq!(code, 201, "{body}");
    server.until(&plain, pods, "jane-token").await;
    assert_eq!(server.get(&plain, "/api/v1/pods", "jane-token").await.0, 403);

    let node = server.client(Some(server.certificate("system:node:n1", "system:nodes", true)));
    assert_eq!(server.get(&node, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", "").await.0, 200);
    let (code, status) = server.get(&node, "/api/v1/secrets", "").await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        r#"secrets is forbidden: User "system:node:n1" cannot list resource "secrets" in API group "" at the cluster scope: can only read namespaced object of this type"#
    );
    let stranger = server.client(Some(server.certificate("admin", "system:masters", false)));
    assert_eq!(server.get(&stranger, pods, "").await.0, 401);
    server.stop().await;
}

#[tokio::test]
async fn requests_are_sorted_by_flow_schemas_that_say_what_they_refer_to() {
    let server = Server::start().await;
    let client = server.client(None);
    let base = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let get = async |path: String| server.get(&client, &path, "admin-token").await.1;
    let asking = async {
        loop {
            let schema = get(format!("{base}/flowschemas/service-accounts")).await;
            if schema["status"]["conditions"][0]["status"] == "False" {
                return schema;
            }
        }
    };
    let schema = tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap();
    assert_eq!(schema["status"]["conditions"][0]["type"], "Dangling");
    assert_eq!(schema["metadata"]["generation"], 1);
    let exempt = get(format!("{base}/prioritylevelconfigurations/exempt")).await;
    let request = http::Request::get(format!("https://{}/api/v1/nodes", server.address))
        .header("authorization", "Bearer admin-token")
        .body(Full::default())
        .unwrap();
    let response = client.request(request).await.unwrap();
    let level = response.headers()["x-kubernetes-pf-prioritylevel-uid"].to_str().unwrap();
    assert_eq!(level, exempt["metadata"]["uid"].as_str().unwrap());
    let (code, _) =
        server.get(&client, "/debug/api_priority_and_fairness/dump_priority_levels", "admin-token").await;
    assert_eq!(code, 200);
    server.stop().await;
}

#[tokio::test]
async fn every_shape_comes_in_every_encoding_that_has_it() {
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let server = Server::start().await;
    let client = server.client(None);
    let ask = async |path: &str, accept: &str| {
        let request = http::Request::get(format!("https://{}{path}", server.address))
            .header("authorization", "Bearer admin-token")
            .header("accept", accept)
            .body(Full::default())
            .unwrap();
        let response = client.request(request).await.unwrap();
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, headers["content-type"].to_str().unwrap().to_owned(), body)
    };
    let shape = |kind: &str| format!(";as={kind};g=meta.k8s.io;v=v1");
    let (partial, partials, table) =
        (shape("PartialObjectMetadata"), shape("PartialObjectMetadataList"), shape("Table"));
    let (one, list) = ("/api/v1/namespaces/default", "/api/v1/namespaces");
    let messages = protobuf::Table::builtin();
    for (path, parameters, kind) in [
        (one, "", "Namespace"),
        (list, "", "NamespaceList"),
        (one, &*partial, "PartialObjectMetadata"),
        (list, &*partials, "PartialObjectMetadataList"),
        (one, &*table, "Table"),
        (list, &*table, "Table"),
    ] {
        for encoding in ["application/json", "application/yaml", PROTOBUF] {
            let accept = format!("{encoding}{parameters}");
            let (code, content_type, body) = ask(path, &accept).await;
            if kind == "Table" && encoding == PROTOBUF {
                assert_eq!(code, 406, "{path} {accept}");
                let (code, content_type, _) =
                    ask(path, &format!("{accept},application/json{parameters}")).await;
                assert_eq!((code, &*content_type), (200, "application/json"), "{path} {accept}");
                continue;
            }
            assert_eq!((code, &*content_type), (200, encoding), "{path} {accept}");
            let tree: Value = match encoding {
                PROTOBUF => protobuf::decode(&messages, &body, None).unwrap(),
                "application/yaml" => serde_saphyr::from_slice(&body).unwrap(),
                _ => serde_json::from_slice(&body).unwrap(),
            };
            assert_eq!(tree["kind"], kind, "{path} {accept}");
            assert!(!tree["metadata"]["resourceVersion"].as_str().unwrap().is_empty(), "{path} {accept}");
        }
    }
    let watch = "/api/v1/namespaces?watch=1&timeoutSeconds=1";
    for (parameters, kind) in [("", "Namespace"), (&*partial, "PartialObjectMetadata")] {
        let (code, content_type, body) = ask(watch, &format!("application/json{parameters}")).await;
        assert_eq!((code, &*content_type), (200, "application/json"));
        let first = body.split(|byte| *byte == b'\n').next().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(first).unwrap()["object"]["kind"], kind);
        let (code, content_type, body) = ask(watch, &format!("{PROTOBUF}{parameters}")).await;
        assert_eq!((code, &*content_type), (200, "application/vnd.kubernetes.protobuf;stream=watch"));
        let (length, rest) = body.split_at(4);
        let frame = &rest[..u32::from_be_bytes(length.try_into().unwrap()) as usize];
        assert!(frame.starts_with(b"\x0a\x05ADDED"), "{frame:?}");
        let object = frame.windows(4).position(|window| window == b"k8s\0").unwrap();
        assert_eq!(protobuf::decode(&messages, &frame[object..], None).unwrap()["kind"], kind);
    }
    let (code, _, body) = ask(watch, "application/yaml").await;
    assert_eq!(code, 406);
    let status: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        status["message"],
        "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    );
    let (code, _, body) = ask(one, "text/plain").await;
    assert_eq!(code, 406);
    let status: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        status["message"],
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    let (_, _, body) = ask("/api/v1/namespaces/default?pretty=true", "application/json").await;
    assert!(body.starts_with(b"{\n  \"kind\": \"Namespace\",\n"), "{body:?}");
    server.stop().await;
}
