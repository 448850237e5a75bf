//! What flags switch reaches the rules: feature gates the fields, plugins with their configuration the writes.

use super::*;

#[tokio::test]
async fn fields_of_disabled_features_are_dropped_over_the_wire() {
    let off = "--feature-gates=PodLevelResources=false,InPlacePodLevelResourcesVerticalScaling=false,\
        ServiceCIDRStatusFieldWiping=false";
    let server = Server::start_on(Some(StoreConfig::Memory), &[off.to_owned()]).await;
    let client = server.client(None);
    let path = "/api/v1/namespaces/default/podtemplates";
    let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "a"}, "template": {
        "spec": {"containers": [{"name": "c", "image": "x"}], "hostnameOverride": "kept",
            "resources": {"requests": {"cpu": "1"}}, "schedulingGroup": {"podGroupName": "g"}}}});
    let (code, made) = server.call(&client, "POST", path, "admin-token", Some(template)).await;
    assert_eq!(code, 201, "{made}");
    let spec = &made["template"]["spec"];
    assert_eq!(spec["hostnameOverride"], "kept");
    assert!(spec.get("resources").is_none() && spec.get("schedulingGroup").is_none(), "{spec}");
    let condition = json!({"type": "x", "status": "True", "reason": "R", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let cidr = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "a"},
        "spec": {"cidrs": ["10.1.0.0/24"]}, "status": {"conditions": [condition]}});
    let path = "/apis/networking.k8s.io/v1/servicecidrs";
    let (code, made) = server.call(&client, "POST", path, "admin-token", Some(cidr)).await;
    assert_eq!((code, &made["status"]["conditions"][0]["type"]), (201, &json!("x")), "{made}");
    server.stop().await;
}

#[tokio::test]
async fn events_are_limited_as_the_file_says() {
    let file = std::env::temp_dir().join(format!("pintle-events-{}.yaml", uuid::Uuid::new_v4()));
    let limits = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: EventRateLimit
  configuration:
    apiVersion: eventratelimit.admission.k8s.io/v1alpha1
    kind: Configuration
    limits: [{type: SourceAndObject, qps: 1, burst: 1}]
"#;
    std::fs::write(&file, limits).unwrap();
    let more = [
        "--enable-admission-plugins=EventRateLimit".to_owned(),
        format!("--admission-control-config-file={}", file.display()),
    ];
    let server = Server::start_on(Some(StoreConfig::Memory), &more).await;
    std::fs::remove_file(&file).unwrap();
    let client = server.client(None);
    let write = async |name: &str, about: &str| {
        let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": about}, "reason": "R",
            "source": {"component": "c"}, "type": "Normal"});
        server.call(&client, "POST", "/api/v1/namespaces/default/events", "admin-token", Some(event)).await
    };
    // A bucket holds one and fills in a second: of some at once, one at least finds it empty.
    let mut refused = None;
    for i in 0..50 {
        let (code, answer) = write(&format!("e{i}"), "a").await;
        if code != 201 {
            refused = Some((code, answer));
            break;
        }
    }
    let (code, answer) = refused.expect("a limit");
    assert_eq!((code, &answer["reason"]), (429, &json!("TooManyRequests")), "{answer}");
    let told = answer["message"].as_str().unwrap_or_default();
    assert!(told.contains("limit reached on type SourceAndObject"), "{told}");
    assert_eq!(write("other", "b").await.0, 201, "another object has a bucket of its own");
    server.stop().await;
}
