//! Daemons die, nodes fall silent, the control plane starts again: what runs keeps running, and the cluster
//! comes back by itself. One test at a time: each breaks the cluster it shares with the others.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Cluster, Namespace, eventually};

/// Container ids and restart counts by pod, of pods that must not be touched.
fn running(ns: &Namespace) -> Result<BTreeMap<String, (String, u64)>> {
    let pods = ns.json(&["get", "pods"])?;
    let mut out = BTreeMap::new();
    for pod in pods["items"].as_array().context("items")? {
        let status = &pod["status"]["containerStatuses"][0];
        let name = pod["metadata"]["name"].as_str().unwrap_or("").to_owned();
        let id = status["containerID"].as_str().unwrap_or("").to_owned();
        out.insert(name, (id, status["restartCount"].as_u64().unwrap_or(0)));
    }
    Ok(out)
}

fn healthy(cluster: &Cluster) -> Result<()> {
    ensure!(cluster.kubectl(&["get", "--raw", "/readyz"])? == "ok", "the API server is not ready");
    let ready = cluster.kubectl(&[
        "get",
        "nodes",
        "-o",
        r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#,
    ])?;
    ensure!(ready.split_whitespace().all(|s| s == "True"), "nodes: {ready}");
    Ok(())
}

#[test]
fn every_daemon_may_be_killed_under_load() -> Result<()> {
    let cluster = Cluster::running();
    let ns = cluster.namespace("kill")?;
    ns.web("steady", 4)?;
    let before = running(&ns)?;
    let load = cluster.namespace("load")?;
    let victims = [
        ("node1", "kube-apiserver"),
        ("node1", "kube-scheduler"),
        ("node1", "kube-controller-manager"),
        ("node1", "kubelet"),
        ("node2", "kubelet"),
        ("node2", "kube-proxy"),
        ("node2", "containerd"),
    ];
    for (round, (node, daemon)) in victims.into_iter().enumerate() {
        let name = format!("made-{round}");
        load.apply(&tests::web_manifest(&name, 2))?;
        cluster.kill(node, "-KILL", daemon).with_context(|| format!("killing {daemon}"))?;
        let limit = Duration::from_secs(90);
        eventually(&format!("the cluster after {daemon} on {node} was killed"), limit, || healthy(&cluster))?;
        eventually(&format!("what was made while {daemon} was killed"), limit, || {
            let ready =
                load.kubectl(&["get", "deployment", &name, "-o", "jsonpath={.status.readyReplicas}"])?;
            ensure!(ready == "2", "{name} has {ready} ready pods");
            Ok(())
        })?;
        ensure!(load.pods(&format!("app={name}"))?.len() == 2, "{name} has more pods than replicas");
        let now = running(&ns)?;
        ensure!(now == before, "containers changed when {daemon} on {node} was killed:\n{before:?}\n{now:?}");
    }
    // Still wired up: a page through the Service.
    ns.sleeper("client", Some("node2"))?;
    eventually("a page through the Service", Duration::from_secs(30), || {
        let page = ns.exec("client", &["wget", "-qO-", "http://steady/hostname"])?;
        ensure!(page.starts_with("steady-"), "{page}");
        Ok(())
    })
}

#[test]
fn the_control_plane_starts_again_with_everything_it_knew() -> Result<()> {
    let cluster = Cluster::running();
    let ns = cluster.namespace("keep")?;
    for i in 0..20 {
        ns.kubectl(&["create", "configmap", &format!("c{i}"), &format!("--from-literal=n={i}")])?;
    }
    let before = ns.json(&["get", "configmaps"])?;
    let manifests = cluster.state().join("node1/mnt/etc/kubernetes/manifests");
    let aside = cluster.state().join("aside");
    std::fs::rename(&manifests, &aside)?;
    std::fs::create_dir(&manifests)?;
    let stopped = eventually("the control plane to stop", Duration::from_secs(60), || {
        let left = cluster.node("node1", &["sh", "-c", "pgrep -x kube-apiserver || true"])?;
        ensure!(left.trim().is_empty(), "kube-apiserver still runs");
        Ok(())
    });
    for file in std::fs::read_dir(&aside)? {
        let file = file?;
        std::fs::rename(file.path(), manifests.join(file.file_name()))?;
    }
    std::fs::remove_dir(&aside)?;
    stopped?;
    eventually("the control plane to come back", Duration::from_secs(180), || healthy(&cluster))?;
    let after = ns.json(&["get", "configmaps"])?;
    ensure!(before["items"] == after["items"], "objects changed over a restart");
    ns.kubectl(&["create", "configmap", "after"])?;
    Ok(())
}

#[test]
fn a_deleted_pod_is_replaced_and_a_killed_container_restarts() -> Result<()> {
    let ns = Cluster::running().namespace("heal")?;
    ns.web("web", 2)?;
    let pods = ns.pods("app=web")?;
    let victim = pods.first().context("a pod")?;
    ns.kubectl(&["delete", "pod", victim, "--timeout=60s"])?;
    ns.kubectl(&["rollout", "status", "deployment", "web", "--timeout=60s"])?;
    let now = ns.pods("app=web")?;
    ensure!(now.len() == 2 && !now.contains(victim), "{now:?}");
    let survivor = now.first().context("a pod")?;
    // PID 1 ignores signals from inside unless it handles them; the web server's worker is PID 1's own program.
    let node = ns.kubectl(&["get", "pod", survivor, "-o", "jsonpath={.spec.nodeName}"])?;
    let id =
        ns.kubectl(&["get", "pod", survivor, "-o", "jsonpath={.status.containerStatuses[0].containerID}"])?;
    let id = id.trim_start_matches("containerd://");
    ns.cluster.node(&node, &["ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id])?;
    eventually("the restart", Duration::from_secs(60), || {
        let pod = ns.json(&["get", "pod", survivor])?;
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(status["restartCount"] == 1 && status["ready"] == true, "{status}");
        ensure!(status["lastState"]["terminated"]["exitCode"] == 137, "{status}");
        Ok(())
    })
}

#[test]
fn a_silent_node_loses_its_pods() -> Result<()> {
    let cluster = Cluster::running();
    let ns = cluster.namespace("silent")?;
    // Short tolerations, so that the eviction need not take its five minutes.
    ns.apply(&format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: mover}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: mover}}}}
  template:
    metadata: {{labels: {{app: mover}}}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity: {{nodeAffinity: {{preferredDuringSchedulingIgnoredDuringExecution: [{{weight: 100, preference: {{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [node2]}}]}}}}]}}}}
      tolerations:
      - {{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}}
      - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}}
      containers:
      - {{name: main, image: {}}}
",
        tests::IMAGE
    ))?;
    ns.kubectl(&["rollout", "status", "deployment", "mover", "--timeout=60s"])?;
    let on = || {
        ns.kubectl(&[
            "get",
            "pods",
            "-l",
            "app=mover",
            "-o",
            "jsonpath={.items[?(@.status.phase==\"Running\")].spec.nodeName}",
        ])
    };
    ensure!(on()?.contains("node2"), "the pod prefers node2: {}", on()?);
    let services = cluster.state().join("node2/services");
    std::fs::write(services.join("kubelet.down"), "")?;
    let result = (|| {
        cluster.node("node2", &["kill", "-HUP", "1"])?;
        eventually("node2 to be NotReady", Duration::from_secs(90), || {
            let nodes = cluster.kubectl(&["get", "nodes"])?;
            ensure!(nodes.lines().any(|l| l.starts_with("node2") && l.contains("NotReady")), "{nodes}");
            Ok(())
        })?;
        eventually("the pod to move to node1", Duration::from_secs(90), || {
            let ready =
                ns.kubectl(&["get", "deployment", "mover", "-o", "jsonpath={.status.readyReplicas}"])?;
            ensure!(ready == "1" && on()?.contains("node1"), "ready {ready}, on {}", on()?);
            Ok(())
        })
    })();
    std::fs::remove_file(services.join("kubelet.down"))?;
    cluster.node("node2", &["kill", "-HUP", "1"])?;
    result?;
    eventually("node2 to come back", Duration::from_secs(60), || healthy(&cluster))?;
    eventually("the old pod to be gone from node2", Duration::from_secs(60), || {
        ensure!(ns.pods("app=mover")?.len() == 1, "two pods");
        Ok(())
    })
}
