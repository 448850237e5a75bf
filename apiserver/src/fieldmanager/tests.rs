//! Ownership by example, on built-in kinds.

mod model;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::registry::rules::{KindStrategy, Rules};
use crate::resources::schema::Schema;
use crate::resources::{CustomHandlers, Enablement, Strategy, Table};

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-01T00:00:09Z";

struct Kinds {
    table: Table,
    schema: Arc<Schema>,
}

impl Kinds {
    fn new() -> Self {
        let strategy = |_: &str, _: &str| -> Arc<dyn Strategy> { Arc::new(KindStrategy::new(Rules::PLAIN)) };
        let table = Table::new(&strategy, CustomHandlers::new(), &Enablement::default());
        Self { table, schema: Arc::new(Schema::builtin()) }
    }

    fn version(&self, api_version: &str, resource: &str) -> Option<Version> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let def = self.table.get(group, version, resource)?;
        Some(Version::new(def.clone(), self.schema.clone()))
    }

    fn with<R>(
        &self,
        (api_version, resource, subresource): (&str, &str, &str),
        reset: FieldPaths,
        work: impl FnOnce(&FieldManager<'_>) -> R,
    ) -> R {
        let versions = |wanted: &str| self.version(wanted, resource);
        let mine = self.version(api_version, resource).expect("served");
        work(&FieldManager::new(mine, &versions, subresource, reset))
    }
}

fn deployments<R>(work: impl FnOnce(&FieldManager<'_>) -> R) -> R {
    Kinds::new().with(("apps/v1", "deployments", ""), &[&["status"]], work)
}

fn services<R>(work: impl FnOnce(&FieldManager<'_>) -> R) -> R {
    Kinds::new().with(("v1", "services", ""), &[&["status"]], work)
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "nginx", "namespace": "default", "uid": "1", "labels": {"app": "nginx"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "nginx"}}, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "nginx"}}, "spec": {
                "containers": [{"name": "nginx", "image": "nginx", "imagePullPolicy": "Always"}],
                "dnsPolicy": "ClusterFirst", "securityContext": {}}}}})
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "nginx"}, "spec": spec})
}

fn fields_of<'o>(object: &'o Value, manager: &str) -> &'o Value {
    let entries = object["metadata"]["managedFields"].as_array().expect("entries");
    entries.iter().find(|e| e["manager"] == manager).map_or(&Value::Null, |e| &e["fieldsV1"])
}

fn applied(result: Result<Applied, ApplyError>) -> Value {
    match result.expect("applies") {
        Applied::New(object) => object,
        Applied::Unchanged(_) => panic!("something changes"),
    }
}

#[test]
fn a_create_owns_what_upstream_lists() {
    let mut object = deployment();
    deployments(|f| f.update(None, &mut object, "kubectl-create", EARLY));
    let entries = object["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(entries.len(), 1);
    assert_eq!(
        entries[0],
        json!({"manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": EARLY,
            "fieldsType": "FieldsV1", "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}},
                    "f:type": {}},
                "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {
                    "f:containers": {"k:{\"name\":\"nginx\"}": {".": {}, "f:image": {}, "f:imagePullPolicy": {},
                        "f:name": {}, "f:resources": {}}},
                    "f:dnsPolicy": {}, "f:securityContext": {}}}}}})
    );
}

#[test]
fn an_update_takes_over_what_it_changes() {
    let mut live = deployment();
    deployments(|f| f.update(None, &mut live, "a", EARLY));
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(3);
    new["metadata"]["labels"]["b"] = json!("x");
    new["spec"]["template"]["spec"].as_object_mut().expect("a map").remove("dnsPolicy");
    new["status"] = json!({"replicas": 9});
    deployments(|f| f.update(Some(&live), &mut new, "b", LATE));
    assert_eq!(
        fields_of(&new, "b"),
        &json!({"f:metadata": {"f:labels": {"f:b": {}}}, "f:spec": {"f:replicas": {}}})
    );
    assert!(fields_of(&new, "a").pointer("/f:spec/f:replicas").is_none());
    assert!(fields_of(&new, "a").pointer("/f:spec/f:template/f:spec/f:dnsPolicy").is_none());
    assert!(fields_of(&new, "a").pointer("/f:spec/f:selector").is_some());

    let entries = new["metadata"]["managedFields"].clone();
    let mut same = new.clone();
    deployments(|f| f.update(Some(&new), &mut same, "c", LATE));
    assert_eq!(same["metadata"]["managedFields"], entries, "nothing changed");
}

#[test]
fn a_client_may_drop_or_break_the_entries() {
    let mut live = deployment();
    deployments(|f| f.update(None, &mut live, "a", EARLY));
    let update = |said: Value| {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = said;
        new["spec"]["replicas"] = json!(2);
        deployments(|f| f.update(Some(&live), &mut new, "b", LATE));
        new
    };
    for reset in [json!([]), json!([{}])] {
        assert!(update(reset)["metadata"].get("managedFields").is_none());
    }
    let broken = update(json!([{"manager": "x", "operation": "Nonsense"}]));
    assert!(fields_of(&broken, "a").is_object());
    assert!(fields_of(&broken, "b").is_object());
    assert!(fields_of(&update(Value::Null), "a").is_object());
    let moved = update(json!([{"manager": "z", "operation": "Update", "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}, "f:selector": {}}}}]));
    assert_eq!(fields_of(&moved, "z"), &json!({"f:spec": {"f:selector": {}}}));
}

#[test]
fn applying_twice_removes_what_is_not_mentioned_any_more() {
    let spec = json!({"replicas": 1, "paused": true, "template": {"spec": {"containers":
        [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}}});
    let live = deployments(|f| applied(f.apply(None, &config(spec), "x", false, EARLY)));
    let spec = json!({"replicas": 2, "template": {"spec": {"containers": [{"name": "b", "image": "2"}]}}});
    let new = deployments(|f| applied(f.apply(Some(&live), &config(spec.clone()), "x", false, LATE)));
    assert_eq!(new["spec"], spec);
    assert_eq!(
        fields_of(&new, "x"),
        &json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers":
            {"k:{\"name\":\"b\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}})
    );
    let again = deployments(|f| f.apply(Some(&new), &config(spec), "x", false, LATE)).expect("applies");
    assert!(matches!(again, Applied::Unchanged(object) if object == new));
}

#[test]
fn what_another_owns_stays() {
    let one = config(json!({"replicas": 1, "paused": true}));
    let live = deployments(|f| applied(f.apply(None, &one, "x", false, EARLY)));
    let other = config(json!({"paused": true, "minReadySeconds": 5}));
    let live = deployments(|f| applied(f.apply(Some(&live), &other, "y", false, EARLY)));
    let nothing = config(json!({}));
    let live = deployments(|f| applied(f.apply(Some(&live), &nothing, "x", false, EARLY)));
    assert_eq!(live["spec"], json!({"paused": true, "minReadySeconds": 5}));
    assert_eq!(fields_of(&live, "x"), &json!({"f:spec": {}}));
    let live = deployments(|f| applied(f.apply(Some(&live), &nothing, "y", false, EARLY)));
    assert!(live["spec"].get("paused").is_none());
}

#[test]
fn conflicts_are_worded_as_upstream_does() {
    let mut live = deployment();
    deployments(|f| f.update(None, &mut live, "kubectl-create", EARLY));
    let patch = config(json!({"replicas": 5}));
    let error = deployments(|f| f.apply(Some(&live), &patch, "x", false, LATE)).err().expect("conflict");
    let status = common::status::Status::from(error);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        status.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    let causes = status.details.expect("details").causes;
    assert_eq!(causes[0].reason, "FieldManagerConflict");
    assert_eq!(causes[0].message, "conflict with \"kubectl-create\" using apps/v1");
    assert_eq!(causes[0].field, ".spec.replicas");

    let patch = config(
        json!({"replicas": 5, "template": {"spec": {"containers": [{"name": "nginx", "image": "2"}]}}}),
    );
    let error = deployments(|f| f.apply(Some(&live), &patch, "x", false, LATE)).err().expect("conflicts");
    assert_eq!(
        common::status::Status::from(error).message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-create\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.containers[name=\"nginx\"].image"
    );
    let forced = deployments(|f| applied(f.apply(Some(&live), &patch, "x", true, LATE)));
    assert_eq!(forced["spec"]["replicas"], 5);
    assert!(fields_of(&forced, "kubectl-create").pointer("/f:spec/f:replicas").is_none());
    assert!(fields_of(&forced, "x").pointer("/f:spec/f:replicas").is_some());
    // A manager that only agrees takes nothing from anybody.
    let agreeing = config(json!({"replicas": 1}));
    assert!(deployments(|f| f.apply(Some(&live), &agreeing, "y", false, LATE)).is_ok());
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let wrong = |patch: Value| {
        let error = deployments(|f| f.apply(None, &patch, "x", false, LATE)).err().expect("refused");
        let status = common::status::Status::from(error);
        (status.code, status.message)
    };
    let prefix = "failed to create typed patch object (/nginx; apps/v1, Kind=Deployment): ";
    for (spec, why) in [
        (json!({"foo": 1}), ".spec.foo: field not declared in schema"),
        (json!({"replicas": "x"}), ".spec.replicas: expected numeric (int or float), got string"),
        (
            json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
    ] {
        assert_eq!(wrong(config(spec)), (500, format!("{prefix}{why}")));
    }
    let mut patch = config(json!({}));
    patch["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(wrong(patch), (400, "metadata.managedFields must be nil".to_owned()));
    let other = json!({"apiVersion": "v1", "kind": "Pod"});
    assert_eq!(wrong(other), (400, "invalid object type: /v1, Kind=Pod".to_owned()));
}

#[test]
fn keyed_lists_take_defaults_into_their_keys() {
    let service = |ports: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
        "spec": {"ports": ports}})
    };
    let one = service(json!([{"port": 80}, {"port": 53, "protocol": "UDP"}]));
    let live = services(|f| applied(f.apply(None, &one, "x", false, EARLY)));
    let ports = fields_of(&live, "x")["f:spec"]["f:ports"].clone();
    assert_eq!(
        ports,
        json!({"k:{\"port\":53,\"protocol\":\"UDP\"}": {".": {}, "f:port": {}, "f:protocol": {}},
            "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}})
    );
    let two = service(json!([{"port": 443}]));
    let live = services(|f| applied(f.apply(Some(&live), &two, "y", false, EARLY)));
    let numbers: Vec<&Value> =
        live["spec"]["ports"].as_array().expect("ports").iter().map(|p| &p["port"]).collect();
    assert_eq!(numbers, [80, 53, 443]);
    let live = services(|f| applied(f.apply(Some(&live), &service(json!([])), "x", false, EARLY)));
    assert_eq!(live["spec"]["ports"], json!([{"port": 443}]));
}

#[test]
fn sets_and_wholes() {
    let patch = |finalizers: Value, selector: Value| {
        let mut patch = config(json!({"selector": {"matchLabels": selector}}));
        patch["metadata"]["finalizers"] = finalizers;
        patch
    };
    let x = patch(json!(["a/b", "c/d"]), json!({"a": "1"}));
    let live = deployments(|f| applied(f.apply(None, &x, "x", false, EARLY)));
    assert_eq!(
        fields_of(&live, "x"),
        &json!({"f:metadata": {"f:finalizers": {"v:\"a/b\"": {}, "v:\"c/d\"": {}}}, "f:spec": {"f:selector": {}}})
    );
    let y = patch(json!(["e/f"]), json!({"b": "2"}));
    let error = deployments(|f| f.apply(Some(&live), &y, "y", false, EARLY)).err().expect("conflict");
    assert!(matches!(error, ApplyError::Conflicts(conflicts) if conflicts.len() == 1));
    let live = deployments(|f| applied(f.apply(Some(&live), &y, "y", true, EARLY)));
    assert_eq!(live["spec"]["selector"], json!({"matchLabels": {"b": "2"}}));
    let live = deployments(|f| {
        applied(f.apply(Some(&live), &patch(json!(["a/b"]), json!({"b": "2"})), "x", true, EARLY))
    });
    assert_eq!(live["metadata"]["finalizers"], json!(["a/b", "e/f"]));
}

#[test]
fn the_first_apply_notes_who_was_there_before() {
    let live = deployment();
    let patch = config(json!({"minReadySeconds": 3}));
    let new = deployments(|f| applied(f.apply(Some(&live), &patch, "x", false, LATE)));
    assert!(fields_of(&new, "before-first-apply").pointer("/f:spec/f:replicas").is_some());
    let mut untracked = live.clone();
    untracked["spec"]["replicas"] = json!(7);
    deployments(|f| f.update(Some(&live), &mut untracked, "x", LATE));
    assert!(untracked["metadata"].get("managedFields").is_none());
}

#[test]
fn kubectl_takes_over_from_its_former_self() {
    let before = config(json!({"replicas": 1, "paused": true}));
    let mut live = deployment();
    live["spec"]["paused"] = json!(true);
    live["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": before.to_string()});
    deployments(|f| f.update(None, &mut live, "kubectl-client-side-apply", EARLY));
    let patch = config(json!({"replicas": 4, "paused": true}));
    assert!(deployments(|f| f.apply(Some(&live), &patch, "other", false, LATE)).is_err());
    let new = deployments(|f| applied(f.apply(Some(&live), &patch, "kubectl", false, LATE)));
    assert_eq!(new["spec"]["replicas"], 4);
    let noted = new["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    let noted: Value = serde_json::from_str(noted.expect("kept")).expect("json");
    assert_eq!(noted, patch);
    let patch = config(json!({"progressDeadlineSeconds": 1}));
    assert!(deployments(|f| f.apply(Some(&live), &patch, "kubectl", false, LATE)).is_err(), "never applied");
}

#[test]
fn owners_keep_the_version_they_wrote_in() {
    let kinds = Kinds::new();
    let hpa = |version: &str, spec: Value| {
        json!({"apiVersion": version, "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a"}, "spec": spec})
    };
    let v1 = ("autoscaling/v1", "horizontalpodautoscalers", "");
    let v2 = ("autoscaling/v2", "horizontalpodautoscalers", "");
    let patch = hpa("autoscaling/v1", json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
    let live = kinds.with(v1, &[], |f| applied(f.apply(None, &patch, "x", false, EARLY)));
    let stored = kinds.version("autoscaling/v1", v1.1).expect("served").stored(live);
    let patch = hpa("autoscaling/v2", json!({"maxReplicas": 4}));
    let error = kinds.with(v2, &[], |f| f.apply(Some(&stored), &patch, "y", false, LATE)).err();
    let status = common::status::Status::from(error.expect("conflict"));
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"x\": .spec.maxReplicas");
    let new = kinds.with(v2, &[], |f| applied(f.apply(Some(&stored), &patch, "y", true, LATE)));
    assert_eq!(
        fields_of(&new, "x"),
        &json!({"f:spec": {"f:targetCPUUtilizationPercentage": {}}}),
        "in its own version"
    );
    let entries = new["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(entries.iter().filter(|e| e["apiVersion"] == "autoscaling/v1").count(), 1);
}

#[test]
fn subresources_are_named_and_keep_their_hands_off() {
    let kinds = Kinds::new();
    let mut live = deployment();
    deployments(|f| f.update(None, &mut live, "a", EARLY));
    let mut new = live.clone();
    new["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    new["spec"]["replicas"] = json!(9);
    new["metadata"]["managedFields"] = json!([]);
    kinds.with(("apps/v1", "deployments", "status"), &[&["spec"]], |f| {
        f.update(Some(&live), &mut new, "b", LATE)
    });
    let entries = new["metadata"]["managedFields"].as_array().expect("entries");
    let status = entries.iter().find(|e| e["manager"] == "b").expect("b");
    assert_eq!(status["subresource"], "status");
    assert_eq!(
        status["fieldsV1"],
        json!({"f:status": {"f:replicas": {}, "f:conditions": {".": {}, "k:{\"type\":\"Available\"}":
            {".": {}, "f:type": {}, "f:status": {}, "f:lastTransitionTime": {}, "f:lastUpdateTime": {}}}}})
    );
    assert!(fields_of(&new, "a").pointer("/f:spec/f:replicas").is_some(), "spec is not this endpoint's");
}

#[test]
fn a_whole_that_was_granular_once_is_owned_as_a_whole() {
    let mut live = deployment();
    live["metadata"]["managedFields"] = json!([{"manager": "a", "operation": "Update", "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:selector": {"f:matchLabels": {"f:app": {}}}}}}]);
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(2);
    deployments(|f| f.update(Some(&live), &mut new, "b", LATE));
    assert_eq!(fields_of(&new, "a"), &json!({"f:spec": {"f:selector": {}}}));
}

#[test]
fn times_alone_are_no_change() {
    let mut old = deployment();
    deployments(|f| f.update(None, &mut old, "a", EARLY));
    let mut new = old.clone();
    new["metadata"]["managedFields"][0]["time"] = json!(LATE);
    keep_times(&mut new, &old, |a, b| a == b);
    assert_eq!(new, old);
    new["metadata"]["managedFields"][0]["time"] = json!(LATE);
    new["spec"]["replicas"] = json!(8);
    keep_times(&mut new, &old, |a, b| a == b);
    assert_eq!(new["metadata"]["managedFields"][0]["time"], LATE);
}

#[test]
fn managers_are_named_by_their_agents() {
    assert_eq!(manager_name("", "kubectl/v1.36.2 (linux/amd64)"), "kubectl");
    assert_eq!(manager_name("given", "kubectl/v1"), "given");
    assert_eq!(manager_name("", "Moz\u{7}illa Five/5"), "Mozilla Five");
    assert_eq!(manager_name("", &"ü".repeat(100)).len(), 128);
}

#[test]
fn replicas_have_owners_in_both_views() {
    let path = vec![Element::field("spec"), Element::field("replicas")];
    let mappings = [("apps/v1".to_owned(), Some(path))];
    let mut object = deployment();
    deployments(|f| f.update(None, &mut object, "a", EARLY));
    let entries = object["metadata"]["managedFields"].clone();
    let shown = scale::to_scale(&entries, &mappings).expect("read").expect("owned");
    assert_eq!(shown[0]["apiVersion"], "autoscaling/v1");
    assert_eq!(shown[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let kept = scale::to_parent(&entries, &shown, "apps/v1", &mappings).expect("read").expect("owned");
    assert_eq!(kept, entries);
    let taken = json!([{"manager": "b", "operation": "Update", "apiVersion": "autoscaling/v1", "time": LATE,
        "subresource": "scale", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
    let parent = scale::to_parent(&entries, &taken, "apps/v1", &mappings).expect("read").expect("owned");
    let parent = json!({"metadata": {"managedFields": parent}});
    assert_eq!(fields_of(&parent, "b"), &json!({"f:spec": {"f:replicas": {}}}));
    assert!(fields_of(&parent, "a").pointer("/f:spec/f:replicas").is_none());
    assert!(fields_of(&parent, "a").pointer("/f:spec/f:selector").is_some());
}
