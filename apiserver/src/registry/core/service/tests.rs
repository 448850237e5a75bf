//! Allocation around writes, over a store in memory.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use common::status::{FieldErrors, Status};
use serde_json::{Value, json};

use super::allocation::family_of;
use super::claims::Claims;
use super::hooks::ServiceHooks;
use super::metrics::ServiceMetrics;
use super::ranges::DEFAULT;
use super::{cluster_ips, node_ports};
use crate::admission::testing::{Cluster, named, put};
use crate::resources::Hooks;

const RESOURCES: [(&str, &str); 5] = [
    ("", "endpoints"),
    ("", "events"),
    ("", "services"),
    ("networking.k8s.io", "ipaddresses"),
    ("networking.k8s.io", "servicecidrs"),
];

/// A store with a default ServiceCIDR, and servers on it.
pub(super) struct Servers {
    cluster: Cluster,
    families: Vec<&'static str>,
}

pub(super) fn cidr(name: &str, ranges: &[&str], ready: bool) -> Value {
    let status = if ready { "True" } else { "False" };
    json!({"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": name, "uid": name},
        "spec": {"cidrs": ranges}, "status": {"conditions": [{"type": "Ready", "status": status}]}})
}

impl Servers {
    pub(super) async fn start(ranges: &[&str]) -> Self {
        let cluster = Cluster::start();
        let registry = cluster.server(&RESOURCES).await;
        put(&[&registry], "networking.k8s.io", "servicecidrs", cidr(DEFAULT, ranges, true)).await;
        let net = |text: &&str| text.parse::<ipnet::IpNet>().expect("range");
        Self { cluster, families: ranges.iter().map(|text| family_of(net(text).addr())).collect() }
    }

    pub(super) async fn server(&self, ports: RangeInclusive<u16>) -> Arc<ServiceHooks> {
        let registry = self.cluster.server(&RESOURCES).await;
        let claims = Claims::new(registry.clone(), self.cluster.store(), "/registry", ports);
        let metrics = ServiceMetrics::new(&prometheus::Registry::new(), &registry).expect("metrics");
        Arc::new(ServiceHooks::new(registry, claims, self.families.clone(), metrics, 3600))
    }
}

async fn check(spec: Value) -> Value {
    let servers = Servers::start(&["10.96.0.0/24"]).await;
    let hooks = servers.server(30000..=32767).await;
    let mut service = service("a", spec);
    drop(hooks.begin_write(&mut service, None, true).await.expect("allocated"));
    let mut errors = FieldErrors::new();
    (super::RULES.validate)(&service, &mut errors);
    assert!(errors.is_empty(), "{errors:?}");
    service["spec"].clone()
}

#[tokio::test]
async fn an_address_in_an_old_form_is_claimed_as_what_it_is() {
    let servers = Servers::start(&["10.96.0.0/24"]).await;
    let hooks = servers.server(30000..=32767).await;
    let mut first = service("a", json!({"clusterIP": "010.96.0.7", "ports": [{"port": 80}]}));
    hooks.begin_write(&mut first, None, false).await.expect("allocated").commit();
    assert_eq!(cluster_ips(&first), ["10.96.0.7".parse::<std::net::IpAddr>().expect("ip")]);
    let mut second = service("b", json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}));
    let taken = hooks.begin_write(&mut second, None, false).await.err().expect("taken");
    assert!(taken.message.contains("provided IP is already allocated"), "{}", taken.message);
}

#[tokio::test]
async fn every_type_gets_what_it_needs() {
    let plain = check(json!({"ports": [{"port": 80}]})).await;
    assert!(plain["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.96.0.")));
    assert_eq!(plain["clusterIPs"][0], plain["clusterIP"]);
    assert_eq!(plain["ipFamilies"], json!(["IPv4"]));
    assert_eq!(plain["ipFamilyPolicy"], "SingleStack");
    assert_eq!(plain["ports"][0]["targetPort"], 80);

    let headless = check(json!({"clusterIP": "None", "selector": {"a": "b"}})).await;
    assert_eq!(headless["clusterIPs"], json!(["None"]));

    let node = check(json!({"type": "NodePort", "ports": [
        {"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]}))
    .await;
    assert!(node["ports"][0]["nodePort"].as_i64().is_some_and(|p| (30000..=32767).contains(&p)));
    assert_eq!(node["ports"][0]["nodePort"], node["ports"][1]["nodePort"]);

    let external = check(json!({"type": "ExternalName", "externalName": "a.example"})).await;
    assert!(external.get("clusterIP").is_none());
    assert!(external.get("internalTrafficPolicy").is_none());
}

fn service(name: &str, spec: Value) -> Value {
    let mut service = named("Service", name, json!({ "spec": spec }));
    (super::RULES.default)(&mut service);
    (super::RULES.prepare_create)(&mut service);
    service
}

async fn write(hooks: &ServiceHooks, mut service: Value) -> Result<Value, Status> {
    let guard = hooks.begin_write(&mut service, None, false).await?;
    hooks.registry.store("", "services").create(&service, None).await?;
    guard.commit();
    Ok(service)
}

#[tokio::test]
async fn two_servers_never_hand_out_the_same() {
    let store = Servers::start(&["10.96.0.0/27"]).await;
    let servers = [store.server(30000..=30019).await, store.server(30000..=30019).await];
    let mut running = tokio::task::JoinSet::new();
    for i in 0..40 {
        let hooks = servers[i % 2].clone();
        let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
        running.spawn(async move { write(&hooks, service(&format!("s{i}"), spec)).await });
    }
    let (mut ips, mut ports) = (BTreeSet::new(), BTreeSet::new());
    while let Some(done) = running.join_next().await {
        match done.expect("no panic") {
            Ok(service) => {
                assert!(ips.insert(cluster_ips(&service)[0]), "{service}");
                assert!(ports.insert(node_ports(&service)[0]), "{service}");
            }
            Err(status) => assert!(status.message.ends_with("range is full"), "{}", status.message),
        }
    }
    assert_eq!((ips.len(), ports.len()), (20, 20));
}

#[tokio::test]
async fn a_taken_address_is_refused_and_a_freed_one_is_not() {
    let servers = Servers::start(&["10.96.0.0/24"]).await;
    let hooks = servers.server(30000..=32767).await;
    let spec =
        json!({"clusterIP": "10.96.0.9", "type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]});
    let first = write(&hooks, service("a", spec.clone())).await.expect("free");
    let told = write(&hooks, service("b", spec.clone())).await.expect_err("taken");
    assert_eq!(
        told.message,
        "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: provided IP is already allocated"
    );
    let told =
        write(&hooks, service("b", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]})))
            .await
            .expect_err("taken");
    assert_eq!(
        told.message,
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"
    );
    hooks.after_delete(&first).await;
    let mut again = service("c", spec.clone());
    drop(hooks.begin_write(&mut again, None, false).await.expect("free again"));
    let mut again = service("d", spec);
    drop(hooks.begin_write(&mut again, None, true).await.expect("given back"));
    let (map, _) = hooks.claims.read_ports().await.expect("ports");
    assert!(!map.is_taken(30001));
}

#[tokio::test]
async fn what_is_there_is_claimed_before_anything_is_handed_out() {
    let servers = Servers::start(&["10.96.0.0/24"]).await;
    let hooks = servers.server(30000..=32767).await;
    let registry = hooks.registry.clone();
    let object = named(
        "Service",
        "old",
        json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7"], "ports": [{"port": 1, "nodePort": 30005}]}}),
    );
    put(&[&registry], "", "services", object).await;
    write(&hooks, service("new", json!({"ports": [{"port": 1}]}))).await.expect("written");
    let claimed = registry.store("networking.k8s.io", "ipaddresses").get("", "10.96.0.7", None).await;
    let claimed = claimed.expect("claimed").tree();
    assert_eq!(claimed["spec"]["parentRef"]["name"], "old");
    assert!(hooks.claims.read_ports().await.expect("ports").0.is_taken(30005));
}

/// Writes a ServiceCIDR through `hooks`' server and waits until it knows.
async fn add_range(hooks: &ServiceHooks, name: &str, range: &str, ready: bool) {
    put(&[&hooks.registry], "networking.k8s.io", "servicecidrs", cidr(name, &[range], ready)).await;
}

#[tokio::test]
async fn a_further_range_is_allocated_from_when_it_is_ready_and_the_first_is_full() {
    let servers = Servers::start(&["10.96.0.0/29"]).await;
    let hooks = servers.server(30000..=32767).await;
    let plain = || json!({"ports": [{"port": 80}]});
    for i in 0..6 {
        let made = write(&hooks, service(&format!("a{i}"), plain())).await.expect("room");
        assert!(made["spec"]["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.96.0.")));
    }
    let full = "Internal error occurred: failed to allocate a serviceIP for Service \"b\": range is full";
    assert_eq!(write(&hooks, service("b", plain())).await.expect_err("full").message, full);
    add_range(&hooks, "waiting", "10.98.0.0/28", false).await;
    assert_eq!(write(&hooks, service("b", plain())).await.expect_err("not ready").message, full);
    let given = json!({"clusterIP": "10.98.0.3", "ports": [{"port": 80}]});
    assert_eq!(
        write(&hooks, service("b", given)).await.expect_err("not ready").message,
        "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.98.0.3\"]: failed to allocate IP 10.98.0.3: the provided network does not match the current range"
    );
    let mut dry = service("b", json!({"clusterIP": "10.98.0.3", "ports": [{"port": 80}]}));
    assert!(hooks.begin_write(&mut dry, None, true).await.err().expect("outside").message.ends_with(
        "the provided IP (10.98.0.3) is not in the valid range. The range of valid IPs is 10.96.0.0/29"
    ));
    add_range(&hooks, "more", "10.97.0.0/28", true).await;
    let made = write(&hooks, service("b", plain())).await.expect("room again");
    assert!(made["spec"]["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.97.0.")));
    let given = json!({"clusterIP": "10.97.0.14", "ports": [{"port": 80}]});
    let told = write(&hooks, service("c", given)).await;
    let free = made["spec"]["clusterIP"] != "10.97.0.14";
    assert_eq!(told.is_ok(), free);
}

#[tokio::test]
async fn a_second_family_is_claimed_when_asked_for_and_given_back_when_not() {
    let servers = Servers::start(&["10.96.0.0/24", "fd00:96::/112"]).await;
    let hooks = servers.server(30000..=32767).await;
    let old = write(&hooks, service("a", json!({"ports": [{"port": 80}]}))).await.expect("written");
    let mut new = old.clone();
    new["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    hooks.begin_write(&mut new, Some(&old), false).await.expect("dual").commit();
    assert_eq!(new["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let ips = cluster_ips(&new);
    assert_eq!((ips.len(), ips[0]), (2, cluster_ips(&old)[0]));
    assert!(ips[1].is_ipv6());
    let addresses = hooks.claims.addresses().expect("stored").clone();
    let claimed = addresses.get("", &ips[1].to_string(), None).await.expect("claimed").tree();
    assert_eq!(claimed["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv6");
    assert_eq!(
        claimed["spec"]["parentRef"],
        json!({"group": "", "resource": "services", "namespace": "n", "name": "a"})
    );
    let mut single = new.clone();
    single["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    hooks.begin_write(&mut single, Some(&new), false).await.expect("single").commit();
    assert_eq!(single["spec"]["clusterIPs"], old["spec"]["clusterIPs"]);
    hooks.give_back().await;
    assert!(addresses.get("", &ips[1].to_string(), None).await.is_err());
    let mut external = json!({"type": "ExternalName", "externalName": "a.example"});
    std::mem::swap(&mut external, &mut single["spec"]);
    let headful =
        json!({"kind": "Service", "apiVersion": "v1", "metadata": old["metadata"], "spec": external});
    hooks.begin_write(&mut single, Some(&headful), false).await.expect("external").commit();
    hooks.give_back().await;
    assert!(addresses.get("", &ips[0].to_string(), None).await.is_err());
}
