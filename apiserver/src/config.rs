//! The flags, checked against each other and made into what the daemon is built from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::features::Features;
use crate::flags::Flags;
use crate::resources::Enablement;
use crate::server::Limits;
use crate::server::tls::Profile;

const HTTP2_STREAMS_DEFAULT: u32 = 100;
const GOAWAY_CHANCE_MAX: f64 = 0.02;
/// What --storage-media-type may say. Values are written as JSON whatever it says, and read in both forms.
const MEDIA_TYPES: [&str; 2] = ["application/json", crate::protobuf::MEDIA_TYPE];

/// What is wrong with the configuration; every text begins with the flag.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

/// Where data is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    Etcd {
        servers: Vec<String>,
        ca: Option<PathBuf>,
        certificate: Option<(PathBuf, PathBuf)>,
    },
    /// One file.
    Embedded(PathBuf),
    /// Nowhere: gone with the process. For tests.
    Memory,
}

/// An authorizer by its upstream name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
}

/// What [`crate::daemon::build`] takes.
#[derive(Debug, Clone)]
pub struct Config {
    /// `--runtime-config` and `--feature-gates`: what is served.
    pub enablement: Enablement,
    pub bind: SocketAddr,
    pub advertise_address: IpAddr,
    pub tls_files: Option<(PathBuf, PathBuf)>,
    pub tls_profile: Profile,
    pub limits: Limits,
    pub store: StoreConfig,
    pub modes: Vec<Mode>,
    pub issuer: String,
    pub api_audiences: Vec<String>,
    pub jwks_uri: String,
    /// The rest, as given.
    pub flags: Flags,
}

impl Config {
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn new(flags: Flags) -> Result<Self, ConfigError> {
        let mut errors = Vec::new();
        let mut wrong = |text: String| errors.push(text);
        let modes = modes(&flags.authorization_mode, &mut wrong);
        let tls_files = pair(
            ("--tls-cert-file", &flags.tls_cert_file),
            ("--tls-private-key-file", &flags.tls_private_key_file),
            &mut wrong,
        );
        let store = store(&flags, &mut wrong);
        let issuer = flags.service_account_issuer.first().cloned().unwrap_or_default();
        if issuer.is_empty() {
            wrong("--service-account-issuer is a required flag".into());
        }
        if flags.service_account_signing_key_file.is_none() {
            wrong(
                "--service-account-signing-key-file and --service-account-issuer are required flags".into(),
            );
        }
        check_ranges(&flags, &mut wrong);
        if !(0.0..=GOAWAY_CHANCE_MAX).contains(&flags.goaway_chance) {
            wrong("--goaway-chance can not be less than 0 or greater than 0.02".into());
        }
        if flags.enable_priority_and_fairness
            && flags.max_requests_inflight + flags.max_mutating_requests_inflight == 0
        {
            wrong(
                "--max-requests-inflight and --max-mutating-requests-inflight must add up to something positive with --enable-priority-and-fairness"
                    .into(),
            );
        }
        if !MEDIA_TYPES.contains(&flags.storage_media_type.as_str()) {
            wrong(format!(
                "--storage-media-type {:?} invalid, must be one of: {}",
                flags.storage_media_type,
                MEDIA_TYPES.join(", ")
            ));
        }
        if !matches!(flags.endpoint_reconciler_type.as_str(), "lease" | "none") {
            wrong(format!(
                "--endpoint-reconciler-type unknown endpoint reconciler {:?}: lease and none are known",
                flags.endpoint_reconciler_type
            ));
        }
        if flags.requestheader_client_ca_file.is_some() && flags.requestheader_username_headers.is_empty() {
            wrong("--requestheader-username-headers is required with --requestheader-client-ca-file".into());
        }
        let features = Features::parse(&flags.feature_gates).unwrap_or_else(|errors| {
            errors.iter().for_each(|error| wrong(format!("--feature-gates: {error}")));
            Features::default()
        });
        let enablement = Enablement::parse(&flags.runtime_config, features).unwrap_or_else(|error| {
            wrong(format!("--runtime-config: {error}"));
            Enablement::default()
        });
        let advertise_address = advertise_address(&flags).unwrap_or_else(|text| {
            wrong(text);
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        });
        if !errors.is_empty() {
            return Err(ConfigError(errors));
        }
        let api_audiences =
            if flags.api_audiences.is_empty() { vec![issuer.clone()] } else { flags.api_audiences.clone() };
        let host = if flags.external_hostname.is_empty() {
            advertise_address.to_string()
        } else {
            flags.external_hostname.clone()
        };
        let jwks_uri = if flags.service_account_jwks_uri.is_empty() {
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            format!(
                "https://{host}:{}{}",
                flags.secure_port,
                crate::authentication::service_account::JWKS_PATH
            )
        } else {
            flags.service_account_jwks_uri.clone()
        };
        Ok(Self {
            enablement,
            bind: SocketAddr::new(flags.bind_address, flags.secure_port),
            advertise_address,
            tls_files,
            tls_profile: Profile {
                min_version: flags.tls_min_version.clone(),
                cipher_suites: flags.tls_cipher_suites.clone(),
            },
            limits: Limits {
                // Go's default for 0, as upstream.
                streams_max: match flags.http2_max_streams_per_connection {
                    0 => HTTP2_STREAMS_DEFAULT,
                    streams => streams,
                },
                goaway_chance: flags.goaway_chance,
            },
            store,
            modes,
            issuer,
            api_audiences,
            jwks_uri,
            flags,
        })
    }

    /// The first address of a range: the `kubernetes` service's.
    pub fn service_ip(&self) -> Option<IpAddr> {
        self.flags.service_cluster_ip_range.first().and_then(first_address)
    }
}

/// The address after the network's own.
fn first_address(range: &IpNet) -> Option<IpAddr> {
    match range.trunc() {
        IpNet::V4(net) => u32::from(net.addr()).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpNet::V6(net) => u128::from(net.addr()).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}

fn modes(names: &[String], wrong: &mut impl FnMut(String)) -> Vec<Mode> {
    let mut modes = Vec::new();
    for name in names {
        let mode = match name.as_str() {
            "AlwaysAllow" => Mode::AlwaysAllow,
            "AlwaysDeny" => Mode::AlwaysDeny,
            "Node" => Mode::Node,
            "RBAC" => Mode::Rbac,
            "ABAC" | "Webhook" => {
                wrong(format!("--authorization-mode: {name:?} is not supported by this server"));
                continue;
            }
            _ => {
                wrong(format!("--authorization-mode: {name:?} is not a valid mode"));
                continue;
            }
        };
        if modes.contains(&mode) {
            wrong(format!("--authorization-mode {names:?} has mode specified more than once"));
        }
        modes.push(mode);
    }
    if names.is_empty() {
        wrong("--authorization-mode: at least one authorization-mode must be passed".into());
    }
    modes
}

fn pair(
    first: (&str, &Option<PathBuf>),
    second: (&str, &Option<PathBuf>),
    wrong: &mut impl FnMut(String),
) -> Option<(PathBuf, PathBuf)> {
    match (first.1, second.1) {
        (Some(a), Some(b)) => Some((a.clone(), b.clone())),
        (None, None) => None,
        (Some(_), None) => {
            wrong(format!("{} is required with {}", second.0, first.0));
            None
        }
        (None, Some(_)) => {
            wrong(format!("{} is required with {}", first.0, second.0));
            None
        }
    }
}

fn store(flags: &Flags, wrong: &mut impl FnMut(String)) -> StoreConfig {
    if !matches!(flags.storage_backend.as_str(), "" | "etcd3") {
        wrong(format!(
            "--storage-backend invalid, allowed values: etcd3. If not specified, it will default to 'etcd3'; got {:?}",
            flags.storage_backend
        ));
    }
    if flags.etcd_servers.is_empty() {
        return StoreConfig::Embedded(flags.embedded_store_path.clone());
    }
    let certificate =
        pair(("--etcd-certfile", &flags.etcd_certfile), ("--etcd-keyfile", &flags.etcd_keyfile), wrong);
    StoreConfig::Etcd { servers: flags.etcd_servers.clone(), ca: flags.etcd_cafile.clone(), certificate }
}

fn check_ranges(flags: &Flags, wrong: &mut impl FnMut(String)) {
    let ranges = &flags.service_cluster_ip_range;
    match ranges.as_slice() {
        [] => wrong("--service-cluster-ip-range: must be a valid cidr range".into()),
        [_] => {}
        [a, b] if matches!((a, b), (IpNet::V4(_), IpNet::V6(_)) | (IpNet::V6(_), IpNet::V4(_))) => {}
        [_, _] => wrong("--service-cluster-ip-range: two ranges must be of different IP families".into()),
        _ => wrong("--service-cluster-ip-range: must not hold more than two values".into()),
    }
}

/// The address members of the cluster reach this server at. Connecting a UDP socket sends nothing; it makes
/// the kernel choose the address of the default route.
fn advertise_address(flags: &Flags) -> Result<IpAddr, String> {
    let unusable = |ip: &IpAddr| ip.is_unspecified() || ip.is_multicast();
    if let Some(address) = flags.advertise_address {
        return if unusable(&address) {
            Err(format!("--advertise-address: {address} is not a usable address"))
        } else {
            Ok(address)
        };
    }
    if !unusable(&flags.bind_address) {
        return Ok(flags.bind_address);
    }
    UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| {
            socket.connect("192.0.2.1:9")?;
            socket.local_addr()
        })
        .map(|local| local.ip())
        .map_err(|error| format!("--advertise-address must be given: no default route ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let base = [
            "kube-apiserver",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-signing-key-file=/k",
            "--advertise-address=10.1.2.3",
        ];
        let args = base.iter().chain(args).map(|s| (*s).to_owned());
        Config::new(Flags::parse_args(args).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn stores_follow_the_flags() {
        let embedded = config(&["--embedded-store-path=/x"]).unwrap();
        assert_eq!(embedded.store, StoreConfig::Embedded("/x".into()));
        assert_eq!(embedded.service_ip(), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(embedded.api_audiences, ["https://kubernetes.default.svc"]);
        assert_eq!(embedded.jwks_uri, "https://10.1.2.3:6443/openid/v1/jwks");
        let etcd = config(&["--etcd-servers=http://a:2379"]).unwrap();
        assert!(matches!(etcd.store, StoreConfig::Etcd { .. }));
    }

    #[test]
    fn mistakes_name_their_flags() {
        let text = config(&["--authorization-mode=Node,Foo", "--tls-cert-file=/a"]).unwrap_err();
        assert!(text.contains("--authorization-mode: \"Foo\" is not a valid mode"), "{text}");
        assert!(text.contains("--tls-private-key-file is required with --tls-cert-file"), "{text}");
    }
}
