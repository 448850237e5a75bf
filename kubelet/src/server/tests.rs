//! The server over its real listener, with pods of its own making and a runtime that is a plain TCP server.

use std::collections::HashMap;
use std::path::Path;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::volumes::tests::Scratch;

struct Pods {
    pods: Vec<Arc<Pod>>,
    containers: HashMap<String, ContainerInfo>,
}

#[async_trait]
impl PodAccess for Pods {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.clone()
    }

    fn pod(&self, namespace: &str, name: &str, _: Option<&str>) -> Option<Arc<Pod>> {
        let named = |pod: &&Arc<Pod>| {
            pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
        };
        self.pods.iter().find(named).cloned()
    }

    async fn container(&self, _: &Pod, name: &str, previous: bool) -> Result<ContainerInfo, AccessError> {
        if previous {
            return Err(AccessError::NoPrevious { pod: "p".into(), container: name.into() });
        }
        let missing = || AccessError::ContainerNotFound { pod: "p".into(), container: name.into() };
        self.containers.get(name).cloned().ok_or_else(missing)
    }

    async fn sandbox_id(&self, _: &Pod) -> Result<String, AccessError> {
        Ok("sandbox".into())
    }

    fn sync_loop_healthy(&self) -> bool {
        true
    }
}

/// A read-only and a health port, and a secure one with anonymous callers allowed: their addresses.
async fn serve_pods(dir: &Path, stop: &CancellationToken) -> Vec<SocketAddr> {
    let log = dir.join("0.log");
    std::fs::write(&log, "2026-01-01T00:00:01Z stdout F hello\n").unwrap();
    let info = ContainerInfo { id: "c1".into(), running: false, log_path: log, restart_count: 0 };
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "c"}]}});
    let access = Arc::new(Pods {
        pods: vec![Arc::new(serde_json::from_value(pod).unwrap())],
        containers: HashMap::from([("c".to_owned(), info)]),
    });
    let (cert, key) = common::tls::self_signed(dir, "kubelet", &["localhost".to_owned()]).unwrap();
    let config = ServerConfig {
        address: [127, 0, 0, 1].into(),
        port: 0,
        healthz_port: 0,
        healthz_bind_address: [127, 0, 0, 1].into(),
        read_only_port: 0,
        tls: Arc::new(common::tls::server_config(&cert, &key, &[b"http/1.1"]).unwrap()),
        client_ca_file: None,
        anonymous_auth: true,
        webhook_auth: false,
        webhook_authorization: false,
        node_name: "node".into(),
        client: None,
        streaming_idle: std::time::Duration::from_secs(60),
        debugging_handlers: true,
        registry: prometheus::Registry::new(),
        pages: ZPages::new("kubelet", Default::default(), &super::PATHS, Some(("kubeletconfig", json!({})))),
    };
    let cri = Cri::new("/nowhere.sock", std::time::Duration::from_secs(1)).unwrap();
    let (mut ports, routes) = build(config, access, cri, stop.clone()).await.unwrap();
    // Plain ports get their own numbers here, so that tests do not collide.
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    ports.push(Port::bind(any, None, Listener::Secure).await.unwrap());
    ports.push(Port::bind(any, None, Listener::ReadOnly).await.unwrap());
    ports.push(Port::bind(any, None, Listener::Health).await.unwrap());
    let addresses = ports.iter().map(|p| p.address().unwrap()).collect();
    for port in ports {
        tokio::spawn(port.run(routes.clone(), stop.clone()));
    }
    addresses
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", "x").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn each_port_offers_what_it_may() {
    let (dir, stop) = (Scratch::new(), CancellationToken::new());
    let [_, full, read_only, health] = serve_pods(dir.path(), &stop).await[..] else { panic!("four ports") };
    for port in [full, read_only, health] {
        assert_eq!(get(port, "/healthz").await, (200, "ok".into()));
    }
    assert_eq!(get(health, "/pods").await.0, 404);
    let (status, pods) = get(read_only, "/pods").await;
    assert!(status == 200 && pods.contains("\"PodList\"") && pods.contains("\"name\":\"p\""));
    let logs = "/containerLogs/n/p/c?tailLines=1";
    assert_eq!(get(read_only, logs).await.0, 404);
    assert_eq!(get(full, logs).await, (200, "hello\n".into()));
    assert_eq!(get(full, "/configz").await.0, 200);
    assert!(get(full, "/statusz").await.1.contains("Paths: /attach /configz /containerLogs"));
    assert_eq!(get(full, "/containerLogs/n/q/c").await, (404, "pod \"q\" does not exist".into()));
    assert_eq!(get(full, "/containerLogs/n/p/d").await.1, "container \"d\" not found in pod \"p\"");
    assert_eq!(get(full, "/containerLogs/n/p/c?limitBytes=0").await.0, 422);
    assert_eq!(get(full, "/containerLogs/n/p/c?previous=true").await.0, 400);
    assert_eq!(get(full, "/exec/n/p/c?command=a").await.0, 400);
    assert_eq!(get(full, "/nonsense").await.0, 404);
    assert_eq!(get(full, "/metrics/probes").await.0, 200);
    stop.cancel();
}

#[tokio::test]
async fn an_upgrade_is_passed_on_byte_for_byte() {
    let runtime = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/exec/token", runtime.local_addr().unwrap());
    let runtime = tokio::spawn(async move {
        let (mut stream, _) = runtime.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\
            x-stream-protocol-version: v4.channel.k8s.io\r\n\r\nfirst bytes";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        (String::from_utf8(head).unwrap(), got)
    });
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = front.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request| {
            let url = url.clone();
            async move {
                let passed = crate::streaming::proxy(request, &url, CancellationToken::new()).await.unwrap();
                Ok::<_, std::convert::Infallible>(passed.map(http_body_util::Full::new))
            }
        });
        let server = hyper::server::conn::http1::Builder::new();
        server.serve_connection(TokioIo::new(stream), service).with_upgrades().await
    });
    let mut client = TcpStream::connect(address).await.unwrap();
    let ask = "POST /exec/n/p/c?command=a HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\
        x-stream-protocol-version: v4.channel.k8s.io\r\nauthorization: Bearer secret\r\n\r\n";
    client.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"first bytes") {
        answer.push(client.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("v4.channel.k8s.io"), "{answer}");
    client.write_all(&[0, 1, 2, 255]).await.unwrap();
    client.shutdown().await.unwrap();
    let (head, got) = runtime.await.unwrap();
    assert_eq!(got, [0, 1, 2, 255]);
    assert!(head.starts_with("POST /exec/token HTTP/1.1") && !head.contains("secret"), "{head}");
}
