//! What admission is told, and what its word does.

use std::sync::Mutex;

use super::custom::{FOOS, defined, foo};
use super::*;
use crate::admission::{Attributes, Operation, Plugin};

/// Notes what it sees; refuses more than five replicas, and makes four of three.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<Value>>,
}

impl Recorder {
    fn note(&self, step: &str, attributes: &Attributes<'_>) {
        let of = |object: Option<&Object>| object.map_or(Value::Null, |o| json!([name(o), o["spec"]]));
        self.seen.lock().expect("no panic").push(json!({"step": step,
            "operation": format!("{:?}", attributes.operation), "kind": attributes.kind,
            "resource": format!("{}/{}", attributes.resource.resource, attributes.subresource),
            "name": attributes.name, "namespace": attributes.namespace, "dryRun": attributes.dry_run,
            "object": of(attributes.object.as_deref()), "old": of(attributes.old_object)}));
    }

    fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.seen.lock().expect("no panic"))
    }
}

struct Shared(Arc<Recorder>);

#[async_trait]
impl Plugin for Shared {
    fn name(&self) -> &'static str {
        "Recorder"
    }

    fn handles(&self, _: Operation) -> bool {
        true
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        self.0.note("admit", attributes);
        if let Some(object) = attributes.object.as_deref_mut()
            && object["kind"] == "Scale"
            && object["spec"]["replicas"] == 3
        {
            object["spec"]["replicas"] = json!(4);
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        self.0.note("validate", attributes);
        let replicas = attributes.object.as_deref().and_then(|o| o["spec"]["replicas"].as_i64());
        if replicas.is_some_and(|n| n > 5) {
            let (resource, name) = (&attributes.resource, &attributes.name);
            return Err(Status::forbidden(&resource.group, &resource.resource, name, "too many"));
        }
        Ok(())
    }
}

fn recorded() -> (Harness, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    (server_with(Chain::new(vec![Arc::new(Shared(recorder.clone()))])), recorder)
}

#[tokio::test]
async fn a_scale_is_admitted_as_a_scale() {
    let (server, recorder) = recorded();
    let server = defined(server).await;
    assert_eq!(server.post(FOOS, foo(json!({"size": 1}))).await.code, 201);
    recorder.take();

    let (path, scale) = (format!("{FOOS}/x"), format!("{FOOS}/x/scale"));
    let patched = server.patch("merge-patch", &scale, json!({"spec": {"replicas": 3}})).await;
    assert_eq!((patched.code, &patched.body["spec"]["replicas"]), (200, &json!(4)), "{}", patched.body);
    assert_eq!(server.get(&path).await.body["spec"]["size"], 4);
    let told = |step: &str, dry: bool, new: i64, old: i64| {
        json!({"step": step, "operation": "Update", "kind": "Scale", "resource": "foos/scale", "name": "x",
            "namespace": "n", "dryRun": dry, "object": ["x", {"replicas": new}], "old": ["x", {"replicas": old}]})
    };
    assert_eq!(recorder.take(), [told("admit", false, 3, 1), told("validate", false, 4, 1)]);

    let wanted = |replicas: i64| json!({"metadata": {"name": "x"}, "spec": {"replicas": replicas}});
    let dry = server.put(&format!("{scale}?dryRun=All"), wanted(3)).await;
    assert_eq!((dry.code, &dry.body["spec"]["replicas"]), (200, &json!(4)), "{}", dry.body);
    assert_eq!(recorder.take(), [told("admit", true, 3, 4), told("validate", true, 4, 4)]);
    for uri in [scale.clone(), format!("{scale}?dryRun=All")] {
        let refused = server.put(&uri, wanted(6)).await;
        assert_eq!(refused.code, 403, "{}", refused.body);
        assert_eq!(refused.body["message"], "foos.example.com \"x\" is forbidden: too many");
    }
    assert_eq!(server.get(&path).await.body["spec"]["size"], 4);
    let negative = server.put(&scale, wanted(-1)).await;
    assert_eq!(negative.code, 422, "{}", negative.body);
    assert_eq!(
        negative.body["message"],
        "Foo.example.com \"x\" is invalid: .spec.size: Invalid value: -1: should be a non-negative integer"
    );
    let absent = json!({"metadata": {"name": "y"}, "spec": {"replicas": 1}});
    let absent = server.put(&format!("{FOOS}/y/scale"), absent).await;
    assert_eq!((absent.code, &absent.body["message"]), (404, &json!("foos.example.com \"y\" not found")));
}

#[tokio::test]
async fn a_deleted_collection_is_admitted_object_by_object_without_a_name() {
    let (server, recorder) = recorded();
    for name in ["a", "b"] {
        server.post(MAPS, config_map(name)).await;
    }
    recorder.take();
    assert_eq!(server.delete(MAPS, Value::Null).await.code, 200);
    let told: Vec<Value> = recorder.take();
    let brief = |t: &Value| format!("{} {} {} {}", t["step"], t["name"], t["old"][0], t["object"]);
    let told: Vec<String> = told.iter().map(brief).collect();
    let of = |name: &str| ["admit", "validate"].map(|step| format!("\"{step}\" \"\" \"{name}\" null"));
    assert_eq!(told, [of("a"), of("b")].concat());
}

#[tokio::test]
async fn a_delete_that_changes_nothing_asks_nobody() {
    let (server, recorder) = recorded();
    server.post(PODS, pod("p", "node")).await;
    let path = format!("{PODS}/p");
    recorder.take();
    let steps = |recorder: &Recorder| recorder.take().len();
    for (options, asked) in [
        (Value::Null, 2),
        (Value::Null, 0),
        (json!({"gracePeriodSeconds": 60}), 0),
        (json!({"gracePeriodSeconds": 5}), 2),
        (json!({"gracePeriodSeconds": 0}), 2),
    ] {
        assert_eq!(server.delete(&path, options.clone()).await.code, 200);
        assert_eq!(steps(&recorder), asked, "{options}");
    }
    assert_eq!(server.get(&path).await.code, 404);
}
