//! Values that a feature gate forbids or permits, tried with the gate on and off.

use std::sync::Arc;

use serde_json::{Value, json};

use super::gated::Gated;
use super::rules::{KindStrategy, StatusStrategy};
use super::table;
use crate::features::Features;
use crate::resources::Strategy;

fn gates(gate: &'static str, on: bool) -> Arc<Features> {
    Arc::new(Features::default().with(gate, on))
}

fn shown(errors: common::status::FieldErrors) -> Vec<String> {
    errors.0.iter().map(ToString::to_string).collect()
}

/// What a create finds with the gate off; with it on nothing may be found.
struct Kind(&'static str, &'static str);

impl Kind {
    fn strategy(&self, features: Arc<Features>) -> KindStrategy {
        let Self(group, resource) = self;
        KindStrategy::new(table::rules(group, resource)).gated(Gated::new(features, group, resource))
    }

    fn found(&self, features: Arc<Features>, object: &Value, old: Option<&Value>) -> Vec<String> {
        let strategy = self.strategy(features);
        let prepared = |object: &Value| {
            let mut object = object.clone();
            strategy.default(&mut object);
            object
        };
        let mut object = prepared(object);
        match old.map(prepared) {
            Some(old) => {
                strategy.prepare_for_update(&mut object, &old);
                shown(strategy.validate_update(&object, &old))
            }
            None => {
                strategy.prepare_for_create(&mut object);
                shown(strategy.validate(&object))
            }
        }
    }
}

#[test]
fn services_may_begin_with_a_digit() {
    const GATE: &str = "RelaxedServiceNameValidation";
    let services = Kind("", "services");
    let of = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    let with =
        |on: bool, name: &str, old: Option<&Value>| services.found(gates(GATE, on), &of(name), old).len();
    assert_eq!((with(true, "1a", None), with(false, "1a", None)), (0, 1));
    assert_eq!((with(true, "a-1", None), with(false, "a-1", None)), (0, 0));
    assert_eq!(with(false, "1a", Some(&of("1a"))), 0);
    assert!(
        services.found(gates(GATE, false), &of("1a"), None)[0].contains("a DNS-1035 label must consist of")
    );

    let ingresses = Kind("networking.k8s.io", "ingresses");
    let of = |name: &str| {
        let backend = json!({"service": {"name": name, "port": {"number": 80}}});
        let path = json!({"path": "/", "pathType": "Exact", "backend": backend});
        json!({"metadata": {"name": "i"}, "spec": {"rules": [{"http": {"paths": [path]}}]}})
    };
    let with = |on: bool, name: &str, old: Option<&Value>| ingresses.found(gates(GATE, on), &of(name), old);
    assert!(with(true, "1a", None).is_empty());
    let refused = with(false, "1a", None);
    assert!(
        refused[0].starts_with("spec.rules[0].http.paths[0].backend.service.name: Invalid value: \"1a\"")
    );
    assert!(with(false, "2b", Some(&of("1a"))).is_empty());
    assert_eq!(with(false, "2b", Some(&of("a"))).len(), 1);
}

#[test]
fn old_forms_of_addresses_pass_where_they_always_did() {
    const GATE: &str = "StrictIPCIDRValidation";
    let check = |kind: &Kind, object: Value, strict: usize, lenient: usize| {
        let found = |on: bool| kind.found(gates(GATE, on), &object, None).len();
        assert_eq!((found(true), found(false)), (strict, lenient), "{object}");
    };
    let policy = |cidr: &str| {
        json!({"metadata": {"name": "p"}, "spec": {"podSelector": {},
            "ingress": [{"from": [{"ipBlock": {"cidr": cidr}}]}]}})
    };
    let policies = Kind("networking.k8s.io", "networkpolicies");
    check(&policies, policy("10.0.0.0/24"), 0, 0);
    check(&policies, policy("10.0.0.1/24"), 1, 0);
    check(&policies, policy("010.0.0.0/24"), 1, 0);
    check(&policies, policy("10.0.0.0/33"), 1, 1);
    let cidr = |range: &str| json!({"metadata": {"name": "c"}, "spec": {"cidrs": [range]}});
    check(&Kind("networking.k8s.io", "servicecidrs"), cidr("10.0.0.1/24"), 1, 1);
    let slice = |kind: &str, ip: &str| json!({"metadata": {"name": "s"}, "addressType": kind, "endpoints": [{"addresses": [ip]}]});
    let slices = Kind("discovery.k8s.io", "endpointslices");
    check(&slices, slice("IPv4", "010.0.0.1"), 1, 0);
    check(&slices, slice("IPv6", "::ffff:10.0.0.1"), 1, 1);

    let rules = table::rules("", "pods");
    let found = |on: bool| {
        let gated = Gated::new(gates(GATE, on), "", "pods");
        let old = json!({"metadata": {"name": "p"}, "spec": {}, "status": {}});
        let mut new = old.clone();
        new["status"] = json!({"podIP": "010.0.0.1", "podIPs": [{"ip": "010.0.0.1"}]});
        shown(StatusStrategy::new(rules, &[]).gated(gated).validate_update(&new, &old)).len()
    };
    assert_eq!((found(true), found(false)), (1, 0));
}

#[test]
fn selectors_of_devices_say_what_their_gates_let_them() {
    const GATE: &str = "DRAListTypeAttributes";
    let expression = "device.attributes['a.b'].x.includes(1)";
    let selectors = json!([{"cel": {"expression": expression}}]);
    let request = |place: Value| json!({"devices": {"requests": [place]}});
    let exactly = json!({"name": "r", "exactly": {"deviceClassName": "c", "selectors": selectors}});
    let first = json!({"name": "r",
        "firstAvailable": [{"name": "a", "deviceClassName": "c", "selectors": selectors}]});
    let name = json!({"name": "c"});
    for (resource, object, place) in [
        ("deviceclasses", json!({"metadata": name, "spec": {"selectors": selectors}}), "spec.selectors[0]"),
        (
            "resourceclaims",
            json!({"metadata": name, "spec": request(exactly.clone())}),
            "spec.devices.requests[0].exactly.selectors[0]",
        ),
        (
            "resourceclaimtemplates",
            json!({"metadata": name, "spec": {"spec": request(first)}}),
            "spec.spec.devices.requests[0].firstAvailable[0].selectors[0]",
        ),
    ] {
        let kind = Kind("resource.k8s.io", resource);
        assert_eq!(kind.found(gates(GATE, true), &object, None), [""; 0], "{resource}");
        let refused = kind.found(gates(GATE, false), &object, None);
        assert!(
            refused.len() == 1 && refused[0].starts_with(&format!("{place}.cel.expression: Invalid value"))
        );
    }
}

#[test]
fn old_forms_of_addresses_stay_in_services() {
    let services = Kind("", "services");
    let of = |ip: &str, range: &str| {
        json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "clusterIPs": [ip], "clusterIP": ip,
            "externalIPs": [ip], "ports": [{"port": 80}], "loadBalancerSourceRanges": [range]}})
    };
    let (old, new) = (of("010.96.0.7", "10.0.0.1/24"), of("010.96.0.8", "10.0.0.2/24"));
    let found = |object: &Value, old: Option<&Value>| -> Vec<String> {
        let found = services.found(gates("StrictIPCIDRValidation", true), object, old);
        found.into_iter().map(|error| error.split(':').next().unwrap_or_default().to_owned()).collect()
    };
    let all = ["spec.clusterIPs[0]", "spec.externalIPs[0]", "spec.LoadBalancerSourceRanges[0]"];
    assert_eq!(found(&old, None), all);
    assert!(found(&old, Some(&old)).is_empty());
    assert!(found(&new, Some(&old)).iter().filter(|field| all.contains(&field.as_str())).count() >= 3);
    assert!(services.found(gates("StrictIPCIDRValidation", false), &old, None).is_empty());
}

#[test]
fn names_of_files_are_theirs_where_files_are_read() {
    const GATE: &str = "ManifestBasedAdmissionControlConfig";
    let bindings = Kind("admissionregistration.k8s.io", "validatingadmissionpolicybindings");
    let binding = json!({"metadata": {"name": "a.static.k8s.io"},
        "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    let found = |on: bool, old: Option<&Value>| bindings.found(gates(GATE, on), &binding, old);
    assert!(found(false, None).is_empty() && found(true, Some(&binding)).is_empty());
    assert_eq!(
        found(true, None),
        [
            "metadata.name: Invalid value: \"a.static.k8s.io\": names ending with \".static.k8s.io\" are reserved for static manifest-based configurations and cannot be managed via the API"
        ]
    );
}
