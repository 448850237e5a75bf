use super::*;
use crate::kuberuntime::labels::ContainerLabels;
use crate::kuberuntime::status::RuntimeSandbox;
use serde_json::{Value, json};

struct Verdicts(Option<ProbeResult>, Option<ProbeResult>);

impl ProbeVerdicts for Verdicts {
    fn liveness(&self, _: &str) -> Option<ProbeResult> {
        self.0
    }
    fn startup(&self, _: &str) -> Option<ProbeResult> {
        self.1
    }
}

fn pod(policy: &str, init: &[Value], app: &[&str]) -> Pod {
    let app: Vec<Value> = app.iter().map(|n| json!({"name": n, "image": "i"})).collect();
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": app}}))
    .unwrap()
}

/// `name:r` runs, `name:0` has ended with 0, `name:c` was only created, `name:!` runs with another image.
fn runtime(containers: &[&str]) -> RuntimePod {
    let sandbox = RuntimeSandbox {
        id: "s".into(),
        attempt: 0,
        ready: true,
        created_at: 1,
        ips: vec!["1.1.1.1".into()],
        has_network_status: true,
        host_network: false,
    };
    let mut out = RuntimePod { sandboxes: vec![sandbox], ..RuntimePod::default() };
    for text in containers {
        let (name, state) = text.split_once(':').unwrap();
        let spec = Container { name: name.into(), image: Some("i".into()), ..Container::default() };
        let hash = if state == "!" { 1 } else { container_hash(&spec) };
        let (kind, code) = match state {
            "r" | "!" => (ContainerState::Running, 0),
            "c" => (ContainerState::Created, 0),
            "u" => (ContainerState::Unknown, 0),
            code => (ContainerState::Exited, code.parse().unwrap()),
        };
        out.containers.push(RuntimeContainer {
            id: name.into(),
            name: name.into(),
            state: kind,
            created_at: None,
            started_at: None,
            finished_at: None,
            exit_code: code,
            reason: String::new(),
            message: String::new(),
            image: "i".into(),
            image_id: String::new(),
            log_path: String::new(),
            labels: ContainerLabels { hash, ..ContainerLabels::default() },
            mounts: Vec::new(),
            user: None,
        });
    }
    out
}

/// `start=..` `init=..` `kill=..` `KILLPOD` in one line.
fn show(plan: &PodActions) -> String {
    let mut out = Vec::new();
    if plan.kill_pod {
        out.push("KILLPOD".to_owned());
    }
    if plan.create_sandbox {
        out.push(format!("sandbox{}", plan.attempt));
    }
    for kill in &plan.kill {
        out.push(format!("kill={}", kill.name));
    }
    if !plan.start_init.is_empty() {
        out.push(format!("init={:?}", plan.start_init));
    }
    if !plan.start.is_empty() {
        out.push(format!("start={:?}", plan.start));
    }
    out.join(" ")
}

#[test]
fn app_containers() {
    let check = |policy: &str, have: &[&str], want: &str| {
        let got = show(&compute(&pod(policy, &[], &["a", "b"]), &runtime(have), &Verdicts(None, None)));
        assert_eq!(got, want, "{policy} {have:?}");
    };
    check("Always", &[], "start=[0, 1]");
    check("Always", &["a:r", "b:r"], "");
    check("Always", &["a:r", "b:0"], "start=[1]");
    check("OnFailure", &["a:r", "b:0"], "");
    check("OnFailure", &["a:1", "b:0"], "start=[0]");
    check("OnFailure", &["a:0", "b:0"], "KILLPOD");
    check("Never", &["a:1", "b:r"], "");
    check("Never", &["a:1", "b:0"], "KILLPOD");
    check("Never", &["a:c", "b:r"], "start=[0]");
    check("Always", &["a:!", "b:r"], "kill=a start=[0]");
    check("Never", &["a:!", "b:r"], "kill=a start=[0]");
    check("Always", &["a:u", "b:r"], "kill=a start=[0]");
}

#[test]
fn probes_kill() {
    let check = |policy: &str, verdicts: Verdicts, want: &str| {
        let got = show(&compute(&pod(policy, &[], &["a"]), &runtime(&["a:r"]), &verdicts));
        assert_eq!(got, want);
    };
    check("Always", Verdicts(Some(ProbeResult::Failure), None), "kill=a start=[0]");
    check("Never", Verdicts(Some(ProbeResult::Failure), None), "KILLPOD kill=a");
    check("Always", Verdicts(Some(ProbeResult::Success), Some(ProbeResult::Failure)), "kill=a start=[0]");
    check("Always", Verdicts(Some(ProbeResult::Success), Some(ProbeResult::Unknown)), "");
}

#[test]
fn init_containers() {
    let plain = |n: &str| json!({"name": n, "image": "i"});
    let sidecar = |n: &str| json!({"name": n, "image": "i", "restartPolicy": "Always"});
    let check = |policy: &str, init: &[Value], have: &[&str], want: &str| {
        let got = show(&compute(&pod(policy, init, &["a"]), &runtime(have), &Verdicts(None, None)));
        assert_eq!(got, want, "{policy} {have:?}");
    };
    let two = [plain("i"), plain("j")];
    check("Always", &two, &[], "init=[0]");
    check("Always", &two, &["i:r"], "");
    check("Always", &two, &["i:0"], "init=[1]");
    check("Always", &two, &["i:1"], "init=[0]");
    check("Never", &two, &["i:1"], "KILLPOD");
    check("Always", &two, &["i:0", "j:0"], "start=[0]");
    // Ended init containers may be gone from the runtime.
    check("Always", &two, &["j:0"], "start=[0]");
    check("Always", &two, &["a:r"], "");
    let mixed = [sidecar("s"), plain("j")];
    check("Always", &mixed, &["s:r"], "init=[1]");
    check("Always", &mixed, &["s:r", "j:0"], "start=[0]");
    check("Always", &mixed, &["s:1", "j:0", "a:r"], "init=[0]");
    check("Never", &mixed, &["s:1", "j:0", "a:0"], "KILLPOD");
}

#[test]
fn sandboxes() {
    let check = |policy: &str, have: &[&str], ready: bool, want: &str| {
        let mut runtime = runtime(have);
        runtime.sandboxes[0].ready = ready;
        let got = show(&compute(&pod(policy, &[], &["a"]), &runtime, &Verdicts(None, None)));
        assert_eq!(got, want, "{policy} {have:?}");
    };
    check("Always", &["a:0"], false, "KILLPOD sandbox1 start=[0]");
    check("Never", &["a:1"], false, "KILLPOD");
    check("Never", &[], false, "KILLPOD sandbox1 start=[0]");
    check("OnFailure", &["a:0"], false, "KILLPOD");
    let none = RuntimePod::default();
    let got = show(&compute(&pod("Always", &[], &["a"]), &none, &Verdicts(None, None)));
    assert_eq!(got, "KILLPOD sandbox0 start=[0]");
}
