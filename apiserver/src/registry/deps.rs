//! What rules with effects may reach.

use std::path::PathBuf;
use std::sync::Arc;

use crate::authentication::TokenAuthenticator;
use crate::authentication::service_account::Signer;
use crate::authorization::Authorizer;
use crate::features::Features;
use crate::registry::core::service::hooks::ServiceHooks;
use crate::resources::Registry;
use crate::resources::schema::Schema;

/// Made by the wiring after the stores, before the table.
pub struct Deps {
    pub registry: Arc<Registry>,
    /// `--feature-gates`.
    pub features: Arc<Features>,
    /// The types of the built-in kinds.
    pub schema: Arc<Schema>,
    pub authorizer: Arc<dyn Authorizer>,
    pub authenticator: Arc<dyn TokenAuthenticator>,
    pub tokens: TokenIssuing,
    pub kubelet: KubeletClientConfig,
    /// Addresses and node ports of services.
    pub services: Arc<ServiceHooks>,
    /// `--event-ttl`.
    pub event_ttl_seconds: u64,
}

/// How service account tokens are issued.
pub struct TokenIssuing {
    /// Absent: TokenRequest is not served.
    pub signer: Option<Arc<Signer>>,
    /// `--api-audiences`; the issuer when not given.
    pub audiences: Vec<String>,
    /// `--service-account-max-token-expiration`.
    pub expiration_seconds_max: Option<i64>,
    /// `--service-account-extend-token-expiration`.
    pub extend: bool,
}

/// How the server reaches kubelets.
#[derive(Debug, Clone)]
pub struct KubeletClientConfig {
    /// `--kubelet-preferred-address-types`.
    pub address_types: Vec<String>,
    /// `--kubelet-client-certificate` and `--kubelet-client-key`.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// `--kubelet-certificate-authority`; absent: the kubelet's certificate is not verified.
    pub certificate_authority: Option<PathBuf>,
}

impl Default for KubeletClientConfig {
    fn default() -> Self {
        let types = ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"];
        Self {
            address_types: types.map(str::to_owned).to_vec(),
            client_certificate: None,
            certificate_authority: None,
        }
    }
}
