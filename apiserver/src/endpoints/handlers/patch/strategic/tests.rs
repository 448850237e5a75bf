//! Patches of each form, and what upstream makes of them.

use super::*;
use serde_json::json;

fn check(object: Value, patch: Value, want: Value) {
    let schema = Schema::builtin();
    let id = schema.id("io.k8s.api.apps.v1.Deployment").expect("Deployment");
    let got = merge(&schema, id, object, patch.as_object().expect("a map")).expect("applies");
    assert_eq!(got, want, "patch {patch}");
}

fn containers(list: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": list}}}})
}

#[test]
fn lists_merge_by_key() {
    check(
        containers(json!([{"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}])),
        containers(json!([{"name": "a", "image": "2"}])),
        containers(json!([{"name": "a", "image": "2", "args": ["x"]}, {"name": "b"}])),
    );
    check(
        containers(json!([{"name": "a"}, {"name": "b"}])),
        containers(json!([{"name": "a", "$patch": "delete"}])),
        containers(json!([{"name": "b"}])),
    );
    check(
        containers(json!([{"name": "a"}, {"name": "b"}])),
        containers(json!([{"$patch": "replace"}, {"name": "c"}])),
        containers(json!([{"name": "c"}])),
    );
}

#[test]
fn order_is_kept_as_asked() {
    let patch = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
        "containers": [{"name": "c", "image": "3"}]}}}});
    check(
        containers(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}])),
        patch,
        containers(json!([{"name": "b"}, {"name": "c", "image": "3"}, {"name": "a"}])),
    );
    check(
        containers(json!([{"name": "a"}])),
        containers(json!([{"name": "d"}])),
        containers(json!([{"name": "d"}, {"name": "a"}])),
    );
}

#[test]
fn misuse_is_told() {
    let schema = Schema::builtin();
    let id = schema.id("io.k8s.api.apps.v1.Deployment").expect("Deployment");
    let wrong = |patch: Value| {
        let patch = patch.as_object().expect("a map").clone();
        merge(&schema, id, containers(json!([{"name": "a"}])), &patch).expect_err("refused").message
    };
    assert!(
        wrong(containers(json!([{"image": "x"}]))).ends_with("does not contain declared merge key: name")
    );
    let patch = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
        "containers": [{"name": "b"}, {"name": "a"}]}}}});
    assert!(wrong(patch).starts_with("The order in patch list:"));
    assert!(wrong(json!({"$patch": "mangle"})).starts_with("unknown patch type: mangle in map"));
}

#[test]
fn maps_take_directives() {
    check(
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    check(
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
    );
    check(
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
        json!({"metadata": {"labels": {"c": "3"}}}),
    );
}

#[test]
fn primitive_lists_merge_as_sets() {
    check(
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}}),
        json!({"metadata": {"finalizers": ["c", "b"]}}),
    );
}

#[test]
fn a_list_without_a_strategy_is_replaced() {
    check(
        containers(json!([{"name": "a", "args": ["x", "y"]}])),
        containers(json!([{"name": "a", "args": ["z"]}])),
        containers(json!([{"name": "a", "args": ["z"]}])),
    );
}

fn wrong(type_name: &str, object: Value, patch: Value) -> (u16, String) {
    let schema = Schema::builtin();
    let id = schema.id(type_name).expect("a type");
    let error = merge(&schema, id, object, patch.as_object().expect("a map")).expect_err("refused");
    (error.code, error.message)
}

const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const INVALID: &str = "the server rejected our request due to an error in our request";

#[test]
fn mistakes_are_answered_as_upstream_answers_them() {
    let two = || containers(json!([{"name": "a"}, {"name": "b"}]));
    let ordered = |order: Value, list: Value| json!({"spec": {"template": {"spec": {"$setElementOrder/containers": order, "containers": list}}}});
    for (patch, code, message) in [
        (json!({"$patch": "merge"}), 500, "unknown patch type: merge in map: map[$patch:merge]"),
        (json!({"$patch": 1}), 500, "unknown patch type: %!s(1) in map: map[$patch:1]"),
        (
            containers(json!([{"name": "a", "$patch": "merge"}])),
            500,
            "merging lists cannot yet be specified in the patch",
        ),
        (
            containers(json!([{"name": "a", "$patch": "mangle"}])),
            500,
            "unknown patch type: mangle in map: map[$patch:mangle name:a]",
        ),
        (
            containers(json!([{"image": "x", "$patch": "delete"}])),
            500,
            "map: map[$patch:delete image:x] does not contain declared merge key: name",
        ),
        (
            containers(json!([{"image": "x"}])),
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            containers(json!(["x"])),
            500,
            "list element types are not identical: [[map[name:a] map[name:b]] [x]]",
        ),
        (
            ordered(json!([{"name": "b"}, {"name": "a"}]), json!([{"name": "a"}, {"name": "b"}])),
            500,
            "The order in patch list:\n[map[name:a] map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:b] map[name:a]]\n",
        ),
        (
            ordered(json!([{"name": "a"}]), json!([{"image": "x"}])),
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (ordered(json!("a"), json!([])), 500, "expected a []interface {}, but received a string"),
        (
            json!({"spec": {"$setElementOrder/nothing": []}}),
            500,
            "unable to find api field in struct DeploymentSpec for the json field \"nothing\"",
        ),
        (json!({"spec": {"$retainKeys": "a"}}), 400, "invalid patch format of retainKeys"),
        (json!({"spec": {"$retainKeys": ["a"], "replicas": 1}}), 400, "invalid patch format of retainKeys"),
    ] {
        assert_eq!(wrong(DEPLOYMENT, two(), patch.clone()), (code, message.to_owned()), "{patch}");
    }
    let lists = json!({"metadata": {"finalizers": [["a"]]}});
    let object = json!({"metadata": {"finalizers": []}});
    assert_eq!(wrong(DEPLOYMENT, object, lists), (422, INVALID.to_owned()));
}

#[test]
fn directives_need_something_to_work_on() {
    // Where there was nothing, what has a directive is dropped with it.
    check(
        json!({"metadata": {}}),
        json!({"metadata": {"labels": {"$patch": "replace", "a": "1"}, "annotations": {"$patch": "delete"}}}),
        json!({"metadata": {}}),
    );
    check(
        containers(json!([])),
        json!({"spec": {"template": {"spec": {"volumes": [{"name": "a", "$patch": "replace"}, {"name": "b"}]}}}}),
        json!({"spec": {"template": {"spec": {"containers": [], "volumes": [{"name": "b"}]}}}}),
    );
    // An item that says to replace is no item.
    check(
        containers(json!([{"name": "a"}])),
        containers(json!([{"$patch": "replace", "name": "x"}, {"name": "c"}])),
        containers(json!([{"name": "c"}])),
    );
    // The other directives stay, and are unknown fields then.
    check(
        json!({"spec": {"template": {"spec": {}}}}),
        json!({"spec": {"template": {"spec": {"securityContext": {"$retainKeys": ["runAsUser"], "runAsUser": 1}}}}}),
        json!({"spec": {"template": {"spec": {"securityContext": {"$retainKeys": ["runAsUser"], "runAsUser": 1}}}}}),
    );
}

#[test]
fn a_deleted_struct_is_left_empty_and_a_deleted_map_is_gone() {
    let probe = json!({"name": "a", "livenessProbe": {"exec": {"command": ["x"]}}});
    check(
        containers(json!([probe])),
        containers(json!([{"name": "a", "livenessProbe": {"$patch": "delete"}}])),
        containers(json!([{"name": "a", "livenessProbe": {}}])),
    );
    check(
        json!({"metadata": {"name": "a", "labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "delete"}}}),
        json!({"metadata": {"name": "a"}}),
    );
}

#[test]
fn items_that_are_new_are_taken_as_they_are() {
    check(
        containers(json!([{"name": "a"}])),
        containers(json!([{"name": "b", "resources": {"limits": {"cpu": null}}}])),
        containers(json!([{"name": "b", "resources": {"limits": {"cpu": null}}}, {"name": "a"}])),
    );
    // Twice the same key is one item.
    check(
        containers(json!([{"name": "a"}])),
        containers(json!([{"name": "b", "image": "1"}, {"name": "b", "image": "2"}])),
        containers(json!([{"name": "b", "image": "2"}, {"name": "a"}])),
    );
}

#[test]
fn primitives_are_deleted_and_put_in_order() {
    check(
        json!({"metadata": {"finalizers": ["a", "b", "c", "a"]}}),
        json!({"metadata": {"$setElementOrder/finalizers": ["c", "a"], "finalizers": ["a"]}}),
        json!({"metadata": {"finalizers": ["b", "c", "a"]}}),
    );
    for (deletions, want) in [
        (json!(["a", "x"]), json!({"metadata": {"finalizers": ["b"]}})),
        (json!([]), json!({"metadata": {"finalizers": ["a", "b"]}})),
        (json!("a"), json!({"metadata": {"finalizers": ["a", "b"]}})),
        (Value::Null, json!({"metadata": {}})),
    ] {
        check(
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": deletions}}),
            want,
        );
    }
}

#[test]
fn a_map_may_be_replaced_by_its_types_word() {
    let schema = Schema::builtin();
    let id = schema.id("io.k8s.api.policy.v1.PodDisruptionBudget").expect("a type");
    let budget = json!({"spec": {"selector": {"matchLabels": {"a": "1"}}, "minAvailable": 1}});
    let patch = json!({"spec": {"selector": {"matchLabels": {"b": "2"}}}});
    let got = merge(&schema, id, budget, patch.as_object().expect("a map")).expect("applies");
    assert_eq!(got, json!({"spec": {"selector": {"matchLabels": {"b": "2"}}, "minAvailable": 1}}));
}
