use super::*;
use serde_json::json;

fn status(state: serde_json::Value) -> ContainerStatus {
    serde_json::from_value(json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": state}))
    .unwrap()
}

#[test]
fn phases() {
    let check = |policy: &str, state: serde_json::Value, terminal: bool, want: &str| {
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"restartPolicy": policy, "containers": [{"name": "c"}]}}))
                .unwrap();
        assert_eq!(phase(&pod, &[], &[status(state.clone())], terminal, true), want, "{policy} {state}");
    };
    let ended = |code: i32| json!({"terminated": {"exitCode": code}});
    check("Always", json!({"running": {}}), false, "Running");
    check("Always", json!({"waiting": {}}), false, "Pending");
    check("Always", ended(0), false, "Running");
    check("Always", ended(0), true, "Succeeded");
    check("Always", ended(1), true, "Failed");
    check("OnFailure", ended(1), false, "Running");
    check("OnFailure", ended(0), false, "Succeeded");
    check("Never", ended(1), false, "Failed");
}

#[test]
fn a_pod_that_has_nothing_yet_is_pending() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "generation": 2},
        "spec": {"containers": [{"name": "c", "image": "i"}], "initContainers": [{"name": "i", "image": "i"}]}}))
    .unwrap();
    let none = HashMap::new();
    let facts = Facts {
        host_ips: &["1.1.1.1".to_owned()],
        waiting: &none,
        ready: &|_, _| true,
        started: &|_, _| true,
        terminal: false,
        verdict: None,
        now: Timestamp::UNIX_EPOCH,
    };
    let got = generate(&pod, &RuntimePod::default(), &PodStatus::default(), &facts);
    assert_eq!(got.phase.as_deref(), Some("Pending"));
    let reason = |list: &Option<Vec<ContainerStatus>>| {
        list.as_ref().unwrap()[0].state.as_ref().unwrap().waiting.as_ref().unwrap().reason.clone().unwrap()
    };
    assert_eq!(reason(&got.container_statuses), "PodInitializing");
    assert_eq!(got.observed_generation, Some(2));
    let initialized = got.conditions.unwrap().into_iter().find(|c| c.type_ == "Initialized").unwrap();
    assert_eq!(initialized.status, "False");
    assert_eq!(initialized.message.as_deref(), Some("containers with incomplete status: [i]"));
}
