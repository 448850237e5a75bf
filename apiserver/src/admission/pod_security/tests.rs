use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::checks::{Pod, evaluate};
use super::policy::{Level, LevelVersion, Version};
use super::{existing_warnings, is_significant, pod_of};
use crate::registry::rules::KindStrategy;
use crate::registry::table;
use crate::registry::tree::field;
use crate::resources::Strategy;

/// Upstream's pods that each level must let pass and must refuse.
const FIXTURES: &str = include_str!("data/fixtures.json");

fn shown(level: Level, version: Version, pod: &Value) -> String {
    let pod = Pod { metadata: field(pod, "metadata"), spec: field(pod, "spec") };
    let found: Vec<String> =
        evaluate(LevelVersion { level, version }, pod).iter().map(|v| v.shown()).collect();
    found.join(", ")
}

#[test]
fn fixtures_decide_as_upstream() {
    let fixtures: BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>> =
        serde_json::from_str(FIXTURES).expect("fixtures");
    let pods_strategy = KindStrategy::new(table::rules("", "pods"));
    let mut seen = 0;
    for (level, by_decision) in &fixtures {
        let level = if level == "baseline" { Level::Baseline } else { Level::Restricted };
        for (decision, pods) in by_decision {
            for (name, pod) in pods {
                let mut pod = pod.clone();
                pods_strategy.default(&mut pod);
                let wrong = shown(level, Version::Latest, &pod);
                assert_eq!(wrong.is_empty(), decision == "pass", "{level:?} {decision} {name}: {wrong}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 148);
}

#[test]
fn a_bare_pod_is_told_everything_in_upstreams_words() {
    let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
    assert_eq!(
        shown(Level::Restricted, Version::Latest, &pod),
        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(shown(Level::Baseline, Version::Latest, &pod), "");
}

#[test]
fn versions_choose_the_rules_of_their_time() {
    let sysctl = json!({"spec": {"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]},
        "containers": []}});
    assert_eq!(shown(Level::Baseline, Version::Minor(31), &sysctl), "forbidden sysctls (net.ipv4.tcp_rmem)");
    assert_eq!(shown(Level::Baseline, Version::Minor(32), &sysctl), "");
    // a stricter control of the restricted level stands in for the baseline's
    let unmasked = json!({"spec": {"hostUsers": false, "containers":
        [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]}});
    assert_eq!(shown(Level::Baseline, Version::Minor(35), &unmasked), "");
    assert!(shown(Level::Restricted, Version::Minor(35), &unmasked).contains("procMount (container \"a\""));
    let added = json!({"spec": {"containers":
        [{"name": "a", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}]}});
    let told = shown(Level::Restricted, Version::Minor(22), &added);
    assert!(told.contains("unrestricted capabilities") && !told.contains("non-default"), "{told}");
    assert!(shown(Level::Restricted, Version::Minor(21), &added).contains("non-default capabilities"));
}

#[test]
fn ports_and_volumes_are_listed() {
    let pod = json!({"spec": {"containers": [
        {"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]}, {"name": "b", "ports": [{"hostPort": 80}]}],
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "nfs": {"path": "/", "server": "s"}}]}});
    assert_eq!(
        shown(Level::Baseline, Version::Latest, &pod),
        "hostPath volumes (volume \"v\"), hostPort (containers \"a\", \"b\" use hostPorts 443, 80)"
    );
    assert!(shown(Level::Restricted, Version::Latest, &pod).contains(
        "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")"
    ));
}

#[test]
fn images_and_new_ephemeral_containers_are_significant() {
    let old = json!({"spec": {"containers": [{"name": "a", "image": "x"}]}});
    let mut labelled = old.clone();
    labelled["metadata"] = json!({"labels": {"a": "b"}});
    assert!(!is_significant(&labelled, &old));
    assert!(is_significant(&json!({"spec": {"containers": [{"name": "a", "image": "y"}]}}), &old));
    let mut debugged = old.clone();
    debugged["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "z"}]);
    assert!(is_significant(&debugged, &old));
    assert!(!is_significant(&debugged, &debugged));
}

#[test]
fn templates_are_found() {
    let cron = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"hostPID": true}}}}}});
    let pod = pod_of("batch", "cronjobs", &cron).expect("a template");
    assert_eq!(pod.spec, &json!({"hostPID": true}));
    assert!(pod_of("", "replicationcontrollers", &json!({"spec": {}})).is_none());
    assert!(pod_of("", "secrets", &json!({})).is_none());
}

#[test]
fn pods_that_are_there_are_counted_by_reason() {
    let enforce = LevelVersion { level: Level::Baseline, version: Version::Latest };
    let pods = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    let found = BTreeMap::from([
        ("hostPort".to_owned(), pods(&["c"])),
        ("privileged".to_owned(), pods(&["b", "a", "d"])),
    ]);
    assert_eq!(
        existing_warnings("n", enforce, (4, 5), &found),
        [
            "new PodSecurity enforce level only checked against the first 4 of 5 existing pods",
            "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 2 other pods): privileged",
            "c: hostPort",
        ]
    );
}
