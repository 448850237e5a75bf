//! kubectl as the conformance cases of sig-cli have it, beyond what `kubectl` tries.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Background, Cluster, IMAGE, Namespace, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

fn replication_controller(name: &str, replicas: u32) -> String {
    format!(
        r"
apiVersion: v1
kind: ReplicationController
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{app: {name}}}
  template:{}
",
        tests::web_template(name)
    )
}

fn has_ready(ns: &Namespace, name: &str, wanted: usize) -> Result<()> {
    eventually("the pods of a replication controller", PATIENCE, || {
        let status = &ns.json(&["get", "rc", name])?["status"];
        ensure!(status["replicas"] == wanted && status["readyReplicas"] == wanted, "{status}");
        ensure!(ns.pods(&format!("app={name}"))?.len() == wanted, "pods are on their way");
        Ok(())
    })
}

#[test]
fn replication_controllers_scale_and_serve() -> Result<()> {
    let ns = Cluster::running().namespace("rc")?;
    ns.apply(&replication_controller("demo", 2))?;
    has_ready(&ns, "demo", 2)?;
    ns.kubectl(&["scale", "rc", "demo", "--replicas=1", "--timeout=60s"])?;
    has_ready(&ns, "demo", 1)?;
    ns.kubectl(&["scale", "rc", "demo", "--current-replicas=1", "--replicas=2", "--timeout=60s"])?;
    has_ready(&ns, "demo", 2)?;

    let described = ns.kubectl(&["describe", "rc", "demo"])?;
    for part in [
        "Name:",
        "Namespace:",
        "Selector:",
        "app=demo",
        "2 current / 2 desired",
        "2 Running",
        "Pod Template:",
        "SuccessfulCreate",
    ] {
        ensure!(described.contains(part), "no {part} in: {described}");
    }
    let pod = ns.pods("app=demo")?.pop().context("a pod")?;
    ensure!(ns.kubectl(&["describe", "pod", &pod])?.contains("ReplicationController/demo"), "its owner");
    ns.kubectl(&["patch", "pod", &pod, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#])?;
    ensure!(ns.json(&["get", "pod", &pod])?["metadata"]["annotations"]["x"] == "y", "the annotation");

    ns.kubectl(&["expose", "rc", "demo", "--name=first", "--port=1234", "--target-port=8080"])?;
    ns.kubectl(&["expose", "service", "first", "--name=second", "--port=2345", "--target-port=8080"])?;
    for (service, port) in [("first", 1234), ("second", 2345)] {
        eventually("the endpoints of an exposed service", PATIENCE, || {
            let endpoints = ns.json(&["get", "endpoints", service])?;
            let subset = &endpoints["subsets"][0];
            ensure!(subset["ports"][0]["port"] == 8080, "{endpoints}");
            ensure!(subset["addresses"].as_array().is_some_and(|a| a.len() == 2), "{endpoints}");
            Ok(())
        })?;
        ensure!(ns.json(&["get", "service", service])?["spec"]["ports"][0]["port"] == port, "its port");
    }

    // A pod that no longer fits is let go and replaced; one that fits again is taken back, and one is too many.
    ns.kubectl(&["label", "pod", &pod, "app=other", "--overwrite"])?;
    eventually("a released pod", PATIENCE, || {
        let released = ns.json(&["get", "pod", &pod])?;
        ensure!(released["metadata"].get("ownerReferences").is_none(), "{}", released["metadata"]);
        Ok(())
    })?;
    has_ready(&ns, "demo", 2)?;
    ns.kubectl(&["label", "pod", &pod, "app=demo", "--overwrite"])?;
    has_ready(&ns, "demo", 2)?;
    ns.kubectl(&["delete", "rc", "demo", "--timeout=60s"])?;
    eventually("the pods to go with their owner", PATIENCE, || {
        ensure!(ns.pods("app=demo")?.is_empty(), "pods are left");
        Ok(())
    })
}

#[test]
fn a_pod_is_run_labelled_tried_and_replaced() -> Result<()> {
    let ns = Cluster::running().namespace("run")?;
    ns.kubectl(&["run", "one", "--image", IMAGE, "--restart=Never", "--labels=run=one"])?;
    ns.ready("one")?;
    let pod = ns.json(&["get", "pod", "one"])?;
    ensure!(
        pod["spec"]["restartPolicy"] == "Never" && pod["spec"]["containers"][0]["image"] == IMAGE,
        "{pod}"
    );

    ns.kubectl(&["label", "pod", "one", "testing-label=testing-label-value"])?;
    let listed = ns.kubectl(&["get", "pod", "one", "-L", "testing-label"])?;
    ensure!(listed.contains("TESTING-LABEL") && listed.contains("testing-label-value"), "{listed}");
    ns.kubectl(&["label", "pod", "one", "testing-label-"])?;
    ensure!(
        !ns.kubectl(&["get", "pod", "one", "-L", "testing-label"])?.contains("testing-label-value"),
        "it is gone"
    );

    let other = "localhost/pintle/absent:local";
    let patch = format!(r#"{{"spec":{{"containers":[{{"name":"one","image":"{other}"}}]}}}}"#);
    ns.kubectl(&["patch", "pod", "one", "-p", &patch, "--dry-run=server"])?;
    let image = ["get", "pod", "one", "-o", "jsonpath={.spec.containers[0].image}"];
    ensure!(ns.kubectl(&image)? == IMAGE, "a dry run changes nothing");

    let changed = ns.json(&["get", "pod", "one"])?.to_string().replace(IMAGE, other);
    ns.kubectl_in(&["replace", "-f", "-"], &changed)?;
    ensure!(ns.kubectl(&image)? == other, "replaced");
    ns.kubectl(&["delete", "pod", "one", "--timeout=60s"])?;
    Ok(())
}

#[test]
fn diff_finds_what_would_change() -> Result<()> {
    let ns = Cluster::running().namespace("diff")?;
    ns.web("web", 1)?;
    let diff = |replicas: u32| -> Result<(Option<i32>, String)> {
        let output = ns.with_input(&["diff", "-f", "-"], &tests::web_manifest("web", replicas))?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    ensure!(diff(1)? == (Some(0), String::new()), "nothing would change");
    let (code, shown) = diff(3)?;
    ensure!(code == Some(1), "a difference is exit status 1");
    ensure!(shown.contains("-  replicas: 1") && shown.contains("+  replicas: 3"), "{shown}");
    Ok(())
}

#[test]
fn versions_and_cluster_info() -> Result<()> {
    let cluster = Cluster::running();
    let version = cluster.kubectl(&["version"])?;
    ensure!(version.contains("Client Version: ") && version.contains("Server Version: v1.36."), "{version}");
    let info = cluster.kubectl(&["cluster-info"])?;
    ensure!(info.contains("Kubernetes control plane") && info.contains("is running at"), "{info}");
    ensure!(cluster.kubectl(&["api-versions"])?.lines().any(|line| line == "v1"), "v1 is served");
    Ok(())
}

/// Asks for `/api/` over a connection to `kubectl proxy`.
fn api_versions(mut connection: impl Read + Write) -> Result<()> {
    connection.write_all(b"GET /api/ HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    ensure!(answer.contains("200 OK") && answer.contains("APIVersions"), "through the proxy: {answer}");
    Ok(())
}

#[test]
fn proxy_listens_on_any_port_and_on_a_socket() -> Result<()> {
    let cluster = Cluster::running();
    let begin = |args: &[&str]| -> Result<(Background, BufReader<_>, String)> {
        let mut child = cluster.command(args).stdout(Stdio::piped()).spawn()?;
        let mut out = BufReader::new(child.stdout.take().context("stdout")?);
        let child = Background(child);
        let mut line = String::new();
        out.read_line(&mut line)?;
        Ok((child, out, line))
    };
    let (_proxy, _out, said) = begin(&["proxy", "--port", "0", "--disable-filter"])?;
    let address = said.trim().strip_prefix("Starting to serve on ").with_context(|| said.clone())?;
    let connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    api_versions(connection)?;

    let socket = std::env::temp_dir().join(format!("pintle-proxy-{}", std::process::id()));
    let (_proxy, _out, said) = begin(&["proxy", &format!("--unix-socket={}", socket.display())])?;
    ensure!(said.contains("Starting to serve on"), "{said}");
    let connection = UnixStream::connect(&socket)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let answered = api_versions(connection);
    let _ = std::fs::remove_file(&socket);
    answered
}
