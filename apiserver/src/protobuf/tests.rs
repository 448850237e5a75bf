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
