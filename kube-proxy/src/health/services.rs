//! A server per service with `healthCheckNodePort`: load balancers ask it whether endpoints are here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use common::shutdown::{CancellationToken, Tasks};

use super::Health;
use super::server::{Answer, Handler, serve};
use crate::model::Key;

struct Port {
    number: u16,
    local: Arc<AtomicUsize>,
    stop: CancellationToken,
}

pub struct ServiceHealth {
    health: Arc<Health>,
    tasks: Tasks,
    ports: BTreeMap<Key, Port>,
}

impl ServiceHealth {
    pub fn new(health: Arc<Health>, tasks: Tasks) -> Self {
        Self { health, tasks, ports: BTreeMap::new() }
    }

    /// Starts, changes or (with `None`) stops a service's server.
    pub async fn set(&mut self, key: &Key, wanted: Option<(u16, usize)>) {
        let Some((number, local)) = wanted else {
            if let Some(port) = self.ports.remove(key) {
                port.stop.cancel();
            }
            return;
        };
        if let Some(port) = self.ports.get(key) {
            if port.number == number {
                port.local.store(local, Ordering::Relaxed);
                return;
            }
            port.stop.cancel();
        }
        let stop = self.tasks.stop_token().child_token();
        let local = Arc::new(AtomicUsize::new(local));
        let handler = handler(key.clone(), local.clone(), self.health.clone());
        let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), number);
        match serve("service-health", address, handler, stop.clone(), &self.tasks).await {
            Ok(()) => drop(self.ports.insert(key.clone(), Port { number, local, stop })),
            Err(error) => {
                self.ports.remove(key);
                tracing::warn!(service = %key, port = number, %error, "cannot serve the health check node port");
            }
        }
    }
}

fn handler(key: Key, local: Arc<AtomicUsize>, health: Arc<Health>) -> Handler {
    Arc::new(move |_| {
        let count = local.load(Ordering::Relaxed);
        let healthy = health.healthy(Instant::now());
        let body = format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": {:?},\n\t\t\"name\": {:?}\n\t}},\n\t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {healthy}\n}}",
            key.namespace, key.name
        );
        Answer {
            status: if count > 0 && healthy { 200 } else { 503 },
            headers: vec![
                ("Content-Type", "application/json".into()),
                ("X-Content-Type-Options", "nosniff".into()),
                ("X-Load-Balancing-Endpoint-Weight", count.to_string()),
            ],
            body,
        }
    })
}
