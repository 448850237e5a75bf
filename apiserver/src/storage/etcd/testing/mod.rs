//! Real etcds of a test's own, on free loopback ports, ended by pid and removed with it: `members` are the processes,
//! here are their certificates and stores on them.

mod members;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::shutdown::Tasks;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use self::members::Members;
use super::{EtcdConfig, EtcdStore};
use crate::storage::Store;

const PATIENCE: Duration = Duration::from_secs(60);

/// One etcd of one or more members.
pub(crate) struct Etcd {
    members: Members,
    /// Where certificates are, when it wants them.
    certificates: Option<PathBuf>,
}

impl Etcd {
    /// One member without TLS; `None` when there is no etcd to start.
    pub(crate) fn single(name: &str) -> Option<Self> {
        Self::start(name, 1, false)
    }

    /// `None` when there is no etcd to start. With TLS, clients and peers must show certificates.
    pub(crate) fn start(name: &str, members: usize, tls: bool) -> Option<Self> {
        if !tls {
            let members = Members::start(name, members, "http", |_| Vec::new())?;
            return Some(Self { members, certificates: None });
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut certificates = PathBuf::new();
        let members = Members::start(name, members, "https", |folder| {
            write_certificates(folder);
            certificates = folder.to_owned();
            ["", "peer-"].into_iter().flat_map(|side| certified(folder, side)).collect()
        })?;
        Some(Self { members, certificates: Some(certificates) })
    }

    /// Starts a member that is down, on its data.
    pub(crate) fn restart(&mut self, index: usize) {
        self.members.restart(index);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, index: usize) {
        self.members.kill(index);
    }

    /// The flags of kube-apiserver for this etcd.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = vec![format!("--etcd-servers={}", self.servers().join(","))];
        if let Some(folder) = &self.certificates {
            for (flag, file) in [("cafile", "ca.crt"), ("certfile", "client.crt"), ("keyfile", "client.key")]
            {
                flags.push(format!("--etcd-{flag}={}", folder.join(file).display()));
            }
        }
        flags
    }

    pub(crate) fn servers(&self) -> Vec<String> {
        self.members.clients()
    }

    pub(crate) fn config(&self, prefix: &str) -> EtcdConfig {
        let file = |name: &str| self.certificates.as_ref().map(|folder| folder.join(name));
        EtcdConfig {
            servers: self.servers(),
            ca_file: file("ca.crt"),
            cert_file: file("client.crt"),
            key_file: file("client.key"),
            prefix: prefix.into(),
            compaction_interval: Duration::ZERO,
        }
    }

    /// A store of the keys below `prefix`, once etcd answers and its watch is there.
    pub(crate) async fn connect(&self, prefix: &str, tasks: &Tasks) -> Arc<EtcdStore> {
        let store = EtcdStore::connect(self.config(prefix), tasks).await.expect("a good configuration");
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

/// How a member is told to want certificates from one side.
fn certified(folder: &Path, side: &str) -> Vec<OsString> {
    let files = [("trusted-ca-file", "ca.crt"), ("cert-file", "server.crt"), ("key-file", "server.key")];
    let flags = files
        .into_iter()
        .flat_map(|(flag, file)| [format!("--{side}{flag}").into(), folder.join(file).into_os_string()]);
    flags.chain([format!("--{side}client-cert-auth").into()]).collect()
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
