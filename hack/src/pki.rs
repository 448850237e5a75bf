//! Certificates, keys and kubeconfigs in kubeadm's layout below `/etc/kubernetes`.
//!
//! Whatever exists is kept, so a second run adds what is missing and changes nothing. Keys are 0600.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

#[derive(Args)]
pub struct Options {
    /// The folder that becomes /etc/kubernetes.
    #[arg(long)]
    dir: PathBuf,
    /// The first node's name.
    #[arg(long)]
    node: String,
    /// Where clients inside the cluster find the API server, `https://10.77.0.1:6443`.
    #[arg(long)]
    server: String,
    /// Where the administrator's kubeconfig finds it.
    #[arg(long)]
    admin_server: String,
    /// Further names and addresses in the API server's certificate. Repeatable.
    #[arg(long = "san")]
    sans: Vec<String>,
    /// A bootstrap token, `id.secret`, for the kubeconfig that joining nodes start with.
    #[arg(long)]
    token: String,
}

struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What one leaf is for.
struct Leaf<'a> {
    name: &'a str,
    organization: Option<&'a str>,
    usages: &'a [ExtendedKeyUsagePurpose],
    sans: &'a [String],
}

const CLIENT: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::ClientAuth];
const SERVER: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::ServerAuth];
const BOTH: &[ExtendedKeyUsagePurpose] =
    &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

pub fn run(options: &Options) -> anyhow::Result<()> {
    let pki = options.dir.join("pki");
    fs::create_dir_all(pki.join("etcd"))?;
    let ca = authority(&pki, "ca", "kubernetes")?;
    let front = authority(&pki, "front-proxy-ca", "front-proxy-ca")?;
    let etcd = authority(&pki, "etcd/ca", "etcd-ca")?;

    let mut api_names: Vec<String> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
    ]
    .map(String::from)
    .to_vec();
    api_names.push(options.node.clone());
    api_names.extend(options.sans.iter().cloned());
    let local: Vec<String> = ["localhost", "127.0.0.1"]
        .map(String::from)
        .into_iter()
        .chain([options.node.clone()])
        .chain(options.sans.iter().cloned())
        .collect();

    let client = |name, organization| Leaf { name, organization, usages: CLIENT, sans: &[] };
    leaf(
        &pki,
        "apiserver",
        &ca,
        &Leaf { name: "kube-apiserver", organization: None, usages: SERVER, sans: &api_names },
    )?;
    leaf(
        &pki,
        "apiserver-kubelet-client",
        &ca,
        &client("kube-apiserver-kubelet-client", Some("kubeadm:cluster-admins")),
    )?;
    leaf(&pki, "front-proxy-client", &front, &client("front-proxy-client", None))?;
    leaf(
        &pki,
        "etcd/server",
        &etcd,
        &Leaf { name: &options.node, organization: None, usages: BOTH, sans: &local },
    )?;
    leaf(
        &pki,
        "etcd/peer",
        &etcd,
        &Leaf { name: &options.node, organization: None, usages: BOTH, sans: &local },
    )?;
    leaf(&pki, "apiserver-etcd-client", &etcd, &client("kube-apiserver-etcd-client", None))?;
    service_account_keys(&pki)?;

    let node = format!("system:node:{}", options.node);
    let users: [(&str, &str, Option<&str>, &str); 6] = [
        ("super-admin.conf", "kubernetes-super-admin", Some("system:masters"), &options.server),
        ("admin.conf", "kubernetes-admin", Some("system:masters"), &options.admin_server),
        ("controller-manager.conf", "system:kube-controller-manager", None, &options.server),
        ("scheduler.conf", "system:kube-scheduler", None, &options.server),
        ("kubelet.conf", &node, Some("system:nodes"), &options.server),
        ("kube-proxy.conf", "system:kube-proxy", None, &options.server),
    ];
    for (file, name, organization, server) in users {
        let path = options.dir.join(file);
        if !path.exists() {
            let (certificate, key) = signed(&ca, &client(name, organization))?;
            let user = format!(
                "client-certificate-data: {}\n    client-key-data: {}",
                base64(&certificate),
                base64(&key)
            );
            write_private(&path, &kubeconfig(server, &ca.certificate_pem, name, &user))?;
        }
    }
    let bootstrap = options.dir.join("bootstrap-kubelet.conf");
    if !bootstrap.exists() {
        let user = format!("token: {}", options.token);
        write_private(
            &bootstrap,
            &kubeconfig(&options.server, &ca.certificate_pem, "tls-bootstrap-token-user", &user),
        )?;
    }
    Ok(())
}

fn kubeconfig(server: &str, ca: &str, user: &str, credentials: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: kubernetes\n  cluster:\n    server: {server}\n    certificate-authority-data: {}\ncontexts:\n- name: {user}@kubernetes\n  context:\n    cluster: kubernetes\n    user: {user}\ncurrent-context: {user}@kubernetes\nusers:\n- name: {user}\n  user:\n    {credentials}\n",
        base64(ca)
    )
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Reads or makes a certificate authority, valid ten years as kubeadm's.
fn authority(pki: &Path, file: &str, name: &str) -> anyhow::Result<Authority> {
    let (certificate_path, key_path) = (pki.join(format!("{file}.crt")), pki.join(format!("{file}.key")));
    if !certificate_path.exists() || !key_path.exists() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        validity(&mut params, 10);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        write_private(&key_path, &key.serialize_pem())?;
        fs::write(&certificate_path, certificate.pem())?;
    }
    let certificate_pem = read(&certificate_path)?;
    let key =
        KeyPair::from_pem(&read(&key_path)?).with_context(|| format!("reading {}", key_path.display()))?;
    let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)
        .with_context(|| format!("reading {}", certificate_path.display()))?;
    Ok(Authority { certificate_pem, issuer })
}

fn leaf(pki: &Path, file: &str, ca: &Authority, leaf: &Leaf<'_>) -> anyhow::Result<()> {
    let (certificate_path, key_path) = (pki.join(format!("{file}.crt")), pki.join(format!("{file}.key")));
    if certificate_path.exists() && key_path.exists() {
        return Ok(());
    }
    let (certificate, key) = signed(ca, leaf)?;
    write_private(&key_path, &key)?;
    fs::write(&certificate_path, certificate)
        .with_context(|| format!("writing {}", certificate_path.display()))
}

/// A certificate and key in PEM, valid a year as kubeadm's.
fn signed(ca: &Authority, leaf: &Leaf<'_>) -> anyhow::Result<(String, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(organization) = leaf.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, leaf.name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = leaf.usages.to_vec();
    for san in leaf.sans {
        params.subject_alt_names.push(match san.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(san.clone().try_into().with_context(|| format!("--san {san}"))?),
        });
    }
    validity(&mut params, 1);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &ca.issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// From five minutes ago, for clocks that differ.
fn validity(params: &mut CertificateParams, years: u64) {
    let now = std::time::SystemTime::now();
    params.not_before = (now - std::time::Duration::from_secs(300)).into();
    params.not_after = (now + std::time::Duration::from_secs(years * 365 * 86_400)).into();
}

fn service_account_keys(pki: &Path) -> anyhow::Result<()> {
    let (private, public) = (pki.join("sa.key"), pki.join("sa.pub"));
    if private.exists() && public.exists() {
        return Ok(());
    }
    if private.exists() != public.exists() {
        bail!("{} has one of sa.key and sa.pub; both or none must be there", pki.display());
    }
    let key = KeyPair::generate()?;
    write_private(&private, &key.serialize_pem())?;
    fs::write(&public, key.public_key_pem()).with_context(|| format!("writing {}", public.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("writing {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}
