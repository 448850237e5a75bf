//! The wiring: flags to store to caches to handlers to chain to listener.
//!
//! [`build`] makes and binds everything and fails early; [`Daemon::run`] serves until told to stop. What serves
//! stops before what is served from: the listener and the controllers first, store and caches after them.
//!
//! `credentials` reads the files of the flags, `stores` opens store and caches, `health` is what health is asked of.

mod credentials;
mod health;
mod stores;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::shutdown::{CancellationToken, Tasks};
use credentials::{load_ca, load_signer, load_tls, load_verifier};
use health::HealthSources;
use stores::{measure, open_store, poll_sizes, start_caches};

use crate::admission;
use crate::apiextensions;
use crate::authentication::request_header::RequestHeader;
use crate::authentication::service_account::{self, OpenIdDocuments};
use crate::authentication::token_file::{TokenFile, TokenFileError};
use crate::authentication::x509::{CaBundle, CaError};
use crate::authentication::{RequestAuthenticator, TokenAuthenticator, Tokens};
use crate::authorization::modes::{AlwaysAllow, AlwaysDeny};
use crate::authorization::node::NodeAuthorizer;
use crate::authorization::rbac::Rbac;
use crate::authorization::{Authorizer, Followers, Union};
use crate::bootstrap::{self, BootstrapConfig, ServiceConfig};
use crate::cacher::CacheMetrics;
use crate::config::{Config, Mode};
use crate::endpoints::{ApiHandler, WatchMetrics};
use crate::filters::{Chain, Handler, InFlight, Limits};
use crate::flowcontrol::{FlowControl, FlowControlMetrics};
use crate::metrics::Metrics;
use crate::protobuf;
use crate::registry::core::service::allocation::family_of;
use crate::registry::core::service::claims::Claims;
use crate::registry::core::service::hooks::ServiceHooks;
use crate::registry::core::service::metrics::ServiceMetrics;
use crate::registry::{self, Deps, KubeletClientConfig, TokenIssuing};
use crate::resources::schema::Schema;
use crate::resources::{Registry, Table, Tables};
use crate::server::tls::TlsError;
use crate::server::{Api, Listener, Routes};
use crate::storage::embedded::OpenError;
use crate::storage::etcd::ConnectError;
use crate::storage::measured::StoreMetrics;

/// How long tasks may take to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why the daemon cannot start. Texts name the flag.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("--bind-address, --secure-port: cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("--{flag}: {source}")]
    Ca { flag: &'static str, source: CaError },
    #[error("--{flag}: {source}")]
    Key { flag: &'static str, source: service_account::KeyError },
    #[error("--token-auth-file: {0}")]
    TokenFile(#[from] TokenFileError),
    #[error("serving certificate: {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Admission(#[from] admission::BuildError),
    #[error("--embedded-store-path: {0}")]
    Embedded(#[from] OpenError),
    #[error("--etcd-servers: {0}")]
    Etcd(#[from] ConnectError),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A server that is bound and not yet serving.
pub struct Daemon {
    listener: Listener,
    chain: Arc<Chain>,
    metrics: Arc<Metrics>,
    bootstrap: Option<Box<dyn FnOnce(&Tasks) + Send>>,
    shutdown_delay: Duration,
    /// Store, caches and indexes; ends last.
    core: Tasks,
    /// Everything else.
    front: Tasks,
    going: CancellationToken,
}

/// Builds the server. Needs a tokio runtime; starts what fills the caches.
///
/// # Errors
/// When anything the flags name cannot be used.
pub async fn build(config: Config) -> Result<Daemon, BuildError> {
    let core = Tasks::new(CancellationToken::new());
    let front = Tasks::new(CancellationToken::new());
    let going = CancellationToken::new();
    let flags = &config.flags;

    let client_ca = load_ca("client-ca-file", flags.client_ca_file.as_ref())?;
    let proxy_ca = load_ca("requestheader-client-ca-file", flags.requestheader_client_ca_file.as_ref())?;
    let tls = Arc::new(load_tls(&config, [&client_ca, &proxy_ca])?);
    let signer = load_signer(&config)?;
    let verifier = load_verifier(&config, signer.as_ref())?;
    let documents =
        verifier.as_ref().and_then(|v| OpenIdDocuments::new(&config.issuer, &config.jwks_uri, v.keys()));
    let file = flags.token_auth_file.as_deref().map(TokenFile::load).transpose()?;
    let bound = Listener::bind(config.bind, tls, config.limits).await;
    let listener = bound.map_err(|source| BuildError::Bind { address: config.bind, source })?;

    let metrics_registry = prometheus::Registry::new();
    let store_metrics = StoreMetrics::new(&metrics_registry)?;
    let messages = Arc::new(protobuf::Table::builtin());
    let store = open_store(&config, &messages, &store_metrics, &core).await?;
    let store = measure(&config, store, &store_metrics);
    let cache_metrics = CacheMetrics::new(&metrics_registry)?;
    let (registry, counts) = start_caches(&config, &store, &cache_metrics, &core);
    let registry = Arc::new(registry);
    poll_sizes(Arc::clone(&store), store_metrics, counts, &core);

    let followers = Followers::default();
    let authorizer = start_authorizers(&config.modes, &registry, &followers, &core);
    let tokens: Arc<dyn TokenAuthenticator> = Arc::new(Tokens {
        registry: Arc::clone(&registry),
        file,
        service_accounts: verifier,
        lookup: flags.service_account_lookup,
        bootstrap: flags.enable_bootstrap_token_auth,
        api_audiences: config.api_audiences.clone(),
    });

    let admission = admission::build(
        &registry,
        &authorizer,
        &flags.enable_admission_plugins,
        &flags.disable_admission_plugins,
        flags.admission_control_config_file.as_deref(),
        config.enablement.features(),
    )?
    .measured(&metrics_registry)?;
    let schema = Arc::new(Schema::builtin());
    let claims = Claims::new(
        Arc::clone(&registry),
        Arc::clone(&store),
        &flags.etcd_prefix,
        flags.service_node_port_range.clone(),
    );
    let services = Arc::new(ServiceHooks::new(
        Arc::clone(&registry),
        claims,
        flags.service_cluster_ip_range.iter().map(|range| family_of(range.addr())).collect(),
        ServiceMetrics::new(&metrics_registry, &registry)?,
        flags.event_ttl.as_secs().max(1),
    ));
    core.spawn("service addresses", Arc::clone(&services).maintain(core.stop_token()));
    let deps = Arc::new(Deps {
        features: Arc::new(config.enablement.features().clone()),
        schema: schema.clone(),
        registry: Arc::clone(&registry),
        authorizer: Arc::clone(&authorizer),
        authenticator: Arc::clone(&tokens),
        tokens: TokenIssuing {
            signer: signer.clone(),
            audiences: config.api_audiences.clone(),
            expiration_seconds_max: flags
                .service_account_max_token_expiration
                .and_then(|d| i64::try_from(d.as_secs()).ok()),
            extend: flags.service_account_extend_token_expiration,
        },
        kubelet: kubelet_client(&config),
        services: Arc::clone(&services),
        event_ttl_seconds: flags.event_ttl.as_secs().max(1),
    });
    let strategy = |group: &str, name: &str| registry::strategy(&deps, group, name);
    let table = Table::new(&strategy, registry::handlers(&deps), &config.enablement);
    if !table.unserved().is_empty() {
        tracing::info!(resources = table.unserved().join(", "), "not served by this build");
    }

    let tables = Arc::new(Tables::new(table));
    let custom_synced = apiextensions::Controller {
        definitions: Arc::clone(registry.store("apiextensions.k8s.io", "customresourcedefinitions")),
        tables: Arc::clone(&tables),
        store: Arc::clone(&store),
        prefix: flags.etcd_prefix.trim_end_matches('/').to_owned(),
        schema: Arc::clone(&schema),
        metrics: cache_metrics,
        tasks: core.clone(),
    }
    .start();

    let labelled = Arc::clone(&tables);
    let metrics = Arc::new(Metrics::new(metrics_registry.clone(), move |info| {
        labelled
            .load()
            .get(&info.group, &info.version, &info.resource)
            .is_some_and(|def| info.subresource.is_empty() || def.subresource(&info.subresource).is_some())
    })?);
    metrics.show_features(config.enablement.features())?;
    let api: Arc<dyn Handler> = Arc::new(Api::new(
        ApiHandler::new(
            Arc::clone(&tables),
            Arc::clone(&registry),
            admission,
            schema,
            Duration::from_secs(flags.min_request_timeout),
            WatchMetrics::new(&metrics_registry)?,
        ),
        messages,
    ));

    let flow_control = if flags.enable_priority_and_fairness {
        let figures = FlowControlMetrics::new(&metrics_registry, metrics.current_inflight_requests.clone())?;
        let seats = flags.max_requests_inflight + flags.max_mutating_requests_inflight;
        let flow_control = FlowControl::new(seats, figures, Arc::clone(&registry));
        flow_control.start(bootstrap::Loopback::new(Arc::clone(&api)), &followers, &core);
        Some(flow_control)
    } else {
        None
    };
    let limits = match &flow_control {
        Some(flow_control) => Limits::Fair(Arc::clone(flow_control)),
        None => {
            let (reads, writes) = (flags.max_requests_inflight, flags.max_mutating_requests_inflight);
            Limits::Plain(InFlight::new(reads, writes, &metrics))
        }
    };

    let progress = bootstrap::Progress::default();
    let health = {
        let checks = HealthSources {
            store: Arc::clone(&store),
            registry: Arc::clone(&registry),
            followers,
            progress: progress.clone(),
            custom_synced,
            going: going.clone(),
        };
        Arc::new(move |endpoint: &str| checks.of(endpoint))
    };
    let handler: Arc<dyn Handler> = Arc::new(Routes::new(
        Arc::clone(&api),
        health,
        Arc::clone(&metrics),
        documents,
        Arc::clone(&store),
        flow_control,
    ));

    let request_header = proxy_ca.as_ref().map(|ca| RequestHeader {
        ca: Arc::clone(ca),
        allowed_names: flags.requestheader_allowed_names.clone(),
        username_headers: flags.requestheader_username_headers.clone(),
        uid_headers: flags.requestheader_uid_headers.clone(),
        group_headers: flags.requestheader_group_headers.clone(),
        extra_prefixes: flags.requestheader_extra_headers_prefix.clone(),
    });
    let chain = Arc::new(Chain {
        authenticator: RequestAuthenticator {
            request_header,
            client_ca: client_ca.clone(),
            tokens,
            anonymous: flags.anonymous_auth,
        },
        authorizer,
        limits,
        request_timeout: flags.request_timeout,
        metrics: Arc::clone(&metrics),
        handler,
        stop: front.stop_token(),
    });

    let port = listener.address().map_or(config.bind.port(), |address| address.port());
    let bootstrap_config = bootstrap_config(&config, client_ca, proxy_ca, port);
    let begin = Box::new(move |tasks: &Tasks| {
        bootstrap::start(bootstrap_config, api, registry, store, progress, tasks);
    });
    Ok(Daemon {
        listener,
        chain,
        metrics,
        bootstrap: Some(begin),
        shutdown_delay: flags.shutdown_delay_duration,
        core,
        front,
        going,
    })
}

impl Daemon {
    /// Where the server listens.
    ///
    /// # Errors
    /// When the socket cannot be asked.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.address()
    }

    /// Serves until `shutdown` or until a part fails; false when it failed.
    pub async fn run(mut self, shutdown: CancellationToken) -> bool {
        if let Ok(address) = self.listener.address() {
            tracing::info!(%address, "serving securely");
        }
        self.listener.serve(self.chain, self.metrics, &self.front);
        if let Some(begin) = self.bootstrap.take() {
            begin(&self.front);
        }
        let (front_stop, core_stop) = (self.front.stop_token(), self.core.stop_token());
        tokio::select! {
            () = shutdown.cancelled() => {
                self.going.cancel();
                tokio::time::sleep(self.shutdown_delay).await;
            }
            () = front_stop.cancelled() => {}
            () = core_stop.cancelled() => {}
        }
        front_stop.cancel();
        self.front.join(PATIENCE).await;
        core_stop.cancel();
        self.core.join(PATIENCE).await;
        !self.front.failed() && !self.core.failed()
    }
}

fn start_authorizers(
    modes: &[Mode],
    registry: &Registry,
    followers: &Followers,
    tasks: &Tasks,
) -> Arc<dyn Authorizer> {
    let authorizers = modes
        .iter()
        .map(|mode| -> Arc<dyn Authorizer> {
            match mode {
                Mode::AlwaysAllow => Arc::new(AlwaysAllow),
                Mode::AlwaysDeny => Arc::new(AlwaysDeny),
                Mode::Node => {
                    let rules = bootstrap::rbac::node_rules();
                    Arc::new(NodeAuthorizer::start(rules, registry, followers, tasks))
                }
                Mode::Rbac => Arc::new(Rbac::start(registry, followers, tasks)),
            }
        })
        .collect();
    Arc::new(Union::new(authorizers))
}

fn kubelet_client(config: &Config) -> KubeletClientConfig {
    let flags = &config.flags;
    KubeletClientConfig {
        address_types: flags.kubelet_preferred_address_types.clone(),
        client_certificate: flags.kubelet_client_certificate.clone().zip(flags.kubelet_client_key.clone()),
        certificate_authority: flags.kubelet_certificate_authority.clone(),
    }
}

fn bootstrap_config(
    config: &Config,
    client_ca: Option<Arc<CaBundle>>,
    proxy_ca: Option<Arc<CaBundle>>,
    port: u16,
) -> BootstrapConfig {
    let flags = &config.flags;
    let request_header = proxy_ca.map(|ca| bootstrap::RequestHeaderNames {
        ca,
        allowed_names: flags.requestheader_allowed_names.clone(),
        username_headers: flags.requestheader_username_headers.clone(),
        uid_headers: flags.requestheader_uid_headers.clone(),
        group_headers: flags.requestheader_group_headers.clone(),
        extra_prefixes: flags.requestheader_extra_headers_prefix.clone(),
    });
    let service =
        config.service_ip().filter(|_| flags.endpoint_reconciler_type == "lease").map(|service_ip| {
            ServiceConfig {
                service_ip,
                advertise_address: config.advertise_address,
                port,
                prefix: flags.etcd_prefix.trim_end_matches('/').to_owned(),
            }
        });
    BootstrapConfig {
        authentication: bootstrap::AuthenticationConfig { client_ca, request_header },
        service,
        service_ranges: flags.service_cluster_ip_range.iter().map(ToString::to_string).collect(),
        rbac: config.modes.contains(&Mode::Rbac),
        flow_control: flags.enable_priority_and_fairness,
    }
}

#[cfg(test)]
mod tests;
