use super::fixtures::{self, Fixture};
use super::*;

/// What travels without its kind: the frame of a watch, see [`watch_frame`].
const WITHOUT_KIND: [&str; 1] = ["core.v1.WatchEvent"];

fn objects() -> Vec<Fixture> {
    let mut all = fixtures::all();
    all.retain(|fixture| !WITHOUT_KIND.contains(&fixture.name.as_str()));
    all
}

#[test]
fn every_populated_object_decodes_without_loss() {
    let table = Messages::builtin();
    for fixture in objects() {
        let decoded = decode(&table, &fixture.protobuf, None);
        assert_eq!(decoded.unwrap(), fixture.tree(), "{}", fixture.name);
    }
}

#[test]
fn every_populated_object_survives_the_way_back() {
    let table = Messages::builtin();
    for Fixture { name, json, .. } in objects() {
        let wanted: Value = serde_json::from_str(&json).unwrap();
        let body = encode(&table, &wanted).unwrap();
        assert_eq!(decode(&table, &body, None).unwrap(), wanted, "{name}");
        let canonical = crate::object::encode(&wanted);
        let mut raw = Vec::new();
        if wanted.get("metadata").is_some() {
            assert!(stream::write(&table, &canonical, &mut raw).is_some(), "{name} takes the long way");
        }
        for text in [json.as_bytes(), wanted.to_string().as_bytes()] {
            let body = transcode(&table, text).unwrap();
            assert_eq!(decode(&table, &body, None).unwrap(), wanted, "{name}");
        }
    }
}

#[test]
fn lists_and_watch_events_are_framed() {
    let table = Messages::builtin();
    let list = serde_json::json!({"kind": "ConfigMapList", "apiVersion": "v1",
        "metadata": {"resourceVersion": "7"},
        "items": [{"metadata": {"name": "a"}, "data": {"x": "y"}}, {"metadata": {"name": "b"}}]});
    let body = transcode(&table, list.to_string().as_bytes()).unwrap();
    assert_eq!(decode(&table, &body, None).unwrap(), list);

    let object =
        br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","creationTimestamp":null}}"#;
    let frame = watch_frame(&table, "ADDED", object).unwrap();
    let (length, message) = frame.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, message.len());
    assert!(message.starts_with(b"\x0a\x05ADDED\x12"));
    let start = message.windows(4).position(|w| w == MAGIC).unwrap();
    let object = decode(&table, &message[start..], None).unwrap();
    assert_eq!(object["metadata"], serde_json::json!({"name": "a"}));
}

#[test]
fn what_has_no_message_or_the_wrong_type_is_an_error() {
    let table = Messages::builtin();
    let table_kind = serde_json::json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1"});
    assert!(matches!(encode(&table, &table_kind), Err(ProtobufError::UnknownType { .. })));
    let broken = serde_json::json!({"kind": "ConfigMap", "apiVersion": "v1", "data": 1});
    assert_eq!(encode(&table, &broken), Err(ProtobufError::Value("data".into())));
}

#[test]
fn broken_bodies_are_errors() {
    let table = Messages::builtin();
    assert_eq!(decode(&table, b"{}", None), Err(ProtobufError::Magic));
    let whole = fixtures::one("core.v1.Pod").protobuf;
    for length in 0..whole.len() {
        // Any prefix may fail; none may panic.
        let _ = decode(&table, &whole[..length], None);
    }
    let unknown = [MAGIC, &[0x0a, 0x05, 0x12, 0x03, b'F', b'o', b'o']].concat();
    assert!(matches!(decode(&table, &unknown, None), Err(ProtobufError::UnknownType { .. })));
}

#[test]
fn a_body_without_type_takes_the_default() {
    let table = Messages::builtin();
    let empty = [MAGIC, &[0x12, 0x00]].concat();
    let object = decode(&table, &empty, Some(("v1", "Namespace"))).unwrap();
    assert_eq!(object, serde_json::json!({"kind": "Namespace", "apiVersion": "v1"}));
}

#[test]
fn zero_of_a_pointer_stays() {
    let table = Messages::builtin();
    // spec { replicas: 0, minReadySeconds: 0 }
    let body = [MAGIC, &[0x12, 0x06, 0x12, 0x04, 0x08, 0x00, 0x28, 0x00]].concat();
    let object = decode(&table, &body, Some(("apps/v1", "Deployment"))).unwrap();
    assert_eq!(object["spec"], serde_json::json!({"replicas": 0}));
}
