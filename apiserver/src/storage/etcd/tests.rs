//! The contract on a real etcd on loopback, with and without TLS.
//!
//! Where no etcd binary is installed the tests say so in their output; with PINTLE_TEST_ETCD=1, which the
//! project's test script sets, that is a failure.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::shutdown::CancellationToken;

use super::*;

/// An etcd of the test's own, ended and removed with it.
struct Etcd {
    child: Child,
    folder: PathBuf,
    client: String,
    peer: String,
    tls: bool,
}

impl Etcd {
    /// `None` when there is no etcd to start.
    fn start(name: &str, tls: bool) -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            let required = std::env::var("PINTLE_TEST_ETCD").is_ok_and(|v| v == "1");
            assert!(!required, "PINTLE_TEST_ETCD=1 and no etcd binary is installed");
            eprintln!("not run: no etcd binary is installed");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("pintle-etcd-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("folder");
        let port = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("bound").port()
        };
        let scheme = if tls { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{}", port());
        let peer = format!("http://127.0.0.1:{}", port());
        if tls {
            write_certificates(&folder);
        }
        let child = Self::spawn(&folder, &client, &peer, tls);
        Some(Self { child, folder, client, peer, tls })
    }

    fn spawn(folder: &Path, client: &str, peer: &str, tls: bool) -> Child {
        let mut command = Command::new("etcd");
        command
            .args(["--data-dir", &folder.join("data").display().to_string()])
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if tls {
            for (flag, file) in
                [("--trusted-ca-file", "ca.crt"), ("--cert-file", "tls.crt"), ("--key-file", "tls.key")]
            {
                command.arg(flag).arg(folder.join(file));
            }
            command.arg("--client-cert-auth");
        }
        command.spawn().expect("etcd starts")
    }

    fn kill(&mut self) {
        self.child.kill().expect("etcd is ours");
        self.child.wait().expect("etcd is ours");
    }

    fn restart(&mut self) {
        self.child = Self::spawn(&self.folder, &self.client, &self.peer, self.tls);
    }

    async fn connect(&self, tasks: &Tasks) -> Arc<EtcdStore> {
        let file = |name: &str| self.tls.then(|| self.folder.join(name));
        let config = EtcdConfig {
            servers: vec![self.client.clone()],
            ca_file: file("ca.crt"),
            cert_file: file("tls.crt"),
            key_file: file("tls.key"),
            prefix: "/c/".into(),
            compaction_interval: Duration::ZERO,
        };
        let store = EtcdStore::connect(config, tasks).await.expect("a good configuration");
        wait_until("etcd is up", async || store.healthy().await.is_ok() && store.feed.hub.through().0 > 0)
            .await;
        store
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A certificate authority, and one certificate for both ends.
fn write_certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().expect("key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = ca.self_signed(&key).expect("certificate");
    std::fs::write(folder.join("ca.crt"), certificate.pem()).expect("write");
    let issuer = Issuer::new(ca, key);
    let key = KeyPair::generate().expect("key");
    let leaf = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).expect("parameters");
    let certificate = leaf.signed_by(&key, &issuer).expect("certificate");
    std::fs::write(folder.join("tls.crt"), certificate.pem()).expect("write");
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).expect("write");
}

async fn wait_until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn etcd_keeps_the_contract() {
    let Some(etcd) = Etcd::start("contract", false) else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let store = etcd.connect(&tasks).await;
    super::super::contract::check(store).await;
    tasks.stop_token().cancel();
}

#[tokio::test]
async fn client_certificates_are_shown() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(etcd) = Etcd::start("tls", true) else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let store = etcd.connect(&tasks).await;
    let written = store.create("/c/tls", "x".into(), None).await.expect("create");
    assert_eq!(store.get("/c/tls").await.expect("get").0.expect("present").mod_revision, written);
    tasks.stop_token().cancel();
}

#[tokio::test]
async fn watch_outlives_a_restart_of_etcd_and_a_dead_one_is_an_error() {
    let Some(mut etcd) = Etcd::start("restart", false) else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let store = etcd.connect(&tasks).await;
    let first = store.create("/c/a", "1".into(), None).await.expect("create");
    let mut stream = store.watch("/c/", first).await.expect("watch");
    etcd.kill();
    let dead = store.healthy().await;
    assert!(matches!(dead, Err(StoreError::Unavailable(_))), "{dead:?}");
    etcd.restart();
    wait_until("etcd is back", async || store.healthy().await.is_ok()).await;
    let second = store.create("/c/b", "2".into(), None).await.expect("create");
    let event = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("in time");
    assert!(matches!(event, Some(Ok(StoreEvent::Put { kv, .. })) if kv.mod_revision == second));
    tasks.stop_token().cancel();
}

#[tokio::test]
async fn servers_of_one_etcd_share_the_compaction_clock() {
    let Some(etcd) = Etcd::start("clock", false) else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let (one, two) = (etcd.connect(&tasks).await, etcd.connect(&tasks).await);
    let (mut first, mut second) = (compact::Clock::default(), compact::Clock::default());
    compact::round(&one, &mut first).await.expect("the first round compacts nothing");
    compact::round(&two, &mut second).await.expect("the other takes note");
    assert_eq!((one.compacted(), two.compacted()), (Revision(0), Revision(0)));
    let made = one.create("/c/a", "1".into(), None).await.expect("create");
    one.update("/c/a", made, "2".into(), None).await.expect("update");
    compact::round(&one, &mut first).await.expect("compacts to what it saw at its first round");
    let reached = one.compacted();
    assert!(reached.0 > 0 && reached < made);
    wait_until("the other hears of it", async || two.compacted() == reached).await;
    let newest = one.current_revision().await.expect("revision");
    let _watching = one.watch("/c/", newest).await.expect("watch");
    let observed = one.observe("/c/", newest).await.expect("subscribed");
    assert!(observed.through >= newest, "the clock's own writes do not hold up anyone");
    compact::round(&two, &mut second).await.expect("takes note");
    assert_eq!(two.compacted(), reached);
    tasks.stop_token().cancel();
}

#[tokio::test]
async fn a_watch_from_far_back_joins_the_one_stream_without_a_gap() {
    let Some(etcd) = Etcd::start("far", false) else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let store = etcd.connect(&tasks).await;
    let begin = store.current_revision().await.expect("revision");
    let mut last = begin;
    for i in 0..feed::RECENT_EVENTS + 100 {
        last = store.create(&format!("/c/far/{i}"), "x".into(), None).await.expect("create");
    }
    wait_until("all is handed out", async || store.feed.hub.through() == last).await;
    assert!(store.feed.replay("/c/far/", begin, last).is_none(), "no longer remembered");
    let mut stream = store.watch("/c/far/", begin).await.expect("watch");
    for i in 0..20 {
        last = store.create(&format!("/c/far/late{i}"), "x".into(), None).await.expect("create");
    }
    let mut reached = begin;
    while reached < last {
        let event = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("in time");
        match event.expect("open").expect("no error") {
            StoreEvent::Put { kv, .. } => {
                assert_eq!(kv.mod_revision.0, reached.0 + 1);
                reached = kv.mod_revision;
            }
            StoreEvent::Progress(revision) => assert_eq!(revision, reached),
            other => panic!("{other:?}"),
        }
    }
    assert!(store.observe("/c/far/", last).await.is_some());
    tasks.stop_token().cancel();
}
