//! What a node does for a pod: volumes, probes, restarts, init containers, resources.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Cluster, IMAGE, eventually};

#[test]
fn volumes_of_every_kind_are_mounted_and_follow_their_source() -> Result<()> {
    let ns = Cluster::running().namespace("volumes")?;
    ns.kubectl(&["create", "configmap", "config", "--from-literal=key=first", "--from-literal=other=o"])?;
    ns.kubectl(&["create", "secret", "generic", "secret", "--from-literal=password=hidden"])?;
    ns.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: mounts, labels: {{color: blue}}}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {{fsGroup: 2000}}
  containers:
  - name: main
    image: {IMAGE}
    command: [sh, -c, 'trap exit TERM; while :; do sleep 1; done']
    resources: {{limits: {{memory: 64Mi, cpu: 100m}}}}
    env:
    - {{name: FROM_CONFIG, valueFrom: {{configMapKeyRef: {{name: config, key: key}}}}}}
    - {{name: FROM_SECRET, valueFrom: {{secretKeyRef: {{name: secret, key: password}}}}}}
    - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
    - {{name: MEMORY, valueFrom: {{resourceFieldRef: {{resource: limits.memory}}}}}}
    - {{name: EXPANDED, value: "$(POD_NAME)-x"}}
    volumeMounts:
    - {{name: empty, mountPath: /empty}}
    - {{name: memory, mountPath: /memory}}
    - {{name: host, mountPath: /host, readOnly: true}}
    - {{name: config, mountPath: /config}}
    - {{name: secret, mountPath: /secret}}
    - {{name: info, mountPath: /info}}
    - {{name: config, mountPath: /single, subPath: other}}
  volumes:
  - {{name: empty, emptyDir: {{}}}}
  - {{name: memory, emptyDir: {{medium: Memory}}}}
  - {{name: host, hostPath: {{path: /etc/kubernetes, type: Directory}}}}
  - {{name: config, configMap: {{name: config}}}}
  - {{name: secret, secret: {{secretName: secret, defaultMode: 0400}}}}
  - name: info
    downwardAPI:
      items:
      - {{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}
"#
    ))?;
    ns.ready("mounts")?;
    let sh = |script: &str| ns.exec("mounts", &["sh", "-c", script]);
    ensure!(
        sh("cat /config/key /secret/password /single /info/labels")? == "firsthiddenocolor=\"blue\"",
        "{}",
        sh("cat /config/key /secret/password /single /info/labels")?
    );
    ensure!(
        sh("echo $FROM_CONFIG $FROM_SECRET $POD_NAME $MEMORY $EXPANDED")?.trim()
            == "first hidden mounts 67108864 mounts-x",
        "{}",
        sh("env")?
    );
    ensure!(sh("echo a > /empty/a; echo b > /memory/b; cat /empty/a /memory/b")? == "a\nb\n", "writable");
    ensure!(sh("touch /host/x 2>&1 || true")?.contains("Read-only"), "a read-only mount");
    ensure!(sh("ls /host")?.contains("kube-proxy.conf"), "the host's folder");
    ensure!(sh("mount | grep ' /memory '")?.contains("tmpfs"), "memory is tmpfs");
    ensure!(sh("stat -c %g /empty")?.trim() == "2000", "fsGroup owns the volume");
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    ensure!(sh(&format!("cat {token}/namespace"))? == ns.name, "the projected namespace");
    ensure!(sh(&format!("wc -c < {token}/token"))?.trim().parse::<u32>()? > 100, "a projected token");
    ensure!(
        sh("cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max")?
            .trim()
            == "67108864",
        "the memory limit"
    );
    ns.kubectl(&["patch", "configmap", "config", "-p", r#"{"data":{"key":"second"}}"#])?;
    eventually("the new value", Duration::from_secs(120), || {
        ensure!(sh("cat /config/key")? == "second", "still the old one");
        Ok(())
    })
}

#[test]
fn init_containers_run_in_order_before_the_rest() -> Result<()> {
    let ns = Cluster::running().namespace("init")?;
    ns.apply(&format!(
        r"
apiVersion: v1
kind: Pod
metadata: {{name: staged}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {{name: one, image: {IMAGE}, command: [sh, -c, 'echo one >> /stage/log'], volumeMounts: [{{name: work, mountPath: /stage}}]}}
  - {{name: beside, image: {IMAGE}, restartPolicy: Always, command: [sh, -c, 'echo beside >> /stage/log; trap exit TERM; while :; do sleep 1; done'], volumeMounts: [{{name: work, mountPath: /stage}}]}}
  - {{name: two, image: {IMAGE}, command: [sh, -c, 'until grep -q beside /stage/log; do sleep 0.1; done; echo two >> /stage/log'], volumeMounts: [{{name: work, mountPath: /stage}}]}}
  containers:
  - {{name: main, image: {IMAGE}, command: [sh, -c, 'trap exit TERM; while :; do sleep 1; done'], volumeMounts: [{{name: work, mountPath: /stage}}]}}
  volumes: [{{name: work, emptyDir: {{}}}}]
"
    ))?;
    ns.ready("staged")?;
    let log = ns.kubectl(&["exec", "staged", "-c", "main", "--", "cat", "/stage/log"])?;
    ensure!(log == "one\nbeside\ntwo\n", "{log}");
    Ok(())
}

#[test]
fn a_container_that_ends_is_restarted_with_back_off() -> Result<()> {
    let ns = Cluster::running().namespace("crash")?;
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: crash}}\nspec:\n  containers:\n  - {{name: main, image: {IMAGE}, command: [sh, -c, 'echo out; exit 3']}}\n"
    ))?;
    eventually("CrashLoopBackOff", Duration::from_secs(60), || {
        let pod = ns.json(&["get", "pod", "crash"])?;
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(status["restartCount"].as_u64() >= Some(1), "{status}");
        ensure!(status["state"]["waiting"]["reason"] == "CrashLoopBackOff", "{status}");
        ensure!(status["lastState"]["terminated"]["exitCode"] == 3, "{status}");
        Ok(())
    })?;
    ensure!(ns.kubectl(&["logs", "crash", "--previous"])?.contains("out"), "logs of the previous container");
    Ok(())
}

#[test]
fn restart_policy_never_and_on_failure_end() -> Result<()> {
    let ns = Cluster::running().namespace("ends")?;
    for (name, policy, script, phase) in [
        ("fine", "Never", "exit 0", "Succeeded"),
        ("bad", "Never", "exit 1", "Failed"),
        ("ok", "OnFailure", "exit 0", "Succeeded"),
    ] {
        ns.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  containers:\n  - {{name: main, image: {IMAGE}, command: [sh, -c, '{script}']}}\n"
        ))?;
        ns.kubectl(&[
            "wait",
            &format!("--for=jsonpath={{.status.phase}}={phase}"),
            "pod",
            name,
            "--timeout=60s",
        ])?;
    }
    Ok(())
}

#[test]
fn a_failing_liveness_probe_restarts_the_container() -> Result<()> {
    let ns = Cluster::running().namespace("liveness")?;
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: live}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {IMAGE}\n    startupProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}\n    livenessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1, failureThreshold: 2}}\n"
    ))?;
    ns.ready("live")?;
    ns.exec("live", &["rm", "/tmp/www/index.html"])?;
    eventually("a restart", Duration::from_secs(60), || {
        let count = ns.kubectl(&[
            "get",
            "pod",
            "live",
            "-o",
            "jsonpath={.status.containerStatuses[0].restartCount}",
        ])?;
        ensure!(count == "1", "{count} restarts");
        Ok(())
    })?;
    let events = ns.kubectl(&["get", "events", "--field-selector", "involvedObject.name=live"])?;
    ensure!(events.contains("Unhealthy") && events.contains("Liveness probe failed"), "{events}");
    Ok(())
}

#[test]
fn pods_live_in_cgroups_by_quality_of_service() -> Result<()> {
    let ns = Cluster::running().namespace("qos")?;
    for (name, resources, class) in [
        ("best", "{}", "BestEffort"),
        ("burst", "{requests: {cpu: 10m}}", "Burstable"),
        ("sure", "{limits: {cpu: 100m, memory: 32Mi}}", "Guaranteed"),
    ] {
        ns.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: node1\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: {IMAGE}, resources: {resources}}}\n"
        ))?;
        ns.ready(name)?;
        let pod = ns.json(&["get", "pod", name])?;
        ensure!(pod["status"]["qosClass"] == class, "{name} is {}", pod["status"]["qosClass"]);
        let uid = pod["metadata"]["uid"].as_str().unwrap_or("");
        let parent = match class {
            "Guaranteed" => "kubepods".to_owned(),
            other => format!("kubepods/{}", other.to_lowercase()),
        };
        let found = ns.cluster.node(
            "node1",
            &["find", "/sys/fs/cgroup", "-type", "d", "-path", &format!("*/{parent}/pod{uid}")],
        )?;
        ensure!(!found.trim().is_empty(), "no cgroup {parent}/pod{uid}");
    }
    Ok(())
}

#[test]
fn an_unschedulable_pod_says_why() -> Result<()> {
    let ns = Cluster::running().namespace("unfit")?;
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: big}}\nspec:\n  containers:\n  - {{name: main, image: {IMAGE}, resources: {{requests: {{cpu: 1k}}}}}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: picky}}\nspec:\n  nodeSelector: {{nowhere: here}}\n  containers:\n  - {{name: main, image: {IMAGE}}}\n"
    ))?;
    for (pod, why) in
        [("big", "Insufficient cpu"), ("picky", "node(s) didn't match Pod's node affinity/selector")]
    {
        eventually("FailedScheduling", Duration::from_secs(30), || {
            let pod = ns.json(&["get", "pod", pod])?;
            let conditions = pod["status"]["conditions"].to_string();
            ensure!(conditions.contains("Unschedulable") && conditions.contains(why), "{conditions}");
            Ok(())
        })?;
        let events =
            ns.kubectl(&["get", "events", "--field-selector", &format!("involvedObject.name={pod}")])?;
        // How many there are, the walk over all kinds changes for a moment.
        ensure!(events.contains("FailedScheduling") && events.contains(" nodes are available"), "{events}");
    }
    Ok(())
}

#[test]
fn deleting_a_namespace_empties_it() -> Result<()> {
    let cluster = Cluster::running();
    let ns = cluster.namespace("gone")?;
    ns.web("web", 1)?;
    ns.kubectl(&["create", "configmap", "left"])?;
    cluster.kubectl(&["delete", "namespace", &ns.name, "--timeout=90s"])?;
    let said = ns.kubectl_fails(&["create", "configmap", "late"])?;
    ensure!(said.contains("not found"), "{said}");
    Ok(())
}

#[test]
fn deleting_an_owner_collects_what_it_owned() -> Result<()> {
    let ns = Cluster::running().namespace("gc")?;
    ns.web("web", 1)?;
    ns.kubectl(&["delete", "deployment", "web", "--cascade=orphan"])?;
    ensure!(ns.pods("app=web")?.len() == 1, "orphaned pods stay");
    ns.kubectl(&["delete", "replicaset", "-l", "app=web", "--cascade=foreground", "--timeout=60s"])?;
    ensure!(ns.pods("app=web")?.is_empty(), "foreground deletion waits for the pods");
    Ok(())
}
