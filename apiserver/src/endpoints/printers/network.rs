//! Services, endpoints, ingresses and policies.

use serde_json::Value;

use super::{Printer, age, at_most_three, labels, list, map, name, number, selector, text, text_or};

pub(super) const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        kind: "Service",
        columns: &[
            ("Name", "string", 0),
            ("Type", "string", 0),
            ("Cluster-IP", "string", 0),
            ("External-IP", "string", 0),
            ("Port(s)", "string", 0),
            ("Age", "string", 0),
            ("Selector", "string", 1),
        ],
        cells: |o, now| {
            vec![
                name(o),
                text(o, "/spec/type").into(),
                text_or(o, "/spec/clusterIPs/0", "<none>").into(),
                external_address(o).into(),
                ports(o).into(),
                age(o, now),
                labels(map(o, "/spec/selector")).into(),
            ]
        },
    },
    Printer {
        group: "",
        kind: "Endpoints",
        columns: &[("Name", "string", 0), ("Endpoints", "string", 0), ("Age", "string", 0)],
        cells: |o, now| vec![name(o), endpoints(o).into(), age(o, now)],
    },
    Printer {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        columns: &[
            ("Name", "string", 0),
            ("AddressType", "string", 0),
            ("Ports", "string", 0),
            ("Endpoints", "string", 0),
            ("Age", "string", 0),
        ],
        cells: |o, now| {
            let ports: Vec<String> = list(o, "/ports")
                .iter()
                .map(|p| match p.get("port").and_then(Value::as_i64) {
                    Some(port) => port.to_string(),
                    None => text_or(p, "/name", "*").to_owned(),
                })
                .collect();
            let addresses: Vec<String> = list(o, "/endpoints")
                .iter()
                .flat_map(|e| list(e, "/addresses"))
                .map(|a| a.as_str().unwrap_or("").to_owned())
                .collect();
            vec![
                name(o),
                text(o, "/addressType").into(),
                at_most_three(&ports).into(),
                at_most_three(&addresses).into(),
                age(o, now),
            ]
        },
    },
    Printer {
        group: "networking.k8s.io",
        kind: "Ingress",
        columns: &[
            ("Name", "string", 0),
            ("Class", "string", 0),
            ("Hosts", "string", 0),
            ("Address", "string", 0),
            ("Ports", "string", 0),
            ("Age", "string", 0),
        ],
        cells: |o, now| {
            let rules = list(o, "/spec/rules");
            let hosts: Vec<&str> =
                rules.iter().map(|r| text(r, "/host")).filter(|h| !h.is_empty()).take(3).collect();
            let hosts = match (hosts.is_empty(), rules.len()) {
                (true, _) => "*".to_owned(),
                (false, n) if n > 3 => format!("{} + {} more...", hosts.join(","), n - 3),
                (false, _) => hosts.join(","),
            };
            let ports = if list(o, "/spec/tls").is_empty() { "80" } else { "80, 443" };
            vec![
                name(o),
                text_or(o, "/spec/ingressClassName", "<none>").into(),
                hosts.into(),
                balancers(o).join(",").into(),
                ports.into(),
                age(o, now),
            ]
        },
    },
    Printer {
        group: "networking.k8s.io",
        kind: "IngressClass",
        columns: &[
            ("Name", "string", 0),
            ("Controller", "string", 0),
            ("Parameters", "string", 0),
            ("Age", "string", 0),
        ],
        cells: |o, now| {
            let default = map(o, "/metadata/annotations")
                .and_then(|a| a.get("ingressclass.kubernetes.io/is-default-class"))
                .is_some_and(|v| v == "true");
            let shown = format!("{}{}", text(o, "/metadata/name"), if default { " (default)" } else { "" });
            let parameters = match o.pointer("/spec/parameters") {
                Some(p) => format!(
                    "{}/{}",
                    common::status::qualified(text(p, "/apiGroup"), text(p, "/kind")),
                    text(p, "/name")
                ),
                None => "<none>".into(),
            };
            vec![shown.into(), text(o, "/spec/controller").into(), parameters.into(), age(o, now)]
        },
    },
    Printer {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        columns: &[("Name", "string", 0), ("Pod-Selector", "string", 0), ("Age", "string", 0)],
        cells: |o, now| vec![name(o), selector(o, "/spec/podSelector").into(), age(o, now)],
    },
];

fn ports(o: &Value) -> String {
    let all: Vec<String> = list(o, "/spec/ports")
        .iter()
        .map(|p| match (number(p, "/port"), number(p, "/nodePort"), text(p, "/protocol")) {
            (port, 0, protocol) => format!("{port}/{protocol}"),
            (port, node, protocol) => format!("{port}:{node}/{protocol}"),
        })
        .collect();
    if all.is_empty() { "<none>".into() } else { all.join(",") }
}

fn balancers(o: &Value) -> Vec<String> {
    list(o, "/status/loadBalancer/ingress")
        .iter()
        .map(|i| text_or(i, "/ip", text(i, "/hostname")).to_owned())
        .filter(|a| !a.is_empty())
        .collect()
}

fn external_address(o: &Value) -> String {
    let external = list(o, "/spec/externalIPs").iter().filter_map(Value::as_str).map(String::from);
    let (mut all, absent) = match text(o, "/spec/type") {
        "ClusterIP" | "NodePort" => (Vec::new(), "<none>"),
        "LoadBalancer" => (balancers(o), "<pending>"),
        "ExternalName" => return text(o, "/spec/externalName").to_owned(),
        _ => return "<unknown>".into(),
    };
    all.extend(external);
    if all.is_empty() { absent.into() } else { all.join(",") }
}

fn endpoints(o: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(o, "/subsets") {
        let addresses = || list(subset, "/addresses").iter().map(|a| text(a, "/ip"));
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            all.extend(addresses().map(String::from));
        }
        for port in ports.iter().map(|p| number(p, "/port")) {
            all.extend(
                addresses().map(|ip| {
                    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
                }),
            );
        }
    }
    if list(o, "/subsets").is_empty() {
        return "<none>".into();
    }
    if all.is_empty() { String::new() } else { at_most_three(&all) }
}
