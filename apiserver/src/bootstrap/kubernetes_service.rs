//! The `kubernetes` service in `default`, and its endpoints: the addresses of all servers that are alive.
//!
//! Each server keeps a key with a life time in the store, `<prefix>/masterleases/<address>`; the keys present
//! are the endpoints. Answers to `pkg/controlplane/controller/kubernetesservice` and
//! `pkg/controlplane/reconcilers` (lease) upstream, whose keys these are.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::shutdown::Tasks;
use common::status::Status;
use serde_json::{Value, json};

use super::Loopback;
use crate::object::{self, Object};
use crate::resources::Registry;
use crate::storage::{Store, StoreError};

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// How often a server renews its key, and how long the key lives without.
const INTERVAL: Duration = Duration::from_secs(10);
const LEASE_SECONDS: u64 = 15;
/// How long leaving may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is advertised.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    pub service_ip: IpAddr,
    pub advertise_address: IpAddr,
    pub port: u16,
    /// The store's prefix, `/registry`.
    pub prefix: String,
}

/// Keeps the service until the tasks stop, then takes this server's address out.
pub fn start(
    config: ServiceConfig,
    loopback: Loopback,
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    tasks: &Tasks,
) {
    let stop = tasks.stop_token();
    tasks.spawn("kubernetes service", async move {
        let keeper = Keeper { config, loopback, registry, store };
        // Ports are put right once: servers with different ones would never agree.
        let mut ports_too = true;
        while !stop.is_cancelled() {
            match keeper.keep(ports_too).await {
                Ok(()) => ports_too = false,
                Err(error) => tracing::warn!(%error, "keeping the kubernetes service"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
        let _ = tokio::time::timeout(FAREWELL, keeper.leave()).await;
    });
}

struct Keeper {
    config: ServiceConfig,
    loopback: Loopback,
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
}

impl Keeper {
    async fn keep(&self, ports_too: bool) -> Result<(), Status> {
        if self.registry.store("", "services").cached(NAMESPACE, NAME).is_none() {
            let collection = format!("/api/v1/namespaces/{NAMESPACE}/services");
            self.loopback.create(&collection, &self.service()).await?;
        }
        self.renew().await.map_err(Status::internal)?;
        let addresses = self.alive().await.map_err(Status::internal)?;
        if addresses.is_empty() {
            return Err(Status::internal(
                "no API server IP addresses were listed in storage, refusing to erase all endpoints for the kubernetes Service",
            ));
        }
        self.publish(&addresses, ports_too).await
    }

    /// Removes this server's key and address.
    async fn leave(&self) {
        let key = self.key();
        if let Ok((Some(held), _)) = self.store.get(&key).await {
            let _ = self.store.delete(&key, held.mod_revision).await;
        }
        if let Ok(addresses) = self.alive().await
            && let Err(error) = self.publish(&addresses, false).await
        {
            tracing::debug!(%error, "leaving the kubernetes service");
        }
    }

    fn leases(&self) -> String {
        format!("{}/masterleases/", self.config.prefix)
    }

    fn key(&self) -> String {
        format!("{}{}", self.leases(), self.config.advertise_address)
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let key = self.key();
        let address = self.config.advertise_address.to_string();
        let (held, _) = self.store.get(&key).await?;
        // Generation only makes the value differ, as upstream's does.
        let generation = held
            .as_ref()
            .and_then(|kv| serde_json::from_slice::<Value>(&kv.value).ok())
            .and_then(|lease| lease.pointer("/metadata/generation").and_then(Value::as_i64))
            .unwrap_or_default();
        let lease = json!({
            "kind": "Endpoints",
            "apiVersion": "v1",
            "metadata": {"generation": generation + 1},
            "subsets": [{"addresses": [{"ip": address}]}],
        });
        let value = Bytes::from(lease.to_string());
        match held {
            Some(held) => self.store.update(&key, held.mod_revision, value, Some(LEASE_SECONDS)).await,
            None => self.store.create(&key, value, Some(LEASE_SECONDS)).await,
        }
        .map(|_| ())
    }

    async fn alive(&self) -> Result<Vec<String>, StoreError> {
        let prefix = self.leases();
        let listing = self.store.list(&prefix, None, 0, None).await?;
        let mut addresses: Vec<IpAddr> =
            listing.items.iter().filter_map(|kv| kv.key.strip_prefix(&prefix)?.parse().ok()).collect();
        addresses.sort();
        Ok(addresses.iter().map(ToString::to_string).collect())
    }

    async fn publish(&self, addresses: &[String], ports_too: bool) -> Result<(), Status> {
        let endpoints = endpoints(addresses, self.config.port);
        self.put("", "endpoints", endpoints, &listed_in_endpoints, ports_too).await?;
        let slice = endpoint_slice(addresses, self.config.port, self.config.advertise_address.is_ipv6());
        self.put("discovery.k8s.io", "endpointslices", slice, &listed_in_slice, ports_too).await
    }

    /// Writes `wanted` unless the stored object lists the same addresses, and where asked for the same ports. Other
    /// fields are written with them and not fought over, as upstream.
    async fn put(
        &self,
        group: &str,
        resource: &str,
        mut wanted: Object,
        listed: &(dyn Fn(&Object) -> Listed + Sync),
        ports_too: bool,
    ) -> Result<(), Status> {
        let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        let collection = format!("{root}/v1/namespaces/{NAMESPACE}/{resource}");
        let Some(cached) = self.registry.store(group, resource).cached(NAMESPACE, NAME) else {
            return self.loopback.create(&collection, &wanted).await;
        };
        let existing = cached.tree();
        let (is, shall) = (listed(&existing), listed(&wanted));
        if is.addresses == shall.addresses
            && is.parts == shall.parts
            && (is.ports == shall.ports || !ports_too)
        {
            return Ok(());
        }
        let version = object::resource_version(&existing).to_owned();
        object::metadata_mut(&mut wanted).insert("resourceVersion".into(), version.into());
        self.loopback.update(&format!("{collection}/{NAME}"), &wanted).await
    }

    fn service(&self) -> Object {
        json!({
            "kind": "Service",
            "apiVersion": "v1",
            "metadata": {
                "name": NAME,
                "namespace": NAMESPACE,
                "labels": {"provider": "kubernetes", "component": "apiserver"},
            },
            "spec": {
                "clusterIP": self.config.service_ip.to_string(),
                "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": self.config.port}],
                "sessionAffinity": "None",
                "type": "ClusterIP",
            },
        })
    }
}

fn endpoints(addresses: &[String], port: u16) -> Object {
    let subsets = if addresses.is_empty() {
        Value::Null
    } else {
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        json!([{"addresses": ips, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}])
    };
    let mut object = json!({
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
    });
    if !subsets.is_null() {
        object["subsets"] = subsets;
    }
    object
}

fn endpoint_slice(addresses: &[String], port: u16, ipv6: bool) -> Object {
    let endpoints: Vec<Value> =
        addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    json!({
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": if ipv6 { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    })
}

/// What an object says of where the servers are.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    /// In how many parts it says it; one is right.
    parts: usize,
    addresses: Vec<String>,
    ports: Vec<(String, i64)>,
}

fn ports(list: Option<&Value>) -> Vec<(String, i64)> {
    let number = |port: &Value| port["port"].as_i64().unwrap_or_default();
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.map(|port| (object::str_at(port, &["name"]).to_owned(), number(port))).collect()
}

fn listed_in_endpoints(endpoints: &Object) -> Listed {
    let addresses = endpoints.pointer("/subsets/0/addresses").and_then(Value::as_array);
    Listed {
        parts: endpoints["subsets"].as_array().map_or(0, Vec::len),
        addresses: addresses.into_iter().flatten().map(|a| object::str_at(a, &["ip"]).to_owned()).collect(),
        ports: ports(endpoints.pointer("/subsets/0/ports")),
    }
}

fn listed_in_slice(slice: &Object) -> Listed {
    let endpoints = slice.get("endpoints").and_then(Value::as_array);
    let address = |endpoint: &Value| endpoint.pointer("/addresses/0")?.as_str().map(str::to_owned);
    Listed {
        parts: 1,
        addresses: endpoints.into_iter().flatten().filter_map(address).collect(),
        ports: ports(slice.get("ports")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_name_the_same_addresses() {
        let addresses = ["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
        let expected =
            Listed { parts: 1, addresses: addresses.to_vec(), ports: vec![("https".to_owned(), 6443)] };
        assert_eq!(listed_in_endpoints(&endpoints(&addresses, 6443)), expected);
        assert_eq!(listed_in_slice(&endpoint_slice(&addresses, 6443, false)), expected);
        let mut split = endpoints(&addresses, 6443);
        let subset = split["subsets"][0].clone();
        split["subsets"].as_array_mut().expect("subsets").push(subset);
        assert_ne!(listed_in_endpoints(&split), expected);
        assert!(endpoints(&[], 6443).get("subsets").is_none());
    }
}
