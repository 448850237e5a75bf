//! The server's metrics, under upstream's names and labels.

mod registered;

use std::time::Duration;

use http::header::WARNING;
use http::{Method, Uri};
use http_body::Body as _;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::features::Features;
use crate::filters::query;
use crate::request::{RequestInfo, Response};
use crate::resources::deprecation;
use registered::Registered;

const COMPONENT: &str = "apiserver";
const DURATION_BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
const SIZE_BUCKETS: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Components whose requests are counted apart.
const SYSTEM_CLIENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// See the module. Registered once, passed to whoever counts.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    response_sizes: HistogramVec,
    long_running: IntGaugeVec,
    pub current_inflight_requests: IntGaugeVec,
    pub tls_handshake_errors: IntCounter,
    deprecated: GaugeVec,
    healthcheck: GaugeVec,
    healthchecks: IntCounterVec,
    process: Process,
    registered: Registered,
    /// Labels come from URLs: only what is known to exist may become one.
    known: Box<dyn Fn(&RequestInfo) -> bool + Send + Sync>,
}

struct Process {
    cpu_seconds: CounterVec,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
}

/// Counts a long-running request while it lives.
pub struct LongRunning(IntGauge);

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a request is counted under.
struct Labels<'a> {
    verb: &'a str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'static str,
}

impl Metrics {
    /// Registers everything in `registry`. `known` says which resource requests may be labelled by name.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(
        registry: Registry,
        known: impl Fn(&RequestInfo) -> bool + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        let common = ["component", "group", "resource", "scope", "subresource", "verb", "version"];
        let with = |more: &[&'static str]| -> Vec<&'static str> {
            more.iter().chain(common.iter()).copied().collect()
        };
        let requests = IntCounterVec::new(
            Opts::new(
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
            ),
            &with(&["code", "dry_run", "system_client"]),
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "apiserver_request_duration_seconds",
                "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
            )
            .buckets(DURATION_BUCKETS.into()),
            &with(&["dry_run"]),
        )?;
        let response_sizes = HistogramVec::new(
            HistogramOpts::new(
                "apiserver_response_sizes",
                "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
            )
            .buckets(SIZE_BUCKETS.into()),
            &common,
        )?;
        let long_running = IntGaugeVec::new(
            Opts::new(
                "apiserver_longrunning_requests",
                "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
            ),
            &common,
        )?;
        let current_inflight_requests = IntGaugeVec::new(
            Opts::new(
                "apiserver_current_inflight_requests",
                "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
            ),
            &["request_kind"],
        )?;
        let tls_handshake_errors = IntCounter::new(
            "apiserver_tls_handshake_errors_total",
            "Number of requests dropped with 'TLS handshake error from' error",
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(response_sizes.clone()))?;
        registry.register(Box::new(long_running.clone()))?;
        registry.register(Box::new(current_inflight_requests.clone()))?;
        registry.register(Box::new(tls_handshake_errors.clone()))?;
        let deprecated = GaugeVec::new(
            Opts::new(
                "apiserver_requested_deprecated_apis",
                "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
            ),
            &["group", "removed_release", "resource", "subresource", "version"],
        )?;
        let healthcheck = GaugeVec::new(
            Opts::new("kubernetes_healthcheck", "This metric records the result of a single healthcheck."),
            &["name", "type"],
        )?;
        let healthchecks = IntCounterVec::new(
            Opts::new("kubernetes_healthchecks_total", "This metric records the results of all healthcheck."),
            &["name", "status", "type"],
        )?;
        registry.register(Box::new(deprecated.clone()))?;
        registry.register(Box::new(healthcheck.clone()))?;
        registry.register(Box::new(healthchecks.clone()))?;
        let process = Process::register(&registry)?;
        let registered = Registered::new(&registry)?;
        build_info(&registry)?;
        Ok(Self {
            registry,
            requests,
            durations,
            response_sizes,
            long_running,
            current_inflight_requests,
            tls_handshake_errors,
            deprecated,
            healthcheck,
            healthchecks,
            process,
            registered,
            known: Box::new(known),
        })
    }

    /// Shows which features are on.
    ///
    /// # Errors
    /// When it was done already.
    pub fn show_features(&self, features: &Features) -> Result<(), prometheus::Error> {
        let gauge = IntGaugeVec::new(
            Opts::new(
                "kubernetes_feature_enabled",
                "This metric records the data about the stage and enablement of a k8s feature.",
            ),
            &["name", "stage"],
        )?;
        self.registry.register(Box::new(gauge.clone()))?;
        for (name, stage, enabled) in features.all() {
            gauge.with_label_values(&[name, stage]).set(i64::from(enabled));
        }
        Ok(())
    }

    /// Counts a check of `endpoint`'s health.
    pub fn checked(&self, endpoint: &str, name: &str, passed: bool) {
        let status = if passed { "success" } else { "error" };
        self.healthcheck.with_label_values(&[name, endpoint]).set(f64::from(u8::from(passed)));
        self.healthchecks.with_label_values(&[name, status, endpoint]).inc();
    }

    /// Counts an answered request.
    pub fn observe(
        &self,
        info: &RequestInfo,
        method: &Method,
        uri: &Uri,
        user_agent: &str,
        response: &Response,
        elapsed: Duration,
    ) {
        let known = self.labels(info, method);
        let dry_run = match query::first(uri.query().unwrap_or_default(), "dryRun") {
            Some(value) if value == "All" => "All",
            Some(value) if !value.is_empty() => "invalid",
            _ => "",
        };
        let agent = user_agent.split_once('/').map_or("", |(name, _)| name);
        let client = SYSTEM_CLIENTS.iter().find(|name| **name == agent).copied().unwrap_or_default();
        let Labels { verb, group, version, resource, subresource, scope } = known;
        self.requests
            .with_label_values(&[
                response.status().as_str(),
                dry_run,
                client,
                COMPONENT,
                group,
                resource,
                scope,
                subresource,
                verb,
                version,
            ])
            .inc();
        let common = [COMPONENT, group, resource, scope, subresource, verb, version];
        // Every answer about what is deprecated warns of it.
        if response.headers().contains_key(WARNING)
            && let Some(removed) = self.deprecated_release(info)
        {
            let labels = [group, &removed, resource, subresource, version];
            self.deprecated.with_label_values(&labels).set(1.0);
        }
        if !matches!(verb, "WATCH" | "CONNECT") {
            self.durations
                .with_label_values(&[dry_run, COMPONENT, group, resource, scope, subresource, verb, version])
                .observe(elapsed.as_secs_f64());
        }
        if matches!(verb, "GET" | "LIST")
            && let Some(bytes) = response.body().size_hint().exact()
        {
            self.response_sizes.with_label_values(&common).observe(bytes as f64);
        }
    }

    /// In which release what was asked for goes; empty when that is not decided, `None` when it is not deprecated.
    fn deprecated_release(&self, info: &RequestInfo) -> Option<String> {
        if !info.is_resource || !(self.known)(info) {
            return None;
        }
        deprecation::removed_release(&info.group, &info.version, &info.resource)
    }

    /// Counts a long-running request until the guard is dropped.
    pub fn long_running(&self, info: &RequestInfo, parts: &http::request::Parts) -> LongRunning {
        let Labels { verb, group, version, resource, subresource, scope } = self.labels(info, &parts.method);
        let values = [COMPONENT, group, resource, scope, subresource, verb, version];
        let gauge = self.long_running.with_label_values(&values);
        gauge.inc();
        LongRunning(gauge)
    }

    fn labels<'a>(&self, info: &'a RequestInfo, method: &'a Method) -> Labels<'a> {
        let verb = canonical_verb(info, method);
        if !info.is_resource || !(self.known)(info) {
            let empty = "";
            return Labels {
                verb,
                group: empty,
                version: empty,
                resource: empty,
                subresource: empty,
                scope: empty,
            };
        }
        let scope = match (info.name.as_str(), info.verb.as_str(), info.namespace.as_str()) {
            ("", "create", _) => "resource",
            ("", _, "") => "cluster",
            ("", _, _) => "namespace",
            _ => "resource",
        };
        Labels {
            verb,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            scope,
        }
    }

    /// The text exposition of everything registered.
    pub fn render(&self) -> Vec<u8> {
        self.process.refresh();
        let mut out = Vec::new();
        // Only a writer that fails makes this fail, and a vector does not.
        let mut families = self.registry.gather();
        families.extend(self.registered.count(&families));
        if let Err(error) = TextEncoder::new().encode(&families, &mut out) {
            tracing::error!(%error, "encoding metrics");
        }
        out
    }
}

fn canonical_verb(info: &RequestInfo, method: &Method) -> &'static str {
    if info.is_resource
        && matches!(info.subresource.as_str(), "log" | "exec" | "portforward" | "attach" | "proxy")
    {
        return "CONNECT";
    }
    match info.verb.as_str() {
        "watch" => "WATCH",
        "list" => "LIST",
        "deletecollection" => "DELETECOLLECTION",
        _ => match *method {
            Method::GET | Method::HEAD => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            _ => "other",
        },
    }
}

fn build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let info = IntGaugeVec::new(
        Opts::new(
            "kubernetes_build_info",
            "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        ),
        &[
            "build_date",
            "compiler",
            "git_commit",
            "git_tree_state",
            "git_version",
            "go_version",
            "major",
            "minor",
            "platform",
        ],
    )?;
    registry.register(Box::new(info.clone()))?;
    let (major, minor) = (common::version::KUBERNETES_MAJOR, common::version::KUBERNETES_MINOR);
    info.with_label_values(&[
        "",
        "rustc",
        "",
        "",
        common::version::GIT_VERSION,
        "",
        major,
        minor,
        crate::server::PLATFORM,
    ])
    .set(1);
    Ok(())
}

impl Process {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<Gauge, prometheus::Error> {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let cpu_seconds = CounterVec::new(
            Opts::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds."),
            &[],
        )?;
        registry.register(Box::new(cpu_seconds.clone()))?;
        let start =
            gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")?;
        start.set(jiff::Timestamp::now().as_millisecond() as f64 / 1000.0);
        Ok(Self {
            cpu_seconds,
            resident_bytes: gauge("process_resident_memory_bytes", "Resident memory size in bytes.")?,
            virtual_bytes: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            open_fds: gauge("process_open_fds", "Number of open file descriptors.")?,
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors.")?,
        })
    }

    /// Reads /proc/self (proc(5)); what cannot be read keeps its value.
    fn refresh(&self) {
        const TICKS_PER_SECOND: f64 = 100.0;
        const PAGE_BYTES: f64 = 4096.0;
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
            && let Some((_, fields)) = stat.rsplit_once(") ")
        {
            let fields: Vec<f64> = fields.split(' ').map(|f| f.trim().parse().unwrap_or(0.0)).collect();
            let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
            let cpu = (field(14) + field(15)) / TICKS_PER_SECOND;
            let counter = self.cpu_seconds.with_label_values::<&str>(&[]);
            counter.inc_by((cpu - counter.get()).max(0.0));
            self.virtual_bytes.set(field(23));
            self.resident_bytes.set(field(24) * PAGE_BYTES);
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds.set(entries.count() as f64);
        }
        if let Ok(limits) = std::fs::read_to_string("/proc/self/limits")
            && let Some(line) = limits.lines().find(|line| line.starts_with("Max open files"))
            && let Some(soft) = line.split_whitespace().nth(3).and_then(|n| n.parse().ok())
        {
            self.max_fds.set(soft);
        }
    }
}
