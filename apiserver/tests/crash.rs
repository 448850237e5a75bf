//! The real kube-apiserver, killed again and again under clients that write, list and watch over HTTPS: every
//! acknowledged write is there, and no watch loses, repeats or invents anything (`model`).
//!
//! Over the embedded store one server; over etcd two servers and three members, whose leader is killed too. A few
//! seconds long; `PINTLE_MODEL_SECONDS` and `PINTLE_MODEL_SEED` as in the model's test in process. Needs loopback
//! only; without an installed etcd its half says that it was not run.

#[allow(dead_code, reason = "the model's test in process, its other user, needs other parts")]
mod model;

#[path = "../src/storage/etcd/testing/members.rs"]
mod members;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::storage::embedded::EmbeddedStore;
use apiserver::storage::etcd::{EtcdConfig, EtcdStore};
use apiserver::storage::{Revision, Store, StoreEvent};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use common::shutdown::{CancellationToken, Tasks};
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use members::Members;
use model::judge::{Facts, judge};
use model::workload::{Plan, run};
use model::{
    Api, Base, Change, Content, Key, ListAsk, Page, Refusal, Scope, Shown, Told, Verdict, WatchAsk, Watching,
    Written,
};

const TOKEN: &str = "0123456789abcdef";
const NAMESPACES: [&str; 2] = ["model-a", "model-b"];
const PREFIX: &str = "/registry/configmaps/";
/// How long clients work when nothing else is asked for.
const SHORT: Duration = Duration::from_secs(10);
/// Longest wait for a server to be ready, on a busy machine.
const START: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(20);

type Https = Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A port that was free just now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// The member of etcd that leads, when one does; those that are down do not answer.
async fn leader(members: &[String]) -> Option<usize> {
    for (at, member) in members.iter().enumerate() {
        let Ok(client) = etcd_client::Client::connect([member], None).await else { continue };
        let Ok(status) = client.maintenance_client().status().await else { continue };
        let id = status.header().map_or(0, |header| header.member_id());
        if status.leader() != 0 && status.leader() == id {
            return Some(at);
        }
    }
    None
}

/// One kube-apiserver of ours, and how to start it again.
struct Server {
    folder: PathBuf,
    port: u16,
    store: Vec<String>,
    child: Option<Child>,
}

impl Server {
    fn new(folder: &Path, store: Vec<String>) -> Self {
        Self { folder: folder.to_owned(), port: free_port(), store, child: None }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn start(&mut self) {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(file("server.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_kube-apiserver"))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--tls-cert-file={}", file("tls.crt")))
            .arg(format!("--tls-private-key-file={}", file("tls.key")))
            .arg(format!("--token-auth-file={}", file("tokens")))
            .arg(format!("--service-account-signing-key-file={}", file("tls.key")))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .args(["--authorization-mode=AlwaysAllow", "--etcd-compaction-interval=0s"])
            .args(&self.store)
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn();
        self.child = Some(child.expect("the server starts"));
    }

    /// SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server is ours");
            child.wait().expect("the server is ours");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Certificate, key and token of the servers, and a client that trusts them.
fn prepare(folder: &Path) -> Https {
    let _ = rustls::crypto::ring::default_provider().install_default();
    std::fs::create_dir_all(folder).expect("folder");
    let key = rcgen::KeyPair::generate().expect("key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate =
        rcgen::CertificateParams::new(names).expect("parameters").self_signed(&key).expect("signed");
    std::fs::write(folder.join("tls.crt"), certificate.pem()).expect("write");
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).expect("write");
    std::fs::write(folder.join("tokens"), format!("{TOKEN},model,1,system:masters\n")).expect("write");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a certificate");
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1()
        .enable_http2()
        .build();
    Client::builder(TokioExecutor::new()).build(connector)
}

/// A server as the workload sees it: config maps over HTTPS.
struct Remote {
    client: Https,
    url: String,
}

/// An answer, or that there was none.
type Answer = Result<(u16, Value), String>;

impl Remote {
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Value)>,
    ) -> Result<http::Response<hyper::body::Incoming>, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {TOKEN}"));
        let mut bytes = Bytes::new();
        if let Some((kind, body)) = body {
            request = request.header("content-type", kind);
            bytes = body.to_string().into();
        }
        let request = request.body(Full::new(bytes)).expect("a request");
        match tokio::time::timeout(REQUEST, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".into()),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<(&str, Value)>) -> Answer {
        let response = self.send(method, path, body).await?;
        let code = response.status().as_u16();
        let bytes = tokio::time::timeout(REQUEST, response.into_body().collect()).await;
        let bytes = bytes.map_err(|_| "no body in time")?.map_err(|error| error.to_string())?.to_bytes();
        serde_json::from_slice(&bytes).map(|body| (code, body)).map_err(|error| error.to_string())
    }

    async fn until_ready(&self) {
        let begun = Instant::now();
        while !matches!(self.send(Method::GET, "/readyz", None).await, Ok(r) if r.status() == 200) {
            assert!(begun.elapsed() < START, "waited in vain until {} is ready", self.url);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn revision(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    text.parse().unwrap_or_else(|_| panic!("no resourceVersion: {object}"))
}

/// `None` for somebody else's objects.
fn shown(object: &Value) -> Option<Shown> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let namespace = text("/metadata/namespace");
    NAMESPACES.contains(&namespace.as_str()).then(|| Shown {
        key: Key { namespace, name: text("/metadata/name") },
        revision: revision(object),
        content: Content { token: text("/data/token"), app: text("/metadata/labels/app") },
    })
}

fn refusal(answer: Answer) -> Refusal {
    match answer {
        Ok((410, status)) => {
            Refusal::Expired(status["metadata"]["continue"].as_str().unwrap_or_default().to_owned())
        }
        Ok((429 | 500..=599, status)) => Refusal::Unavailable(status.to_string()),
        Ok((code, status)) => Refusal::Wrong(format!("{code} {status}")),
        Err(why) => Refusal::Unavailable(why),
    }
}

fn collection(scope: &Scope) -> String {
    let mut path = match &scope.namespace {
        Some(namespace) => format!("/api/v1/namespaces/{namespace}/configmaps?"),
        None => "/api/v1/configmaps?".to_owned(),
    };
    for (parameter, key, value) in
        [("labelSelector", "app", &scope.app), ("fieldSelector", "metadata.name", &scope.name)]
    {
        if let Some(value) = value {
            path.push_str(&format!("{parameter}={key}%3D{value}&"));
        }
    }
    path
}

#[async_trait]
impl Api for Remote {
    async fn write(&self, key: &Key, change: Change, content: &Content) -> Written {
        let Key { namespace, name } = key;
        let all = format!("/api/v1/namespaces/{namespace}/configmaps");
        let one = format!("{all}/{name}");
        let mut object = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": content.app}},
            "data": {"token": content.token},
        });
        let (base, answer) = match change {
            Change::Create => {
                let answer = self.call(Method::POST, &all, Some(("application/json", object))).await;
                (Base::Absent, answer)
            }
            // Half of them as patches.
            Change::Replace if content.token.ends_with(['0', '2', '4', '6', '8']) => {
                let patch =
                    json!({"metadata": {"labels": {"app": content.app}}, "data": {"token": content.token}});
                let patch = Some(("application/merge-patch+json", patch));
                (Base::Something, self.call(Method::PATCH, &one, patch).await)
            }
            Change::Replace => {
                (Base::Something, self.call(Method::PUT, &one, Some(("application/json", object))).await)
            }
            Change::ReplaceAt(at) => {
                object["metadata"]["resourceVersion"] = at.to_string().into();
                (Base::At(at), self.call(Method::PUT, &one, Some(("application/json", object))).await)
            }
            Change::Delete => (Base::Something, self.call(Method::DELETE, &one, None).await),
            Change::DeleteAt(at) => {
                let options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
                    "preconditions": {"resourceVersion": at.to_string()}});
                (Base::At(at), self.call(Method::DELETE, &one, Some(("application/json", options))).await)
            }
        };
        let verdict = match answer {
            Ok((200 | 201, object)) if object["kind"] == "ConfigMap" => {
                Verdict::Acknowledged(revision(&object))
            }
            Ok((200, _)) => Verdict::Done,
            Ok((400..=499, _)) => Verdict::Refused,
            Ok(_) | Err(_) => Verdict::Unknown,
        };
        Written { base, verdict }
    }

    async fn get(&self, key: &Key, cached: bool) -> Result<Option<Shown>, Refusal> {
        let query = if cached { "?resourceVersion=0" } else { "" };
        let path = format!("/api/v1/namespaces/{}/configmaps/{}{query}", key.namespace, key.name);
        match self.call(Method::GET, &path, None).await {
            Ok((200, object)) => Ok(shown(&object)),
            Ok((404, _)) => Ok(None),
            answer => Err(refusal(answer)),
        }
    }

    async fn list(&self, ask: &ListAsk) -> Result<Page, Refusal> {
        let mut path = collection(&ask.scope);
        if let Some(revision) = ask.revision {
            path.push_str(&format!("resourceVersion={revision}&"));
        }
        if ask.exact {
            path.push_str("resourceVersionMatch=Exact&");
        }
        path.push_str(&format!("limit={}&continue={}", ask.limit, ask.continue_token));
        match self.call(Method::GET, &path, None).await {
            Ok((200, list)) => Ok(Page {
                revision: revision(&list),
                items: list["items"].as_array().expect("items").iter().filter_map(shown).collect(),
                continue_token: list["metadata"]["continue"].as_str().unwrap_or_default().to_owned(),
            }),
            answer => Err(refusal(answer)),
        }
    }

    async fn watch(&self, ask: &WatchAsk) -> Result<Watching, Refusal> {
        let mut path = collection(&ask.scope);
        path.push_str(&format!("watch=1&allowWatchBookmarks=true&timeoutSeconds={}", ask.seconds));
        if let Some(revision) = ask.revision {
            path.push_str(&format!("&resourceVersion={revision}"));
        }
        if ask.initial_events {
            path.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
        }
        let response = self.send(Method::GET, &path, None).await.map_err(Refusal::Unavailable)?;
        let code = response.status().as_u16();
        if code != 200 {
            let body =
                response.into_body().collect().await.map_err(|e| Refusal::Unavailable(e.to_string()))?;
            return Err(refusal(Ok((code, serde_json::from_slice(&body.to_bytes()).unwrap_or_default()))));
        }
        let lines = futures::stream::unfold(
            (response.into_body(), BytesMut::new()),
            |(mut body, mut buffer)| async move {
                loop {
                    if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                        let line = buffer.split_to(end + 1);
                        return Some((
                            serde_json::from_slice(&line).expect("a line of JSON"),
                            (body, buffer),
                        ));
                    }
                    // A stream that breaks off ends here; half a line is not told.
                    let frame = body.frame().await?.ok()?;
                    if let Ok(data) = frame.into_data() {
                        buffer.extend_from_slice(&data);
                    }
                }
            },
        );
        Ok(Box::pin(lines.filter_map(|event: Value| std::future::ready(told(&event)))))
    }
}

fn told(event: &Value) -> Option<Told> {
    let object = &event["object"];
    Some(match event["type"].as_str().unwrap_or_default() {
        "ADDED" => Told::Added(shown(object)?),
        "MODIFIED" => Told::Modified(shown(object)?),
        "DELETED" => Told::Deleted(shown(object)?),
        "BOOKMARK" => Told::Bookmark {
            revision: revision(object),
            initial_events_end: object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true",
        },
        _ if object["code"] == 410 => Told::Expired,
        _ => Told::Failed(event.to_string()),
    })
}

fn plan() -> Plan {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    Plan {
        seed: number("PINTLE_MODEL_SEED").unwrap_or(1),
        duration: number("PINTLE_MODEL_SECONDS").map_or(SHORT, Duration::from_secs),
        writers: 6,
        watchers: 6,
        readers: 2,
        namespaces: NAMESPACES.map(str::to_owned).to_vec(),
        names: 6,
        write_pause: Duration::from_millis(20),
        burst: 0,
        patience: Duration::from_secs(180),
    }
}

/// What is killed.
struct World {
    servers: Vec<Server>,
    etcd: Option<Members>,
    client: Https,
}

impl World {
    fn remote(&self, at: usize) -> Remote {
        Remote { client: self.client.clone(), url: self.servers[at].url() }
    }

    async fn all_ready(&self) {
        for at in 0..self.servers.len() {
            self.remote(at).until_ready().await;
        }
    }

    /// Something dies and comes back.
    async fn strike(&mut self, turn: usize, rng: &mut StdRng) -> &'static str {
        if let Some(etcd) = &mut self.etcd
            && turn.is_multiple_of(2)
            && let Some(leader) = leader(&etcd.clients()).await
        {
            etcd.kill(leader);
            tokio::time::sleep(Duration::from_millis(rng.random_range(200..2500))).await;
            etcd.restart(leader);
            return "etcd's leader";
        }
        let at = rng.random_range(0..self.servers.len());
        self.servers[at].kill();
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
        self.servers[at].start();
        self.remote(at).until_ready().await;
        "a server"
    }
}

/// Works, kills, and returns what was noted and the revision at which it began.
async fn strain(mut world: World) -> (World, model::ledger::Notes, u64) {
    let plan = plan();
    for server in &mut world.servers {
        server.start();
    }
    world.all_ready().await;
    let first = world.remote(0);
    for namespace in NAMESPACES {
        let object = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}});
        let made = first.call(Method::POST, "/api/v1/namespaces", Some(("application/json", object))).await;
        assert_eq!(made.expect("an answer").0, 201);
    }
    let begin = first.list(&ListAsk::default()).await.expect("a list").revision;
    let api = (0..world.servers.len()).map(|at| Arc::new(world.remote(at)) as Arc<dyn Api>).collect();
    let stop = CancellationToken::new();
    let (stopped, seed) = (stop.clone(), plan.seed);
    let chaos = tokio::spawn(async move {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut strikes = Vec::new();
        while !stopped.is_cancelled() {
            let pause = Duration::from_millis(rng.random_range(500..2500));
            if stopped.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
                strikes.push(world.strike(strikes.len(), &mut rng).await);
            }
        }
        (world, strikes)
    });
    let returned = Arc::new(parking_lot::Mutex::new(None));
    let place = returned.clone();
    let calm = async || {
        stop.cancel();
        let (world, strikes) = chaos.await.expect("no panic");
        world.all_ready().await;
        let servers = strikes.iter().filter(|what| **what == "a server").count();
        println!("killed: {servers} times a server, {} times etcd's leader", strikes.len() - servers);
        *place.lock() = Some(world);
    };
    let notes = run(plan, api, calm).await.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    let world = returned.lock().take().expect("calm was called");
    (world, notes, begin)
}

/// What the store itself says happened after `begin`, up to `last` at least.
async fn truth(store: &dyn Store, begin: u64, last: u64) -> Facts {
    let mut facts = Facts::new();
    let begun = Instant::now();
    let mut events = loop {
        match store.watch(PREFIX, Revision(begin)).await {
            Ok(events) => break events,
            Err(why) => assert!(begun.elapsed() < START, "history is kept: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    while facts.last_key_value().is_none_or(|(revision, _)| *revision < last) {
        let event = tokio::time::timeout(START, events.next()).await.expect("in time");
        match event.expect("the stream goes on").expect("no error") {
            StoreEvent::Put { kv, .. } => {
                let mut object: Value = serde_json::from_slice(&kv.value).expect("JSON");
                object["metadata"]["resourceVersion"] = kv.mod_revision.to_string().into();
                if let Some(shown) = shown(&object) {
                    facts.insert(shown.revision, (shown.key, Some(shown.content)));
                }
            }
            StoreEvent::Delete { key, revision, .. } => {
                let (namespace, name) = key[PREFIX.len()..].split_once('/').expect("a namespaced key");
                facts.insert(revision.0, (Key { namespace: namespace.into(), name: name.into() }, None));
            }
            StoreEvent::Progress(_) => {}
        }
    }
    facts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_the_embedded_store_may_die_at_any_moment() {
    let folder = Folder(std::env::temp_dir().join(format!("pintle-crash-embedded-{}", std::process::id())));
    let client = prepare(&folder.0);
    let file = folder.0.join("store.redb");
    let server = Server::new(&folder.0, vec![format!("--embedded-store-path={}", file.display())]);
    let world = World { servers: vec![server], etcd: None, client };
    let (mut world, notes, begin) = strain(world).await;
    world.servers[0].kill();
    let tasks = Tasks::new(CancellationToken::new());
    let store =
        EmbeddedStore::open(&file, Duration::ZERO, &tasks).expect("the file of a killed server opens");
    let facts = truth(store.as_ref(), begin, notes.acknowledged()).await;
    println!("{}", judge(&notes, facts).unwrap_or_else(|why| panic!("seed {}: {why}", plan().seed)));
    tasks.stop_token().cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_the_leader_of_etcd_may_die_at_any_moment() {
    let Some(etcd) = Members::start("crash", 3, "http", |_| Vec::new()) else { return };
    let folder = Folder(std::env::temp_dir().join(format!("pintle-crash-etcd-{}", std::process::id())));
    let client = prepare(&folder.0);
    let urls = etcd.clients();
    let store = vec![format!("--etcd-servers={}", urls.join(","))];
    let servers = (0..2).map(|_| Server::new(&folder.0, store.clone())).collect();
    let (world, notes, begin) = strain(World { servers, etcd: Some(etcd), client }).await;
    let tasks = Tasks::new(CancellationToken::new());
    let config = EtcdConfig {
        servers: urls,
        ca_file: None,
        cert_file: None,
        key_file: None,
        prefix: "/registry/".into(),
        compaction_interval: Duration::ZERO,
    };
    let store = EtcdStore::connect(config, &tasks).await.expect("a good configuration");
    let begun = Instant::now();
    while store.healthy().await.is_err() {
        assert!(begun.elapsed() < START, "etcd does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let facts = truth(store.as_ref(), begin, notes.acknowledged()).await;
    println!("{}", judge(&notes, facts).unwrap_or_else(|why| panic!("seed {}: {why}", plan().seed)));
    tasks.stop_token().cancel();
    drop(world);
}
