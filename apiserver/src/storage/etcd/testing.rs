//! Real etcds of a test's own, on free loopback ports, ended by pid and removed with it.
//!
//! Where no etcd binary is installed the tests say so in their output; with PINTLE_TEST_ETCD=1, which the
//! project's test script sets, that is a failure.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::shutdown::Tasks;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::{EtcdConfig, EtcdStore};
use crate::storage::Store;

const PATIENCE: Duration = Duration::from_secs(60);

/// One etcd of one or more members.
pub(crate) struct Etcd {
    folder: PathBuf,
    members: Vec<Member>,
    tls: bool,
}

struct Member {
    client: String,
    peer: String,
    /// `None` while it is down.
    child: Option<Child>,
}

impl Etcd {
    /// One member without TLS; `None` when there is no etcd to start.
    pub(crate) fn single(name: &str) -> Option<Self> {
        Self::start(name, 1, false)
    }

    /// `None` when there is no etcd to start. With TLS, clients and peers must show certificates.
    pub(crate) fn start(name: &str, members: usize, tls: bool) -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            let required = std::env::var("PINTLE_TEST_ETCD").is_ok_and(|v| v == "1");
            assert!(!required, "PINTLE_TEST_ETCD=1 and no etcd binary is installed");
            eprintln!("not run: no etcd binary is installed");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("pintle-etcd-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("folder");
        if tls {
            let _ = rustls::crypto::ring::default_provider().install_default();
            write_certificates(&folder);
        }
        let scheme = if tls { "https" } else { "http" };
        // All are held at once, so that no port is given twice.
        let listeners: Vec<TcpListener> =
            (0..members * 2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let address = |listener: &TcpListener| {
            format!("{scheme}://127.0.0.1:{}", listener.local_addr().expect("bound").port())
        };
        let members = listeners
            .chunks(2)
            .map(|pair| Member { client: address(&pair[0]), peer: address(&pair[1]), child: None })
            .collect();
        drop(listeners);
        let mut etcd = Self { folder, members, tls };
        for index in 0..etcd.members.len() {
            etcd.restart(index);
        }
        Some(etcd)
    }

    /// Starts a member that is down, on its data.
    pub(crate) fn restart(&mut self, index: usize) {
        let cluster: Vec<String> =
            self.members.iter().enumerate().map(|(i, member)| format!("m{i}={}", member.peer)).collect();
        let Member { client, peer, child } = &mut self.members[index];
        assert!(child.is_none(), "member {index} is running");
        let log = std::fs::File::create(self.folder.join(format!("m{index}.log"))).expect("a log");
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("m{index}")])
            .args(["--data-dir", &self.folder.join(format!("m{index}")).display().to_string()])
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-token", "pintle-test"])
            .stdout(Stdio::null())
            .stderr(log);
        if self.tls {
            let file = |name: &str| self.folder.join(name);
            for side in ["", "peer-"] {
                command.arg(format!("--{side}trusted-ca-file")).arg(file("ca.crt"));
                command.arg(format!("--{side}cert-file")).arg(file("server.crt"));
                command.arg(format!("--{side}key-file")).arg(file("server.key"));
                command.arg(format!("--{side}client-cert-auth"));
            }
        }
        *child = Some(command.spawn().expect("etcd starts"));
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, index: usize) {
        let mut child = self.members[index].child.take().expect("running");
        child.kill().expect("etcd is ours");
        child.wait().expect("etcd is ours");
    }

    /// The flags of kube-apiserver for this etcd.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = vec![format!("--etcd-servers={}", self.servers().join(","))];
        if self.tls {
            for (flag, file) in [("cafile", "ca.crt"), ("certfile", "client.crt"), ("keyfile", "client.key")]
            {
                flags.push(format!("--etcd-{flag}={}", self.folder.join(file).display()));
            }
        }
        flags
    }

    pub(crate) fn servers(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    pub(crate) fn config(&self, prefix: &str) -> EtcdConfig {
        let file = |name: &str| self.tls.then(|| self.folder.join(name));
        EtcdConfig {
            servers: self.servers(),
            ca_file: file("ca.crt"),
            cert_file: file("client.crt"),
            key_file: file("client.key"),
            prefix: prefix.into(),
            compaction_interval: Duration::ZERO,
        }
    }

    /// A store of the contract's keys, once etcd answers.
    pub(crate) async fn connect(&self, tasks: &Tasks) -> Arc<EtcdStore> {
        let store = EtcdStore::connect(self.config("/c/"), tasks).await.expect("a good configuration");
        wait_until("etcd is up", async || store.healthy().await.is_ok() && store.feed.hub.through().0 > 0)
            .await;
        store
    }

    /// The member that leads.
    pub(crate) async fn leader(&self, store: &EtcdStore) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            for (index, member) in store.members.all().iter().enumerate() {
                let status = member.clone().maintenance.status().await;
                let Ok(status) = status else { continue };
                let me = status.header().map_or(0, |header| header.member_id());
                if me != 0 && me == status.leader() {
                    return index;
                }
            }
            assert!(Instant::now() < until, "no leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("logs of etcd are in {}", self.folder.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A certificate authority, and certificates for members (which are each other's clients) and for a client.
fn write_certificates(folder: &Path) {
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("write");
    let key = KeyPair::generate().expect("key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.crt", ca.self_signed(&key).expect("certificate").pem());
    let issuer = Issuer::new(ca, key);
    let server = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for (name, usages) in [("server", &server[..]), ("client", &server[1..])] {
        let key = KeyPair::generate().expect("key");
        let mut leaf =
            CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).expect("parameters");
        leaf.distinguished_name.push(rcgen::DnType::CommonName, name);
        leaf.extended_key_usages = usages.to_vec();
        write(&format!("{name}.crt"), leaf.signed_by(&key, &issuer).expect("certificate").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

pub(crate) async fn wait_until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
