//! Allocation around writes, over a store in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use common::status::{FieldErrors, Status};
use serde_json::{Value, json};

use super::addresses::allocate_cluster;
use super::allocation::{AddressRange, PortMap};
use super::claims::Claims;
use super::hooks::ServiceHooks;
use super::ports::allocate_ports;
use super::{cluster_ips, node_ports};
use crate::admission::testing::{Cluster, named, put};
use crate::resources::{Hooks, Registry};

fn ranges() -> Vec<AddressRange> {
    vec![AddressRange::new("10.96.0.0/24".parse().expect("range"))]
}

fn check(spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": "a"}, "spec": spec});
    (super::RULES.default)(&mut service);
    (super::RULES.prepare_create)(&mut service);
    allocate_cluster(&mut service, None, &ranges(), &|_| false, &mut Vec::new()).expect("address");
    let mut map = PortMap::new(30000..=32767);
    allocate_ports(&mut service, None, &mut map, &mut Vec::new()).expect("ports");
    let mut errors = FieldErrors::new();
    (super::RULES.validate)(&service, &mut errors);
    assert!(errors.is_empty(), "{errors:?}");
    service["spec"].clone()
}

#[test]
fn every_type_gets_what_it_needs() {
    let plain = check(json!({"ports": [{"port": 80}]}));
    assert!(plain["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.96.0.")));
    assert_eq!(plain["clusterIPs"][0], plain["clusterIP"]);
    assert_eq!(plain["ipFamilies"], json!(["IPv4"]));
    assert_eq!(plain["ipFamilyPolicy"], "SingleStack");
    assert_eq!(plain["ports"][0]["targetPort"], 80);

    let headless = check(json!({"clusterIP": "None", "selector": {"a": "b"}}));
    assert_eq!(headless["clusterIPs"], json!(["None"]));

    let node = check(json!({"type": "NodePort", "ports": [
        {"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]}));
    assert!(node["ports"][0]["nodePort"].as_i64().is_some_and(|p| (30000..=32767).contains(&p)));
    assert_eq!(node["ports"][0]["nodePort"], node["ports"][1]["nodePort"]);

    let external = check(json!({"type": "ExternalName", "externalName": "a.example"}));
    assert!(external.get("clusterIP").is_none());
}

const RESOURCES: [(&str, &str); 2] = [("", "services"), ("networking.k8s.io", "ipaddresses")];

fn hooks(
    cluster: &Cluster,
    registry: &Arc<Registry>,
    range: &str,
    ports: std::ops::RangeInclusive<u16>,
) -> Arc<ServiceHooks> {
    let claims = Claims::new(registry.clone(), cluster.store(), "/registry", ports);
    let ranges = vec![AddressRange::new(range.parse().expect("range"))];
    Arc::new(ServiceHooks::new(registry.clone(), claims, ranges))
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
    let cluster = Cluster::start();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let registry = cluster.server(&RESOURCES).await;
        servers.push(hooks(&cluster, &registry, "10.96.0.0/27", 30000..=30019));
    }
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
    let cluster = Cluster::start();
    let registry = cluster.server(&RESOURCES).await;
    let hooks = hooks(&cluster, &registry, "10.96.0.0/24", 30000..=32767);
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
    let cluster = Cluster::start();
    let registry = cluster.server(&RESOURCES).await;
    let object = named(
        "Service",
        "old",
        json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7"], "ports": [{"port": 1, "nodePort": 30005}]}}),
    );
    put(&[&registry], "", "services", object).await;
    let hooks = hooks(&cluster, &registry, "10.96.0.0/24", 30000..=32767);
    write(&hooks, service("new", json!({"ports": [{"port": 1}]}))).await.expect("written");
    let claimed = registry.store("networking.k8s.io", "ipaddresses").get("", "10.96.0.7", None).await;
    let claimed = claimed.expect("claimed").tree();
    assert_eq!(claimed["spec"]["parentRef"]["name"], "old");
    assert!(hooks.claims.read_ports().await.expect("ports").0.is_taken(30005));
}
