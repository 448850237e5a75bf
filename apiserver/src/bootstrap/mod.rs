//! What must be there in every cluster, written by the server itself once it can serve.
//!
//! System namespaces, default roles and bindings, priority classes, flow schemas and priority levels, the `extension-apiserver-authentication`
//! config map, and the `kubernetes` service with its endpoints. Everything is written as requests of
//! [`loopback`], through the same handlers, defaults and checks as anyone's. Answers to the post-start hooks
//! of `pkg/controlplane` and `pkg/registry/rbac/rest` upstream.

mod authentication_config;
mod kubernetes_service;
mod loopback;
mod objects;
pub mod rbac;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::shutdown::Tasks;
use common::status::Status;

pub use authentication_config::{AuthenticationConfig, RequestHeaderNames};
pub use kubernetes_service::ServiceConfig;
pub use loopback::Loopback;

use crate::filters::Handler;
use crate::flowcontrol;
use crate::resources::Registry;
use crate::storage::Store;

/// The pause after a failed attempt.
const RETRY: Duration = Duration::from_secs(1);
/// How often what someone may have deleted is put back.
const RESYNC: Duration = Duration::from_secs(60);
/// The same for the ranges of services, without which none can be made.
const RANGES_RESYNC: Duration = Duration::from_secs(10);

/// What bootstrapping needs to know.
pub struct BootstrapConfig {
    pub authentication: AuthenticationConfig,
    /// `None` leaves the `kubernetes` service to someone else.
    pub service: Option<ServiceConfig>,
    /// `--service-cluster-ip-range`, one or two of them.
    pub service_ranges: Vec<String>,
    /// True when roles are what decides.
    pub rbac: bool,
    /// True when priority and fairness is on.
    pub flow_control: bool,
}

/// Which steps have been done; for readiness.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    namespaces: Arc<AtomicBool>,
    rbac: Arc<AtomicBool>,
    priority_classes: Arc<AtomicBool>,
    flow_control: Arc<AtomicBool>,
}

impl Progress {
    /// The steps by the names upstream gives its hooks, and whether each is done.
    pub fn steps(&self) -> [(&'static str, Arc<AtomicBool>); 4] {
        [
            ("poststarthook/start-system-namespaces-controller", Arc::clone(&self.namespaces)),
            ("poststarthook/rbac/bootstrap-roles", Arc::clone(&self.rbac)),
            (
                "poststarthook/scheduling/bootstrap-system-priority-classes",
                Arc::clone(&self.priority_classes),
            ),
            ("poststarthook/priority-and-fairness-config-producer", Arc::clone(&self.flow_control)),
        ]
    }
}

/// Starts the tasks. They wait until the caches have their first state.
pub fn start(
    config: BootstrapConfig,
    handler: Arc<dyn Handler>,
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    done: Progress,
    tasks: &Tasks,
) {
    let loopback = Loopback::new(handler);
    let stop = tasks.stop_token();
    let own_tasks = tasks.clone();
    tasks.spawn("bootstrap", async move {
        let begin = async {
            while !registry.iter().all(|(_, store)| store.synced()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            attempt("system namespaces", || objects::namespaces(&loopback, &registry)).await;
            done.namespaces.store(true, Ordering::Release);
            let ranges = config.service_ranges;
            attempt("the default service CIDR", || objects::service_cidr(&loopback, &registry, &ranges))
                .await;
            if config.rbac {
                attempt("default roles", || rbac::reconcile(&loopback, &registry)).await;
            }
            done.rbac.store(true, Ordering::Release);
            attempt("priority classes", || objects::priority_classes(&loopback, &registry)).await;
            done.priority_classes.store(true, Ordering::Release);
            if config.flow_control {
                attempt("priority and fairness", || flowcontrol::ensure(&loopback, &registry)).await;
            }
            done.flow_control.store(true, Ordering::Release);
            // Not before: whoever finds this server by the service's endpoints finds it ready.
            if let Some(service) = config.service {
                kubernetes_service::start(
                    service,
                    loopback.clone(),
                    Arc::clone(&registry),
                    Arc::clone(&store),
                    &own_tasks,
                );
            }
            loop {
                attempt("authentication config map", || config.authentication.write(&loopback, &registry))
                    .await;
                for _ in 0..RESYNC.as_secs() / RANGES_RESYNC.as_secs() {
                    tokio::time::sleep(RANGES_RESYNC).await;
                    attempt("the default service CIDR", || {
                        objects::service_cidr(&loopback, &registry, &ranges)
                    })
                    .await;
                }
                attempt("system namespaces", || objects::namespaces(&loopback, &registry)).await;
                if config.flow_control {
                    attempt("priority and fairness", || flowcontrol::ensure(&loopback, &registry)).await;
                }
            }
        };
        stop.run_until_cancelled(begin).await;
    });
}

/// Again until it works.
async fn attempt<F>(what: &str, step: impl Fn() -> F)
where
    F: Future<Output = Result<(), Status>>,
{
    let mut told = false;
    while let Err(status) = step().await {
        if !told {
            tracing::warn!(what, error = %status, "bootstrapping; will try again");
            told = true;
        }
        tokio::time::sleep(RETRY).await;
    }
}
