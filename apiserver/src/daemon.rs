//! The wiring: flags to store to caches to handlers to chain to listener.
//!
//! [`build`] makes and binds everything and fails early; [`Daemon::run`] serves until told to stop. What serves
//! stops before what is served from: the listener and the controllers first, store and caches after them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use common::shutdown::{CancellationToken, Tasks};

use crate::admission;
use crate::apiextensions;
use crate::authentication::request_header::RequestHeader;
use crate::authentication::service_account::{self, OpenIdDocuments, Signer, Verifier};
use crate::authentication::token_file::{TokenFile, TokenFileError};
use crate::authentication::x509::{CaBundle, CaError};
use crate::authentication::{RequestAuthenticator, TokenAuthenticator, Tokens};
use crate::authorization::modes::{AlwaysAllow, AlwaysDeny};
use crate::authorization::node::NodeAuthorizer;
use crate::authorization::rbac::Rbac;
use crate::authorization::{Authorizer, Followers, Union};
use crate::bootstrap::{self, BootstrapConfig, ServiceConfig};
use crate::cacher::{Cacher, CacherConfig, ObjectStore};
use crate::config::{Config, Mode, StoreConfig};
use crate::endpoints::ApiHandler;
use crate::filters::{Chain, Handler, InFlight, Limits};
use crate::flowcontrol::{FlowControl, FlowControlMetrics};
use crate::metrics::Metrics;
use crate::protobuf;
use crate::registry::core::service::allocation::family_of;
use crate::registry::core::service::claims::Claims;
use crate::registry::core::service::hooks::ServiceHooks;
use crate::registry::core::service::metrics::ServiceMetrics;
use crate::registry::{self, Deps, KubeletClientConfig, TokenIssuing};
use crate::resources::rows::{Storage, rows};
use crate::resources::schema::Schema;
use crate::resources::{GroupResource, Registry, Table, Tables};
use crate::server::health::{Check, Checks};
use crate::server::tls::{Tls, TlsError};
use crate::server::{Api, Listener, Routes};
use crate::storage::Store;
use crate::storage::embedded::{EmbeddedStore, OpenError};
use crate::storage::etcd::{ConnectError, EtcdConfig, EtcdStore};
use crate::storage::measured::{self, Measured, StoreMetrics};
use crate::storage::memory::MemoryStore;
use crate::storage::readable::Readable;

/// How long tasks may take to end.
const PATIENCE: Duration = Duration::from_secs(15);
/// The name of the self-signed pair in --cert-dir, upstream's.
const SELF_SIGNED_NAME: &str = "apiserver";

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
    let store = open_store(&config, &messages, &core).await?;
    let store = measure(&config, store, &store_metrics);
    let (registry, counts) = start_caches(&config, &store, &core);
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
    )?;
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
        chain: admission.clone(),
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
    let api: Arc<dyn Handler> = Arc::new(Api::new(
        ApiHandler::new(
            Arc::clone(&tables),
            Arc::clone(&registry),
            admission,
            schema,
            Duration::from_secs(flags.min_request_timeout),
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

/// What health is read from.
struct HealthSources {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    followers: Followers,
    progress: bootstrap::Progress,
    custom_synced: Arc<AtomicBool>,
    going: CancellationToken,
}

impl HealthSources {
    /// The checks of `healthz`, `livez` or `readyz`.
    fn of(&self, endpoint: &str) -> Option<Checks> {
        if !matches!(endpoint, "healthz" | "livez" | "readyz") {
            return None;
        }
        let store = Arc::clone(&self.store);
        let etcd = move || {
            let store = Arc::clone(&store);
            async move { store.healthy().await.map_err(|error| error.to_string()) }
        };
        let mut checks = vec![Check::ping(), Check::immediate("log", || Ok(()))];
        checks.push(Check::new("etcd", etcd.clone()));
        if endpoint == "readyz" {
            checks.push(Check::new("etcd-readiness", etcd));
            let (registry, followers) = (Arc::clone(&self.registry), self.followers.clone());
            checks.push(Check::immediate("informer-sync", move || {
                let waiting: Vec<String> = registry
                    .iter()
                    .filter(|(_, store)| !store.synced())
                    .map(|(id, _)| common::status::qualified(&id.group, &id.resource))
                    .collect();
                match (waiting.is_empty(), followers.synced()) {
                    (true, true) => Ok(()),
                    (true, false) => Err("authorization indexes are not synced".to_owned()),
                    (false, _) => Err(format!("not synced: {}", waiting.join(", "))),
                }
            }));
        }
        if endpoint == "readyz" {
            let synced = Arc::clone(&self.custom_synced);
            checks.push(Check::immediate("poststarthook/crd-informer-synced", move || {
                if synced.load(Ordering::Acquire) { Ok(()) } else { Err("not finished".to_owned()) }
            }));
        }
        for (name, done) in self.progress.steps() {
            checks.push(Check::immediate(name, move || {
                if done.load(Ordering::Acquire) { Ok(()) } else { Err("not finished".to_owned()) }
            }));
        }
        if endpoint == "readyz" {
            let going = self.going.clone();
            checks.push(Check::immediate("shutdown", move || {
                if going.is_cancelled() { Err("process is shutting down".to_owned()) } else { Ok(()) }
            }));
        }
        Some(Checks::new(checks))
    }
}

fn load_ca(flag: &'static str, path: Option<&PathBuf>) -> Result<Option<Arc<CaBundle>>, BuildError> {
    path.map(|path| CaBundle::load(path).map(Arc::new).map_err(|source| BuildError::Ca { flag, source }))
        .transpose()
}

fn load_tls(config: &Config, cas: [&Option<Arc<CaBundle>>; 2]) -> Result<Tls, TlsError> {
    let (certificate, key) = match &config.tls_files {
        Some(files) => files.clone(),
        None => {
            let mut hosts: Vec<String> =
                ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                    .map(str::to_owned)
                    .to_vec();
            hosts.push(config.advertise_address.to_string());
            hosts.extend(config.service_ip().map(|ip| ip.to_string()));
            common::tls::self_signed(&config.flags.cert_dir, SELF_SIGNED_NAME, &hosts)?
        }
    };
    let cas = cas.into_iter().flatten().cloned().collect();
    Tls::load(certificate, key, config.tls_profile.clone(), cas)
}

fn load_signer(config: &Config) -> Result<Option<Arc<Signer>>, BuildError> {
    let key = |source| BuildError::Key { flag: "service-account-signing-key-file", source };
    let file = config.flags.service_account_signing_key_file.as_deref();
    file.map(|path| Signer::load(&config.issuer, path).map(Arc::new).map_err(key)).transpose()
}

/// The keys of all `--service-account-key-file`; the signing key's public half when there are none.
fn load_verifier(config: &Config, signer: Option<&Arc<Signer>>) -> Result<Option<Verifier>, BuildError> {
    let mut keys = Vec::new();
    for path in &config.flags.service_account_key_file {
        let found = service_account::load_public(path)
            .map_err(|source| BuildError::Key { flag: "service-account-key-file", source })?;
        keys.extend(found);
    }
    if keys.is_empty() {
        keys.extend(signer.map(|signer| signer.public_key()));
    }
    let issuers = config.flags.service_account_issuer.clone();
    Ok((!keys.is_empty()).then(|| Verifier::new(issuers, keys, config.api_audiences.clone())))
}

async fn open_store(
    config: &Config,
    messages: &Arc<protobuf::Table>,
    tasks: &Tasks,
) -> Result<Arc<dyn Store>, BuildError> {
    match &config.store {
        StoreConfig::Memory => Ok(MemoryStore::start(tasks)),
        StoreConfig::Embedded(path) => {
            tracing::info!(path = %path.display(), "no --etcd-servers: using the embedded store");
            Ok(EmbeddedStore::open(path, config.flags.etcd_compaction_interval, tasks)?)
        }
        StoreConfig::Etcd { servers, ca, certificate } => {
            let (cert_file, key_file) = certificate.clone().unzip();
            let etcd = EtcdConfig {
                servers: servers.clone(),
                ca_file: ca.clone(),
                cert_file,
                key_file,
                prefix: format!("{}/", config.flags.etcd_prefix.trim_end_matches('/')),
                compaction_interval: config.flags.etcd_compaction_interval,
            };
            // Stock servers may have written to it, and may do so beside us.
            Ok(Arc::new(Readable::new(EtcdStore::connect(etcd, tasks).await?, Arc::clone(messages))))
        }
    }
}

/// Counts what is asked of the store, by resource.
fn measure(config: &Config, store: Arc<dyn Store>, metrics: &Arc<StoreMetrics>) -> Arc<dyn Store> {
    let prefix = config.flags.etcd_prefix.trim_end_matches('/');
    let known = rows().iter().filter_map(|row| {
        let Storage::Own(path) = row.storage else { return None };
        Some((format!("{prefix}/{path}/"), row.group.to_owned(), row.resource.to_owned()))
    });
    Measured::new(store, Arc::clone(metrics), &format!("{prefix}/"), known)
}

/// Whose objects are counted for metrics.
struct Count {
    group: &'static str,
    resource: &'static str,
    cacher: Weak<Cacher>,
}

/// Keeps the metrics of the store's size and of the numbers of objects.
fn poll_sizes(store: Arc<dyn Store>, metrics: Arc<StoreMetrics>, counts: Vec<Count>, tasks: &Tasks) {
    let stop = tasks.stop_token();
    tasks.spawn_essential("store sizes", async move {
        let polling = async {
            loop {
                let size = store.size_bytes().await;
                if let Some(bytes) = size {
                    metrics.observe_size(bytes);
                }
                for Count { group, resource, cacher } in &counts {
                    if let Some(cacher) = cacher.upgrade() {
                        metrics.observe_objects(group, resource, cacher.object_count());
                    }
                }
                // An etcd that did not answer yet is asked again soon.
                let pause = if size.is_some() { measured::POLL_INTERVAL } else { measured::RETRY_INTERVAL };
                tokio::time::sleep(pause).await;
            }
        };
        stop.run_until_cancelled(polling).await;
    });
}

fn start_caches(config: &Config, store: &Arc<dyn Store>, tasks: &Tasks) -> (Registry, Vec<Count>) {
    let prefix = config.flags.etcd_prefix.trim_end_matches('/');
    let mut counts = Vec::new();
    let mut stores: HashMap<GroupResource, Arc<dyn ObjectStore>> = HashMap::new();
    for row in rows() {
        let Storage::Own(path) = row.storage else { continue };
        if !config.enablement.stores(row) {
            continue;
        }
        let cacher = Cacher::start(
            CacherConfig {
                store: Arc::clone(store),
                prefix: format!("{prefix}/{path}/"),
                group: row.group.to_owned(),
                resource: row.resource.to_owned(),
                kind: row.kind.to_owned(),
                namespaced: row.namespaced,
                selectable_fields: row.fields.read,
                selectable_field_names: row.fields.names,
                custom: None,
            },
            tasks,
        );
        counts.push(Count { group: row.group, resource: row.resource, cacher: Arc::downgrade(&cacher) });
        stores.insert(GroupResource::new(row.group, row.resource), cacher);
    }
    (Registry::new(stores), counts)
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
