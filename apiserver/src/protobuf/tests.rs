use super::*;

/// Fully populated objects in both encodings.
const OBJECTS: [(&str, &[u8], &str); 5] = [
    ("Pod", include_bytes!("data/objects/core.v1.Pod.pb"), include_str!("data/objects/core.v1.Pod.json")),
    (
        "Secret",
        include_bytes!("data/objects/core.v1.Secret.pb"),
        include_str!("data/objects/core.v1.Secret.json"),
    ),
    (
        "Deployment",
        include_bytes!("data/objects/apps.v1.Deployment.pb"),
        include_str!("data/objects/apps.v1.Deployment.json"),
    ),
    (
        "DeleteOptions",
        include_bytes!("data/objects/core.v1.DeleteOptions.pb"),
        include_str!("data/objects/core.v1.DeleteOptions.json"),
    ),
    (
        "SelfSubjectAccessReview",
        include_bytes!("data/objects/authorization.k8s.io.v1.SelfSubjectAccessReview.pb"),
        include_str!("data/objects/authorization.k8s.io.v1.SelfSubjectAccessReview.json"),
    ),
];

#[test]
fn populated_objects_decode_without_loss() {
    let table = Messages::builtin();
    for (name, body, json) in OBJECTS {
        let wanted: Value = serde_json::from_str(json).unwrap();
        assert_eq!(decode(&table, body, None).unwrap(), wanted, "{name}");
    }
}

#[test]
fn populated_objects_survive_the_way_back() {
    let table = Messages::builtin();
    for (name, _, json) in OBJECTS {
        let wanted: Value = serde_json::from_str(json).unwrap();
        let body = encode(&table, &wanted).unwrap();
        assert_eq!(decode(&table, &body, None).unwrap(), wanted, "{name}");
        assert_eq!(transcode(&table, json.as_bytes()).unwrap(), body, "{name}");
    }
}

#[test]
fn lists_and_watch_events_are_framed() {
    let table = Messages::builtin();
    let list = serde_json::json!({"kind": "ConfigMapList", "apiVersion": "v1",
        "metadata": {"resourceVersion": "7"},
        "items": [{"metadata": {"name": "a"}, "data": {"x": "y"}}, {"metadata": {"name": "b"}}]});
    let body = transcode(&table, list.to_string().as_bytes()).unwrap();
    assert_eq!(body, encode(&table, &list).unwrap());
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
    let (_, whole, _) = OBJECTS[0];
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
