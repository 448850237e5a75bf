//! The command line, as upstream's kube-apiserver takes it: `--flag value`, `--flag=value`, booleans as
//! `--flag` or `--flag=false`, lists comma-separated and repeatable.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use common::flags::duration;

/// Flags of kube-apiserver.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "kube-apiserver",
    about = "The Kubernetes API server: the only door to the cluster's storage.",
    disable_version_flag = true,
    args_override_self = true,
    max_term_width = 110
)]
pub struct Flags {
    // serving
    /// The IP address on which to listen for the --secure-port port.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: std::net::IpAddr,
    /// The port on which to serve HTTPS with authentication and authorization.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// The directory where the TLS certs are located; a self-signed pair is made there when
    /// --tls-cert-file and --tls-private-key-file are not given.
    #[arg(long, default_value = "/var/run/kubernetes")]
    pub cert_dir: PathBuf,
    /// File containing the x509 certificate for HTTPS.
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// File containing the x509 private key matching --tls-cert-file.
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Minimum TLS version supported: VersionTLS12 or VersionTLS13.
    #[arg(long, default_value = "")]
    pub tls_min_version: String,
    /// Comma-separated list of cipher suites for TLS 1.2.
    #[arg(long, value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
    /// The limit that the server gives to clients for the maximum number of streams in an HTTP/2 connection.
    #[arg(long, default_value_t = 1000)]
    pub http2_max_streams_per_connection: u32,
    /// The fraction of requests, at most 0.02, after which an HTTP/2 client is asked to connect anew.
    #[arg(long, default_value_t = 0.0)]
    pub goaway_chance: f64,
    /// The IP address on which to advertise the apiserver to members of the cluster; the address of the
    /// default route's interface when not given and --bind-address is unspecified.
    #[arg(long)]
    pub advertise_address: Option<std::net::IpAddr>,
    /// The hostname to use when generating externalized URLs for this server.
    #[arg(long, default_value = "")]
    pub external_hostname: String,
    /// How a request may take before it is timed out; watches and other long-running requests excepted.
    #[arg(long, default_value = "1m", value_parser = duration)]
    pub request_timeout: Duration,
    /// The minimum number of seconds a watch handler keeps a request open before timing it out.
    #[arg(long, default_value_t = 1800)]
    pub min_request_timeout: u64,
    /// The maximum number of non-mutating requests in flight at a given time; 0 for no limit.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// The maximum number of mutating requests in flight at a given time; 0 for no limit.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
    /// Sort requests into priority levels and queue what does not fit; the two limits above are then one budget.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_priority_and_fairness: bool,
    /// Time to delay the termination, during which the server keeps serving and /readyz says it is going.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub shutdown_delay_duration: Duration,
    /// Accepted for compatibility; there is no profiling endpoint.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub profiling: bool,

    // storage
    /// List of etcd servers to connect with (scheme://ip:port), comma separated. Without it the server keeps
    /// its data in the file of --embedded-store-path.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// SSL Certificate Authority file used to secure etcd communication.
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// SSL certification file used to secure etcd communication.
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// SSL key file used to secure etcd communication.
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// The prefix to prepend to all resource paths in the store.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// The interval of compaction requests; 0 disables compaction.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub etcd_compaction_interval: Duration,
    /// The file of the embedded store, used when no --etcd-servers are given. This flag has no counterpart
    /// upstream.
    #[arg(long, default_value = "/var/lib/kube-apiserver/store.redb")]
    pub embedded_store_path: PathBuf,
    /// The storage backend for persistence; only "etcd3" is known.
    #[arg(long, default_value = "")]
    pub storage_backend: String,
    /// The media type of stored objects. They are written as JSON; with application/vnd.kubernetes.protobuf too,
    /// which is accepted because stock servers have it as their default. Protobuf that a stock server wrote is read.
    #[arg(long, default_value = "application/json")]
    pub storage_media_type: String,
    /// Amount of time to retain events.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub event_ttl: Duration,

    // authentication
    /// Any request presenting a client certificate signed by one of the authorities in this file is
    /// authenticated with an identity corresponding to the certificate's CommonName.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Enables anonymous requests to the secure port.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub anonymous_auth: bool,
    /// Enables secrets of type 'bootstrap.kubernetes.io/token' in the 'kube-system' namespace to be used for
    /// TLS bootstrapping authentication.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_bootstrap_token_auth: bool,
    /// File with static tokens: token,user,uid[,"group1,group2"].
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    /// Identifiers of the API; tokens bound to at least one of them are accepted. The issuer when not given.
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// Identifier of the service account token issuer; the first of several issues, all are accepted.
    #[arg(long)]
    pub service_account_issuer: Vec<String>,
    /// URI of the JSON Web Key Set for /.well-known/openid-configuration.
    #[arg(long, default_value = "")]
    pub service_account_jwks_uri: String,
    /// File containing PEM-encoded RSA or ECDSA keys used to verify service account tokens; repeatable.
    #[arg(long, value_delimiter = ',')]
    pub service_account_key_file: Vec<PathBuf>,
    /// File that contains the current private key of the service account token issuer.
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Validate that what a service account token is bound to still exists.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub service_account_lookup: bool,
    /// The maximum validity duration of a token created by the service account token issuer.
    #[arg(long, value_parser = duration)]
    pub service_account_max_token_expiration: Option<Duration>,
    /// Turns on projected service account expiration extension during token generation.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub service_account_extend_token_expiration: bool,
    /// Root certificate bundle to verify client certificates of front proxies that name users in headers.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that front proxies may have; any when empty.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Request headers to inspect for usernames.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,
    /// Request headers to inspect for UIDs.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// Request headers to inspect for groups.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,
    /// Request header prefixes to inspect for extra information.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Vec<String>,

    // authorization and admission
    /// Ordered list of authorizers: AlwaysAllow, AlwaysDeny, Node, RBAC.
    #[arg(long, value_delimiter = ',', default_value = "AlwaysAllow")]
    pub authorization_mode: Vec<String>,
    /// Admission plugins that should be enabled in addition to the default ones.
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins that should be disabled although they are enabled by default.
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// File with admission control configuration (AdmissionConfiguration, apiserver.config.k8s.io/v1).
    #[arg(long)]
    pub admission_control_config_file: Option<PathBuf>,
    /// Allow privileged containers.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub allow_privileged: bool,

    // cluster
    /// CIDR range from which to assign service cluster IPs; two for dual stack.
    #[arg(long, value_delimiter = ',', default_value = "10.0.0.0/24")]
    pub service_cluster_ip_range: Vec<ipnet::IpNet>,
    /// A port range to reserve for services with NodePort visibility, inclusive at both ends.
    #[arg(long, default_value = "30000-32767", value_parser = parse_port_range)]
    pub service_node_port_range: std::ops::RangeInclusive<u16>,
    /// How the endpoints of the kubernetes service are kept: lease or none.
    #[arg(long, default_value = "lease")]
    pub endpoint_reconciler_type: String,
    /// Client certificate for kubelets.
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Client key for kubelets.
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    /// Certificate authority of kubelets' serving certificates.
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Preferred node address types for connections to kubelets.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
    /// Client certificate with which the aggregator proves its identity; accepted for compatibility.
    #[arg(long)]
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Key of --proxy-client-cert-file; accepted for compatibility.
    #[arg(long)]
    pub proxy_client_key_file: Option<PathBuf>,
    /// Key=value pairs that enable or disable built-in APIs: <group>/<version>=true|false, api/all=...
    #[arg(long, value_delimiter = ',')]
    pub runtime_config: Vec<String>,
    /// Key=value pairs that describe feature gates.
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<String>,

    // process
    /// Number for the log level verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub v: u8,
    /// The log format: text or json.
    #[arg(long, default_value = "text")]
    pub logging_format: String,
    /// Print version information and quit.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub version: bool,
}

impl Flags {
    /// Reads arguments, the first of which is the program. Underscores in names count as dashes.
    ///
    /// # Errors
    /// A message that names the flag; also the help text, when asked for.
    pub fn parse_args(args: impl IntoIterator<Item = String>) -> Result<Self, clap::Error> {
        Self::try_parse_from(args.into_iter().map(dashed))
    }
}

fn dashed(arg: String) -> String {
    let Some(flag) = arg.strip_prefix("--") else { return arg };
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    let name = name.replace('_', "-");
    value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}"))
}

fn parse_port_range(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let invalid = || format!("{text:?} is not a valid port range");
    let port = |part: &str| part.parse::<u16>().map_err(|_| invalid());
    let range = if let Some((first, last)) = text.split_once('-') {
        port(first)?..=port(last)?
    } else if let Some((first, count)) = text.split_once('+') {
        let first = port(first)?;
        first..=first.checked_add(port(count)?).ok_or_else(invalid)?
    } else {
        port(text)?..=port(text)?
    };
    if range.is_empty() { Err(invalid()) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, String> {
        let args = std::iter::once("kube-apiserver").chain(args.iter().copied()).map(str::to_owned);
        Flags::parse_args(args).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let flags = parse(&[
            "--secure-port=7443",
            "--authorization-mode",
            "Node,RBAC",
            "--anonymous-auth=false",
            "--allow-privileged",
            "--etcd_servers=https://a:2379,https://b:2379",
            "--service-node-port-range=30000-30010",
            "-v=2",
            "-v=4",
        ])
        .unwrap();
        assert_eq!(flags.secure_port, 7443);
        assert_eq!(flags.authorization_mode, ["Node", "RBAC"]);
        assert!(!flags.anonymous_auth);
        assert!(flags.allow_privileged);
        assert_eq!(flags.etcd_servers.len(), 2);
        assert_eq!(flags.service_node_port_range, 30000..=30010);
        assert_eq!(flags.v, 4);
    }

    #[test]
    fn a_wrong_flag_is_named() {
        assert!(parse(&["--no-such-flag=1"]).unwrap_err().contains("--no-such-flag"));
        assert!(parse(&["--secure-port=x"]).unwrap_err().contains("--secure-port"));
        assert!(parse(&["--event-ttl=1"]).unwrap_err().contains("--event-ttl"));
    }
}
