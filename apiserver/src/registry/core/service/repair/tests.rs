//! Rounds over a store in memory.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ports::ROUNDS;
use crate::admission::testing::{named, put};
use crate::registry::core::service::claims::{CONTROLLER, FAMILY, MANAGED_BY};
use crate::registry::core::service::hooks::ServiceHooks;
use crate::registry::core::service::tests::Servers;
use crate::resources::Registry;

const ADDRESSES: (&str, &str) = ("networking.k8s.io", "ipaddresses");

fn claim(ip: &str, made: &str, service: &str) -> Value {
    json!({"kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": ip, "uid": ip, "creationTimestamp": made,
            "labels": {MANAGED_BY: CONTROLLER, FAMILY: "IPv4"}},
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": "n", "name": service}}})
}

fn long_ago() -> String {
    "2020-01-01T00:00:00Z".to_owned()
}

fn service(name: &str, ip: &str) -> Value {
    named("Service", name, json!({"spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]}}))
}

async fn one_server() -> (Servers, Arc<ServiceHooks>, Arc<Registry>) {
    let servers = Servers::start(&["10.96.0.0/24"]).await;
    let hooks = servers.server(30000..=30100).await;
    let registry = hooks.registry.clone();
    (servers, hooks, registry)
}

/// What the events say, in order.
async fn told(registry: &Registry) -> Vec<String> {
    let page = registry.store("", "events").list(Default::default()).await.expect("events");
    let mut told: Vec<String> = page
        .items
        .iter()
        .map(|event| {
            let event = event.tree();
            let about = event["involvedObject"]["name"].as_str().unwrap_or_default().to_owned();
            format!("{about} {}", event["reason"].as_str().unwrap_or_default())
        })
        .collect();
    told.sort();
    told
}

#[tokio::test]
async fn what_nobody_has_is_given_back_in_time() {
    let (_servers, hooks, registry) = one_server().await;
    let (old, now) = (long_ago(), Timestamp::now().to_string());
    for object in
        [claim("10.96.0.5", &old, "x"), claim("10.96.0.6", &now, "z"), claim("10.96.0.7", &old, "x")]
    {
        put(&[&registry], ADDRESSES.0, ADDRESSES.1, object).await;
    }
    put(&[&registry], "", "services", service("x", "10.96.0.7")).await;
    let taken_over = named("Service", "y", json!({}));
    let ip = "10.96.0.7".parse().expect("ip");
    assert_eq!(hooks.claim(ip, &taken_over).await.expect("asked"), None);
    let reserve =
        |map: &mut crate::registry::core::service::allocation::PortMap| Ok(((), map.reserve(30007).is_ok()));
    hooks.claims.change_ports(reserve).await.expect("reserved");
    for round in 1..=ROUNDS {
        hooks.repair().await.expect("repaired");
        let (map, _) = hooks.claims.read_ports().await.expect("ports");
        assert_eq!(map.is_taken(30007), round < ROUNDS, "round {round}");
    }
    let store = registry.store(ADDRESSES.0, ADDRESSES.1);
    for (ip, there) in [("10.96.0.5", false), ("10.96.0.6", true), ("10.96.0.7", true)] {
        assert_eq!(store.get("", ip, None).await.is_ok(), there, "{ip}");
    }
    put(&[&registry], ADDRESSES.0, ADDRESSES.1, claim("10.96.0.8", &old, "x")).await;
    let stale = "10.96.0.8".parse().expect("ip");
    assert!(hooks.claim(stale, &taken_over).await.expect("asked").is_some());
    assert_eq!(told(&registry).await, ["10.96.0.5 IPAddressWrongReference"]);
}

#[tokio::test]
async fn what_a_service_has_is_claimed_for_it_and_told() {
    let (_servers, hooks, registry) = one_server().await;
    let mut unlabelled = claim("10.96.0.4", &long_ago(), "unlabelled");
    unlabelled["metadata"]["labels"] = json!({ MANAGED_BY: CONTROLLER });
    let mut gateways = claim("10.96.0.3", &long_ago(), "wrong");
    gateways["spec"]["parentRef"]["resource"] = json!("gateways");
    gateways["spec"]["parentRef"]["group"] = json!("gateway.networking.k8s.io");
    for object in [
        claim("10.96.0.2", &long_ago(), "owner"),
        gateways,
        unlabelled,
        claim("10.96.0.5", &long_ago(), "gone"),
    ] {
        put(&[&registry], ADDRESSES.0, ADDRESSES.1, object).await;
    }
    for (name, ip) in [
        ("missing", "10.96.0.1"),
        ("owner", "10.96.0.2"),
        ("twice", "10.96.0.2"),
        ("wrong", "10.96.0.3"),
        ("unlabelled", "10.96.0.4"),
        ("outside", "10.97.0.1"),
    ] {
        put(&[&registry], "", "services", service(name, ip)).await;
    }
    hooks.repair().await.expect("repaired");
    let owner = async |ip: &str| {
        let store = registry.store(ADDRESSES.0, ADDRESSES.1);
        store.get("", ip, None).await.ok().map(|claim| claim.tree()["spec"]["parentRef"]["name"].to_string())
    };
    for (ip, name) in [
        ("10.96.0.1", Some("missing")),
        ("10.96.0.2", Some("owner")),
        ("10.96.0.3", Some("wrong")),
        ("10.96.0.4", Some("unlabelled")),
        ("10.96.0.5", None),
        ("10.97.0.1", None),
    ] {
        assert_eq!(owner(ip).await, name.map(|name| format!("\"{name}\"")), "{ip}");
    }
    let expected = [
        "10.96.0.5 IPAddressNotAllocated",
        "missing ClusterIPNotAllocated",
        "outside ClusterIPOutOfRange",
        "twice ClusterIPAlreadyAllocated",
        "wrong ClusterIPNotAllocated",
    ];
    assert_eq!(told(&registry).await, expected);
    hooks.repair().await.expect("repaired");
    assert_eq!(told(&registry).await, expected, "and not again");
}

#[tokio::test]
async fn an_address_that_somebody_removes_is_claimed_again() {
    let (_servers, hooks, registry) = one_server().await;
    put(&[&registry], "", "services", service("x", "10.96.0.7")).await;
    hooks.repair().await.expect("repaired");
    let store = registry.store(ADDRESSES.0, ADDRESSES.1);
    let claim = store.get("", "10.96.0.7", None).await.expect("claimed");
    let uid = claim.uid.clone();
    let claimed = crate::registry::core::service::claims::Claimed { name: claim.name.clone(), uid };
    hooks.claims.release(&claimed).await.expect("removed");
    while hooks.claims.is_known("10.96.0.7".parse().expect("ip")) {
        tokio::task::yield_now().await;
    }
    hooks.look_at(crate::cacher::WatchEvent::Deleted(claim.into())).await;
    let again = store.get("", "10.96.0.7", None).await.expect("claimed again");
    assert_ne!(again.uid, claimed.uid);
}
