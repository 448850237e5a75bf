//! kubectl's everyday verbs.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Background, Cluster, IMAGE, eventually};

#[test]
fn create_get_describe_delete() -> Result<()> {
    let ns = Cluster::running().namespace("verbs")?;
    ns.kubectl(&["create", "deployment", "made", "--image", IMAGE, "--replicas=2"])?;
    ns.kubectl(&["rollout", "status", "deployment/made", "--timeout=120s"])?;
    let table = ns.kubectl(&["get", "deployments"])?;
    ensure!(table.contains("UP-TO-DATE") && table.contains("2/2"), "columns of a deployment: {table}");
    let wide = ns.kubectl(&["get", "pods", "-o", "wide"])?;
    for column in
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"]
    {
        ensure!(wide.contains(column), "-o wide has no {column}: {wide}");
    }
    let yaml = ns.kubectl(&["get", "deployment", "made", "-o", "yaml"])?;
    ensure!(yaml.contains("progressDeadlineSeconds: 600"), "defaults are shown: {yaml}");
    let described = ns.kubectl(&["describe", "deployment", "made"])?;
    ensure!(described.contains("ScalingReplicaSet"), "events are described: {described}");
    let pod = ns.pods("app=made")?.pop().context("a pod")?;
    let described = ns.kubectl(&["describe", "pod", &pod])?;
    for reason in ["Scheduled", "Created", "Started"] {
        ensure!(described.contains(reason), "no event {reason}: {described}");
    }
    let all = ns.cluster.kubectl(&["get", "all", "-A"])?;
    ensure!(all.contains("deployment.apps/made") && all.contains("service/kubernetes"), "get all -A: {all}");
    ns.kubectl(&["delete", "deployment", "made", "--timeout=60s"])?;
    eventually("the pods to go", Duration::from_secs(60), || {
        ensure!(ns.pods("app=made")?.is_empty(), "pods are left");
        Ok(())
    })
}

#[test]
fn apply_changes_only_what_changed() -> Result<()> {
    let ns = Cluster::running().namespace("apply")?;
    ns.web("web", 1)?;
    let again = ns.apply(&tests::web_manifest("web", 1))?;
    ensure!(again.contains("deployment.apps/web unchanged"), "{again}");
    let changed = ns.apply(&tests::web_manifest("web", 2))?;
    ensure!(changed.contains("deployment.apps/web configured"), "{changed}");
    ensure!(changed.contains("service/web unchanged"), "{changed}");
    ns.kubectl(&["label", "deployment", "web", "extra=yes"])?;
    ns.kubectl(&["annotate", "service", "web", "note=hello"])?;
    ns.kubectl(&[
        "patch",
        "deployment",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/replicas","value":3}]"#,
    ])?;
    ns.kubectl(&[
        "patch",
        "deployment",
        "web",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}"#,
    ])?;
    let web = ns.json(&["get", "deployment", "web"])?;
    ensure!(web["spec"]["replicas"] == 3 && web["metadata"]["labels"]["extra"] == "yes", "{web}");
    let container = &web["spec"]["template"]["spec"]["containers"][0];
    ensure!(
        container["image"] == IMAGE && container["env"][0]["name"] == "A",
        "a strategic merge: {container}"
    );
    Ok(())
}

#[test]
fn watch_shows_changes_as_they_come() -> Result<()> {
    let ns = Cluster::running().namespace("watch")?;
    let mut child = ns
        .command(&["get", "configmaps", "-w", "--output-watch-events", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut out = child.stdout.take().context("stdout")?;
    let child = Background(child);
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = out.read(&mut buffer) {
            if send.send(String::from_utf8_lossy(&buffer[..n]).into_owned()).is_err() {
                return;
            }
        }
    });
    ns.kubectl(&["create", "configmap", "one", "--from-literal=a=b"])?;
    ns.kubectl(&["delete", "configmap", "one"])?;
    let mut seen = String::new();
    while !seen.contains("configmap/one") {
        seen.push_str(&lines.recv_timeout(Duration::from_secs(20)).context("nothing more from the watch")?);
    }
    drop(child);
    Ok(())
}

#[test]
fn rollout_goes_forward_and_back() -> Result<()> {
    let ns = Cluster::running().namespace("rollout")?;
    ns.web("web", 2)?;
    ns.kubectl(&["scale", "deployment", "web", "--replicas=3"])?;
    ns.kubectl(&["rollout", "status", "deployment", "web", "--timeout=120s"])?;
    ns.kubectl(&["set", "env", "deployment", "web", "VERSION=2"])?;
    ns.kubectl(&["rollout", "status", "deployment", "web", "--timeout=120s"])?;
    let history = ns.kubectl(&["rollout", "history", "deployment", "web"])?;
    ensure!(history.contains('1') && history.contains('2'), "two revisions: {history}");
    ns.kubectl(&["set", "image", "deployment/web", "web=localhost/pintle/absent:local"])?;
    eventually("the pull to fail", Duration::from_secs(60), || {
        let pods = ns.kubectl(&["get", "pods"])?;
        ensure!(pods.contains("ErrImagePull") || pods.contains("ImagePullBackOff"), "{pods}");
        Ok(())
    })?;
    let ready = ns.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.status.availableReplicas}"])?;
    ensure!(ready.parse::<u32>()? >= 2, "a broken image must not take the old pods down: {ready}");
    ns.kubectl(&["rollout", "undo", "deployment", "web"])?;
    ns.kubectl(&["rollout", "status", "deployment", "web", "--timeout=120s"])?;
    let env = ns.kubectl(&[
        "get",
        "deployment",
        "web",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].env[0].value}",
    ])?;
    ensure!(env == "2", "undo went to {env}");
    Ok(())
}

#[test]
fn logs_exec_attach_and_copy() -> Result<()> {
    let ns = Cluster::running().namespace("streams")?;
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: talk}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {IMAGE}\n    stdin: true\n    command: [sh, -c, 'i=0; while [ $i -lt 5 ]; do echo line $i; i=$((i+1)); sleep 0.2; done; while read x; do echo got $x; done; trap exit TERM; while :; do sleep 1; done']\n"
    ))?;
    ns.ready("talk")?;
    let mut follow = ns.command(&["logs", "-f", "talk"]).stdout(Stdio::piped()).spawn()?;
    let mut followed = follow.stdout.take().context("stdout")?;
    let follow = Background(follow);
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.contains("line 4") {
        let n = followed.read(&mut buffer)?;
        ensure!(n > 0, "logs -f ended early: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    drop(follow);
    ensure!(ns.kubectl(&["logs", "talk", "--tail=1"])?.trim() == "line 4", "--tail");
    ensure!(ns.kubectl(&["logs", "talk", "--timestamps"])?.contains('T'), "--timestamps");

    ensure!(ns.exec("talk", &["echo", "hello"])?.trim() == "hello", "exec");
    let failed = ns.command(&["exec", "talk", "--", "sh", "-c", "exit 7"]).status()?;
    ensure!(failed.code() == Some(7), "the exit status comes back: {failed}");
    let mut cat = ns
        .command(&["exec", "-i", "talk", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    {
        use std::io::Write;
        let mut stdin = cat.stdin.take().context("stdin")?;
        stdin.write_all(&vec![b'x'; 1 << 20])?;
    }
    let echoed = cat.wait_with_output()?.stdout;
    ensure!(echoed.len() == 1 << 20, "a megabyte through cat came back as {} bytes", echoed.len());
    let kubectl = format!(
        "kubectl --kubeconfig {} -n {} exec -it talk -- sh -c 'test -t 0 && echo a terminal'",
        ns.cluster.kubeconfig().display(),
        ns.name
    );
    let terminal =
        Command::new("script").args(["-qec", &kubectl, "/dev/null"]).stdin(Stdio::null()).output()?;
    ensure!(String::from_utf8_lossy(&terminal.stdout).contains("a terminal"), "exec -it: {terminal:?}");

    let mut attach =
        ns.command(&["attach", "-i", "talk"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut out = attach.stdout.take().context("stdout")?;
    let mut stdin = attach.stdin.take().context("stdin")?;
    let attach = Background(attach);
    std::io::Write::write_all(&mut stdin, b"this\n")?;
    let mut seen = String::new();
    while !seen.contains("got this") {
        let n = out.read(&mut buffer)?;
        ensure!(n > 0, "attach ended early: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    drop(attach);

    let dir = std::env::temp_dir().join(&ns.name);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("up"), "carried")?;
    ns.kubectl(&["cp", &dir.join("up").display().to_string(), "talk:/tmp/up"])?;
    ensure!(ns.exec("talk", &["cat", "/tmp/up"])? == "carried", "cp to a pod");
    ns.kubectl(&["cp", "talk:/tmp/up", &dir.join("down").display().to_string()])?;
    ensure!(std::fs::read_to_string(dir.join("down"))? == "carried", "cp from a pod");
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

#[test]
fn port_forward_reaches_a_pod() -> Result<()> {
    use std::io::{BufRead, BufReader, Write};
    let ns = Cluster::running().namespace("forward")?;
    ns.web("web", 1)?;
    let mut child =
        ns.command(&["port-forward", "deployment/web", ":8080"]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    // Kept to the end: kubectl would die of writing to a closed pipe.
    let mut out = BufReader::new(child.stdout.take().context("stdout")?);
    out.read_line(&mut line)?;
    let _child = Background(child);
    let port: u16 = line
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|p| p.parse().ok())
        .with_context(|| format!("port-forward said {line:?}"))?;
    for _ in 0..2 {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains("200 OK") && answer.contains("web-"), "through the forward: {answer}");
    }
    Ok(())
}

#[test]
fn debug_adds_an_ephemeral_container() -> Result<()> {
    let ns = Cluster::running().namespace("debug")?;
    ns.sleeper("target", None)?;
    ns.kubectl(&[
        "debug",
        "target",
        "--image",
        IMAGE,
        "--container=probe",
        "--",
        "sh",
        "-c",
        "echo looked; sleep 60",
    ])?;
    eventually("the ephemeral container to speak", Duration::from_secs(60), || {
        let said = ns.kubectl(&["logs", "target", "-c", "probe"])?;
        ensure!(said.contains("looked"), "{said}");
        Ok(())
    })
}

#[test]
fn explain_and_discovery() -> Result<()> {
    let cluster = Cluster::running();
    let explained = cluster.kubectl(&["explain", "deployment.spec.strategy"])?;
    ensure!(explained.contains("rollingUpdate") && explained.contains("DESCRIPTION"), "{explained}");
    let resources = cluster.kubectl(&["api-resources"])?;
    for name in ["pods", "deployments", "endpointslices", "leases", "certificatesigningrequests"] {
        ensure!(resources.contains(name), "api-resources has no {name}");
    }
    let versions = cluster.kubectl(&["api-versions"])?;
    ensure!(versions.contains("apps/v1") && versions.contains("rbac.authorization.k8s.io/v1"), "{versions}");
    ensure!(cluster.kubectl(&["version"])?.contains("Server Version: v1.36"), "version");
    Ok(())
}

#[test]
fn delete_waits_for_the_grace_period() -> Result<()> {
    let ns = Cluster::running().namespace("grace")?;
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: slow}}\nspec:\n  containers:\n  - name: main\n    image: {IMAGE}\n    command: [sh, -c, 'trap \"\" TERM; while :; do sleep 1; done']\n"
    ))?;
    ns.ready("slow")?;
    let since = std::time::Instant::now();
    ns.kubectl(&["delete", "pod", "slow", "--grace-period=3", "--timeout=60s"])?;
    let took = since.elapsed();
    ensure!(
        took >= Duration::from_secs(3),
        "a pod that ignores TERM went after {took:?}, before its grace period"
    );
    ensure!(took < Duration::from_secs(20), "and it took {took:?}");
    Ok(())
}
