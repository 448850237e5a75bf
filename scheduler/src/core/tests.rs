//! Whole placements without a server or a clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::config::KubeSchedulerConfiguration;
use crate::model::{Node, PodInfo};
use crate::testing::{node, pod, pod_set};

struct World {
    core: Core,
    now: Instant,
}

impl World {
    fn new(nodes: &[Arc<Node>]) -> Self {
        let config = KubeSchedulerConfiguration::defaulted();
        let profiles: HashMap<_, _> = config
            .profiles
            .iter()
            .map(|p| (p.scheduler_name.clone(), Profile::new(p).expect("profile")))
            .collect();
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).expect("metrics"));
        let settings = Settings {
            percentage_of_nodes_to_score: 0,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
        };
        let mut world =
            Self { core: Core::new(Profiles(profiles), settings, metrics, 7), now: Instant::now() };
        for node in nodes {
            world.take(Input::Node(Watched::Applied(node.clone())));
        }
        for input in [
            Input::Node(Watched::ListDone),
            Input::Pod(Watched::ListDone),
            Input::Namespace(Watched::ListDone),
            Input::Budget(Watched::ListDone),
        ] {
            world.take(input);
        }
        for kind in PodSetKind::ALL {
            assert!(!world.core.synced(), "{kind:?} is missing");
            world.take(Input::PodSet(kind, Watched::ListDone));
        }
        world
    }

    fn take(&mut self, input: Input) -> Vec<Effect> {
        self.core.take(input, self.now)
    }

    fn pod(&mut self, pod: Arc<PodInfo>) {
        self.take(Input::Pod(Watched::Applied(pod)));
    }

    fn step(&mut self) -> Vec<Effect> {
        self.core.schedule_one(self.now).unwrap_or_default()
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

fn bound_to(effects: &[Effect]) -> Option<(&str, &str)> {
    effects.iter().find_map(|e| match e {
        Effect::Bind(b) => Some((b.queued.pod.name.as_str(), b.node.as_str())),
        _ => None,
    })
}

fn event(effects: &[Effect]) -> String {
    effects
        .iter()
        .find_map(|e| match e {
            Effect::Event(note) => Some(format!("{}: {}", note.reason, note.text)),
            _ => None,
        })
        .unwrap_or_default()
}

/// One node, one pod: what is said when it does not fit.
fn refusal(node: Arc<Node>, pod: Arc<PodInfo>) -> String {
    let mut world = World::new(&[node]);
    world.pod(pod);
    let effects = world.step();
    match bound_to(&effects) {
        Some((_, node)) => format!("bound to {node}"),
        None => event(&effects),
    }
}

#[test]
fn refusals_are_worded_as_upstream() {
    const NO_PREEMPTION: &str =
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    const NO_VICTIMS: &str =
        "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    let affinity = |expression| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [expression]}}})
    };
    for (node, pod, why, preemption) in [
        (node("n").taint("a", "NoSchedule"), pod("p"), "1 node(s) had untolerated taint(s)", NO_PREEMPTION),
        (
            node("n").set("/spec/unschedulable", json!(true)),
            pod("p"),
            "1 node(s) were unschedulable",
            NO_PREEMPTION,
        ),
        (node("n"), pod("p").cpu("5"), "1 Insufficient cpu", NO_PREEMPTION),
        (
            node("n"),
            pod("p").cpu("5").memory("9Gi"),
            "1 Insufficient cpu, 1 Insufficient memory",
            NO_PREEMPTION,
        ),
        (
            node("n"),
            pod("p").request("example.com/gpu", "1"),
            "1 Insufficient example.com/gpu",
            NO_PREEMPTION,
        ),
        (node("n").pods("0"), pod("p"), "1 Too many pods", NO_VICTIMS),
        (
            node("n"),
            pod("p").set("/spec/nodeSelector", json!({"disk": "ssd"})),
            "1 node(s) didn't match Pod's node affinity/selector",
            NO_PREEMPTION,
        ),
        (
            node("n"),
            pod("p").set(
                "/spec/affinity",
                affinity(
                    json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["other"]}]}),
                ),
            ),
            "1 node(s) didn't satisfy plugin(s) [NodeAffinity]",
            NO_PREEMPTION,
        ),
        (
            node("n"),
            pod("p").set(
                "/spec/affinity",
                affinity(json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]})),
            ),
            "1 node(s) didn't match Pod's node affinity/selector",
            NO_PREEMPTION,
        ),
    ] {
        assert_eq!(
            refusal(node.build(), pod.build()),
            format!("FailedScheduling: 0/1 nodes are available: {why}. {preemption}")
        );
    }
}

#[test]
fn without_nodes_pods_wait_and_are_retried() {
    let mut world = World::new(&[]);
    world.pod(pod("p").build());
    assert_eq!(event(&world.step()), "FailedScheduling: no nodes available to schedule pods");
    world.take(Input::Node(Watched::Applied(node("n").build())));
    assert!(world.step().is_empty(), "backs off");
    world.pass(2);
    assert_eq!(bound_to(&world.step()), Some(("p", "n")));
}

#[test]
fn tolerations_and_matches_are_honoured() {
    let taint = node("n").taint("a", "NoSchedule").label("disk", "ssd");
    let pod = pod("p")
        .tolerate(json!({"key": "a", "operator": "Exists"}))
        .set("/spec/nodeSelector", json!({"disk": "ssd"}));
    assert_eq!(refusal(taint.build(), pod.build()), "bound to n");
}

#[test]
fn the_least_allocated_node_wins_and_assumed_pods_count() {
    let mut world = World::new(&[node("a").build(), node("b").build()]);
    for name in ["1", "2", "3", "4"] {
        world.pod(pod(name).cpu("1").memory("1Gi").build());
    }
    let mut places: Vec<String> =
        (0..4).filter_map(|_| bound_to(&world.step()).map(|(_, node)| node.to_owned())).collect();
    places.sort();
    assert_eq!(places, ["a", "a", "b", "b"]);
}

#[test]
fn the_highest_priority_goes_first() {
    let mut world = World::new(&[node("n").build()]);
    world.pod(pod("low").build());
    world.pod(pod("high").priority(10).build());
    assert_eq!(bound_to(&world.step()), Some(("high", "n")));
}

#[test]
fn host_ports_are_exclusive_until_freed() {
    let mut world = World::new(&[node("n").build()]);
    world.pod(pod("a").host_port(80).on("n").build());
    world.pod(pod("b").host_port(80).build());
    let effects = world.step();
    assert!(event(&effects).contains("1 node(s) didn't have free ports for the requested pod ports"));
    world.take(Input::Pod(Watched::Deleted("a".into())));
    world.pass(1);
    assert_eq!(bound_to(&world.step()), Some(("b", "n")));
}

#[test]
fn only_changes_that_matter_bring_a_pod_back() {
    let mut world = World::new(&[node("n").cpu("1").build()]);
    world.pod(pod("p").cpu("2").build());
    world.step();
    world.pass(60);
    world.take(Input::Node(Watched::Applied(node("n").cpu("1").label("x", "y").build())));
    assert_eq!(world.core.pending().unschedulable, 1, "a label does not make room");
    world.take(Input::Node(Watched::Applied(node("n").cpu("4").build())));
    assert_eq!(bound_to(&world.step()), Some(("p", "n")));
}

#[test]
fn leftovers_are_tried_again_after_five_minutes() {
    let mut world = World::new(&[node("n").cpu("1").build()]);
    world.pod(pod("p").cpu("2").build());
    assert!(!world.step().is_empty());
    world.pass(240);
    assert!(world.step().is_empty());
    world.pass(100);
    assert!(event(&world.step()).starts_with("FailedScheduling"));
}

#[test]
fn gated_pods_stay_out_until_the_gate_is_gone() {
    let mut world = World::new(&[node("n").build()]);
    world.pod(pod("p").set("/spec/schedulingGates", json!([{"name": "g"}])).build());
    assert!(world.step().is_empty());
    assert_eq!(world.core.pending().gated, 1);
    world.pod(pod("p").version("2").build());
    assert_eq!(bound_to(&world.step()), Some(("p", "n")));
}

#[test]
fn a_failed_binding_gives_the_room_back_and_is_retried() {
    let mut world = World::new(&[node("n").cpu("1").build()]);
    world.pod(pod("p").cpu("1").build());
    let effects = world.step();
    let Some(Effect::Bind(binding)) = effects.into_iter().next() else { panic!("not bound") };
    let effects =
        world.take(Input::Bound { binding, result: Err("running Bind plugin \"DefaultBinder\": no".into()) });
    assert_eq!(event(&effects), "FailedScheduling: running Bind plugin \"DefaultBinder\": no");
    let reason = effects.iter().find_map(|e| match e {
        Effect::Status { condition: Some(c), .. } => Some(c.reason),
        _ => None,
    });
    assert_eq!(reason, Some("SchedulerError"));
    assert!(world.step().is_empty(), "backs off");
    world.pass(1);
    assert_eq!(bound_to(&world.step()), Some(("p", "n")));
}

#[test]
fn a_successful_binding_is_told() {
    let mut world = World::new(&[node("n").build()]);
    world.pod(pod("p").build());
    let Some(Effect::Bind(binding)) = world.step().into_iter().next() else { panic!("not bound") };
    let effects = world.take(Input::Bound { binding, result: Ok(()) });
    assert_eq!(event(&effects), "Scheduled: Successfully assigned default/p to n");
}

#[test]
fn the_same_condition_is_not_written_twice() {
    let mut world = World::new(&[node("n").cpu("1").build()]);
    world.pod(pod("p").cpu("2").build());
    let effects = world.step();
    let Some(Effect::Status { condition: Some(condition), .. }) =
        effects.iter().find(|e| matches!(e, Effect::Status { .. })).cloned()
    else {
        panic!("no condition")
    };
    let seen = json!([{"type": "PodScheduled", "status": "False", "reason": condition.reason, "message": condition.message}]);
    world.pod(pod("p").cpu("2").version("2").set("/status/conditions", seen).build());
    world.pass(340);
    let effects = world.step();
    assert!(event(&effects).starts_with("FailedScheduling"));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Status { .. })));
}

#[test]
fn preemption_takes_the_fewest_and_least_important() {
    let mut world = World::new(&[node("a").cpu("2").build(), node("b").cpu("2").build()]);
    world.pod(pod("a1").cpu("1").priority(5).on("a").build());
    world.pod(pod("a2").cpu("1").priority(1).on("a").build());
    world.pod(pod("b1").cpu("2").priority(3).on("b").build());
    world.pod(pod("vip").cpu("1").priority(100).build());
    let effects = world.step();
    let victims: Vec<&str> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::Evict { victim, .. } => Some(victim.name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(victims, ["a2"]);
    let nominated = effects.iter().find_map(|e| match e {
        Effect::Status { nominated, .. } => nominated.clone(),
        _ => None,
    });
    assert_eq!(nominated.as_deref(), Some("a"));
    // Another pod does not take the room that was made.
    world.take(Input::Pod(Watched::Deleted("a2".into())));
    world.pod(pod("thief").cpu("1").priority(2).build());
    world.pass(2);
    assert_eq!(bound_to(&world.step()), Some(("vip", "a")));
    assert_eq!(bound_to(&world.step()), None);
}

#[test]
fn pods_that_never_preempt_say_so() {
    let mut world = World::new(&[node("n").cpu("1").build()]);
    world.pod(pod("low").cpu("1").on("n").build());
    world.pod(pod("p").cpu("1").priority(9).set("/spec/preemptionPolicy", json!("Never")).build());
    assert_eq!(
        event(&world.step()),
        "FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
    );
}

#[test]
fn a_new_list_removes_what_it_does_not_name() {
    let mut world = World::new(&[node("n").cpu("1").build(), node("gone").cpu("1").build()]);
    world.pod(pod("old").cpu("1").on("n").build());
    for input in [
        Input::Pod(Watched::Restarted),
        Input::Pod(Watched::Listed(pod("new").cpu("1").build())),
        Input::Pod(Watched::ListDone),
        Input::Node(Watched::Restarted),
        Input::Node(Watched::Listed(node("n").cpu("1").build())),
        Input::Node(Watched::ListDone),
    ] {
        world.take(input);
    }
    assert_eq!(bound_to(&world.step()), Some(("new", "n")));
}

#[test]
fn pods_of_other_schedulers_are_left_alone() {
    let mut world = World::new(&[node("n").build()]);
    world.pod(pod("p").set("/spec/schedulerName", json!("other")).build());
    assert!(world.step().is_empty());
}

#[test]
fn spread_constraints_keep_the_skew() {
    let zone = "zone";
    let mut world = World::new(&[node("a").label(zone, "a").build(), node("b").label(zone, "b").build()]);
    let constraint = json!([{"maxSkew": 1, "topologyKey": zone, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let web =
        |name: &str| pod(name).label("app", "web").set("/spec/topologySpreadConstraints", constraint.clone());
    world.pod(web("1").on("a").build());
    world.pod(web("2").build());
    assert_eq!(bound_to(&world.step()), Some(("2", "b")));
    world.pod(web("3").on("a").build());
    world.take(Input::Node(Watched::Deleted("b".into())));
    world.take(Input::Node(Watched::Applied(node("b").label(zone, "b").cpu("0").build())));
    world.pod(web("4").cpu("1").build());
    let effects = world.step();
    assert_eq!(
        event(&effects),
        "FailedScheduling: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    );
}

#[test]
fn pods_keep_away_from_those_they_repel() {
    let mut world = World::new(&[node("a").build(), node("b").build()]);
    let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}]}});
    let db = |name: &str| pod(name).label("app", "db").set("/spec/affinity", anti.clone());
    world.pod(db("1").on("a").build());
    world.pod(db("2").build());
    assert_eq!(bound_to(&world.step()), Some(("2", "b")));
    world.pod(db("3").build());
    assert!(event(&world.step()).contains("2 node(s) didn't match pod anti-affinity rules"));
    world.pod(pod("4").label("app", "db").build());
    assert!(event(&world.step()).contains("2 node(s) didn't satisfy existing pods anti-affinity rules"));
}

#[test]
fn pods_go_near_those_they_like_and_the_first_of_them_anywhere() {
    let mut world = World::new(&[node("a").build(), node("b").build()]);
    let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    let web = |name: &str| pod(name).label("app", "web").set("/spec/affinity", near.clone());
    world.pod(web("1").build());
    let effects = world.step();
    let (_, first) = bound_to(&effects).expect("the first goes anywhere");
    let first = first.to_owned();
    world.pod(web("2").build());
    assert_eq!(bound_to(&world.step()), Some(("2", first.as_str())));
    world.pod(
        pod("3")
            .set(
                "/spec/affinity",
                json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "none"}}}]}}),
            )
            .build(),
    );
    assert!(event(&world.step()).contains("2 node(s) didn't match pod affinity rules"));
}

/// How many of four replicas of `web` land on the small node: the big one has much more room.
fn on_the_small_node(sets: &[(PodSetKind, &str)]) -> usize {
    let mut world = World::new(&[node("big").cpu("64").build(), node("small").cpu("2").build()]);
    for (kind, name) in sets {
        world.take(Input::PodSet(*kind, Watched::Applied(pod_set(name, &[("app", "web")]))));
    }
    let mut place = |name: &str| {
        let replica = pod(name).label("app", "web").cpu("200m").owner("apps/v1", "ReplicaSet", "web");
        world.pod(replica.build());
        bound_to(&world.step()).map(|(_, node)| node.to_owned())
    };
    ["a", "b", "c", "d"].into_iter().filter(|name| place(name).as_deref() == Some("small")).count()
}

#[test]
fn pods_of_one_owner_or_service_spread_by_default() {
    assert_eq!(on_the_small_node(&[(PodSetKind::ReplicaSet, "web")]), 2);
    assert_eq!(on_the_small_node(&[(PodSetKind::Service, "any")]), 2);
    assert_eq!(on_the_small_node(&[(PodSetKind::ReplicaSet, "other")]), 0);
    assert_eq!(on_the_small_node(&[]), 0);
}
