//! What is rendered for typical services, and what changes cost.

use serde_json::json;

use super::table::Existing;
use super::*;
use crate::model::{Categorized, Endpoint, Key, Place, Service, categorize};

fn service(spec: serde_json::Value) -> Service {
    let view = json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec});
    Service::new(serde_json::from_value(view).expect("service"))
}

fn endpoint(ip: &str, node: &str) -> Endpoint {
    Endpoint {
        ip: ip.parse().expect("ip"),
        port: 8080,
        ready: true,
        serving: true,
        terminating: false,
        node: Some(node.into()),
        hostname: None,
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    }
}

fn config() -> BaseConfig {
    BaseConfig {
        local: LocalTraffic::Cidrs(vec!["10.1.0.0/16".parse().expect("cidr")]),
        node_ports: NodePortAddresses::These(vec!["192.0.2.1".parse().expect("ip")]),
        masquerade_all: false,
        node_ips: vec!["192.0.2.1".parse().expect("ip")],
    }
}

fn rendered(service: &Service, endpoints: &[Endpoint]) -> Fragment {
    let place = Place { node: "here".into(), zone: String::new() };
    let of: Vec<Categorized> = service
        .ports
        .iter()
        .map(|p| {
            let external = service.is_external(p, Family::V4);
            categorize(
                endpoints,
                &place,
                service.uses_cluster_endpoints(external),
                service.uses_local_endpoints(external),
            )
        })
        .collect();
    fragment(&FragmentInput { family: Family::V4, service, base: &config(), endpoints: &of, node: "here" })
}

/// One line per rule and element.
fn text(fragment: &Fragment) -> String {
    let mut out = String::new();
    for (chain, rules) in &fragment.chains {
        for rule in rules {
            out.push_str(&format!("{chain}: {rule}\n"));
        }
    }
    for ((set, key), value) in &fragment.elements {
        out.push_str(&format!("@{} {key} {value}\n", set.name()));
    }
    for (set, seconds) in &fragment.affinity {
        out.push_str(&format!("{set} {seconds}s\n"));
    }
    out
}

fn check(spec: serde_json::Value, endpoints: &[Endpoint], expected: &str) {
    let lines: Vec<&str> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(text(&rendered(&service(spec), endpoints)).lines().map(str::trim).collect::<Vec<_>>(), lines);
}

#[test]
fn a_cluster_ip_balances_over_endpoints() {
    check(
        json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]}),
        &[endpoint("10.1.0.1", "here"), endpoint("10.1.1.1", "there")],
        "service-Y6QD5CCT-ns/web/tcp/http: meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.1.0.1 . 8080, 1 : 10.1.1.1 . 8080 }
         @cluster-ips 10.96.0.5
         @service-ips 10.96.0.5 . tcp . 80 goto service-Y6QD5CCT-ns/web/tcp/http
         @hairpin-connections 10.1.0.1 . 10.1.0.1 . tcp . 8080",
    );
}

#[test]
fn without_endpoints_traffic_is_rejected() {
    check(
        json!({"type": "NodePort", "clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}),
        &[],
        "@cluster-ips 10.96.0.5
         @no-endpoint-services 10.96.0.5 . tcp . 80 goto reject-chain
         @no-endpoint-nodeports tcp . 30080 goto reject-chain",
    );
}

#[test]
fn the_local_policy_keeps_sources_and_drops_without_local_endpoints() {
    check(
        json!({"type": "NodePort", "clusterIP": "10.96.0.5", "externalTrafficPolicy": "Local",
               "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}),
        &[endpoint("10.1.1.1", "there")],
        "external-Y6QD5CCT-ns/web/tcp/http: ip saddr 10.1.0.0/16 goto service-Y6QD5CCT-ns/web/tcp/http comment \"short-circuit pod traffic\"
         external-Y6QD5CCT-ns/web/tcp/http: fib saddr type local mark set mark or 0x00004000 comment \"masquerade local traffic\"
         external-Y6QD5CCT-ns/web/tcp/http: fib saddr type local goto service-Y6QD5CCT-ns/web/tcp/http comment \"short-circuit local traffic\"
         service-Y6QD5CCT-ns/web/tcp/http: meta l4proto tcp dnat ip addr . port to numgen random mod 1 map { 0 : 10.1.1.1 . 8080 }
         @cluster-ips 10.96.0.5
         @service-ips 10.96.0.5 . tcp . 80 goto service-Y6QD5CCT-ns/web/tcp/http
         @service-nodeports tcp . 30080 goto external-Y6QD5CCT-ns/web/tcp/http
         @no-endpoint-nodeports tcp . 30080 drop",
    );
}

#[test]
fn affinity_remembers_clients_by_endpoint() {
    let out = text(&rendered(
        &service(json!({"clusterIP": "10.96.0.5", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}, "ports": [{"name": "http", "port": 80}]})),
        &[endpoint("10.1.0.1", "there")],
    ));
    assert!(out.contains("update @affinity-"), "{out}");
    assert!(out.contains("dnat to 10.1.0.1:8080"), "{out}");
    assert!(out.contains(" 60s"), "{out}");
}

#[test]
fn headless_external_name_and_foreign_services_have_no_rules() {
    for spec in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "a.b", "ports": [{"port": 80}]}),
    ] {
        check(spec, &[endpoint("10.1.0.1", "here")], "");
    }
}

#[test]
fn one_endpoint_change_costs_one_chain() {
    let web = service(json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]}));
    let key = Key::new("ns", "web");
    let mut table = Table::new(Family::V4);
    table.replace(vec![(key.clone(), rendered(&web, &[endpoint("10.1.1.1", "there")]))]);
    let commands = table.replace(vec![(key.clone(), rendered(&web, &[endpoint("10.1.1.2", "there")]))]);
    assert_eq!(
        commands,
        [
            "add chain ip kube-proxy service-Y6QD5CCT-ns/web/tcp/http",
            "flush chain ip kube-proxy service-Y6QD5CCT-ns/web/tcp/http",
            "add rule ip kube-proxy service-Y6QD5CCT-ns/web/tcp/http meta l4proto tcp dnat ip addr . port to numgen random mod 1 map { 0 : 10.1.1.2 . 8080 }",
        ]
    );
    assert!(table.replace(vec![(key, rendered(&web, &[endpoint("10.1.1.2", "there")]))]).is_empty());
}

#[test]
fn a_removed_service_leaves_an_empty_chain_for_later() {
    let web = service(json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]}));
    let key = Key::new("ns", "web");
    let mut table = Table::new(Family::V4);
    table.replace(vec![(key.clone(), rendered(&web, &[endpoint("10.1.1.1", "there")]))]);
    let commands = table.replace(vec![(key, Fragment::default())]);
    assert_eq!(
        commands,
        [
            "delete element ip kube-proxy cluster-ips { 10.96.0.5 }",
            "delete element ip kube-proxy service-ips { 10.96.0.5 . tcp . 80 : goto service-Y6QD5CCT-ns/web/tcp/http }",
            "flush chain ip kube-proxy service-Y6QD5CCT-ns/web/tcp/http",
        ]
    );
    assert_eq!(table.take_stale(), ["delete chain ip kube-proxy service-Y6QD5CCT-ns/web/tcp/http"]);
    assert!(table.is_empty());
}

#[test]
fn an_address_claimed_twice_goes_to_the_next_when_freed() {
    let spec = json!({"clusterIP": "10.96.0.5", "externalIPs": ["198.51.100.1"], "ports": [{"name": "http", "port": 80}]});
    let mut other = service(spec.clone());
    other.key = Key::new("ns", "zweb");
    let ends = [endpoint("10.1.1.1", "there")];
    let mut table = Table::new(Family::V4);
    table.replace(vec![
        (Key::new("ns", "web"), rendered(&service(spec), &ends)),
        (other.key.clone(), rendered(&other, &ends)),
    ]);
    let commands = table.replace(vec![(Key::new("ns", "web"), Fragment::default())]).join("\n");
    assert!(commands.contains("add element ip kube-proxy service-ips"), "{commands}");
    assert!(!commands.contains("delete element ip kube-proxy cluster-ips"), "{commands}");
}

#[test]
fn rebuilding_retires_unknown_chains_and_affinity_sets() {
    let existing = Existing {
        chains: vec!["services".into(), "service-OLD".into()],
        sets: vec!["cluster-ips".into(), "affinity-OLD".into()],
    };
    assert_eq!(
        Table::new(Family::V4).rebuild(&existing),
        ["flush chain ip kube-proxy service-OLD", "delete set ip kube-proxy affinity-OLD"]
    );
}
