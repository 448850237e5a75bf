//! A page through a ClusterIP, a NodePort and a DNS name, within and across nodes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Cluster, IMAGE, eventually};

#[test]
fn a_service_answers_from_the_other_node() -> Result<()> {
    let ns = Cluster::running().namespace("net")?;
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: server, labels: {{app: web}}}}\nspec:\n  nodeName: node1\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: web\n    image: {IMAGE}\n    readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: NodePort\n  selector: {{app: web}}\n  ports: [{{port: 80, targetPort: 8080}}]\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: headless}}\nspec:\n  clusterIP: None\n  selector: {{app: web}}\n  ports: [{{name: http, port: 8080}}]\n"
    ))?;
    ns.sleeper("client", Some("node2"))?;
    ns.ready("server")?;
    let service = ns.json(&["get", "service", "web"])?;
    let address = service["spec"]["clusterIP"].as_str().context("clusterIP")?;
    let node_port = service["spec"]["ports"][0]["nodePort"].as_u64().context("nodePort")?;
    let pod_address = ns.kubectl(&["get", "pod", "server", "-o", "jsonpath={.status.podIP}"])?;
    let node_address = ns.cluster.kubectl(&[
        "get",
        "node",
        "node2",
        "-o",
        r#"jsonpath={.status.addresses[?(@.type=="InternalIP")].address}"#,
    ])?;
    let urls = [
        format!("http://{pod_address}:8080/hostname"),
        format!("http://{address}/hostname"),
        "http://web/hostname".to_owned(),
        format!("http://web.{}.svc.cluster.local/hostname", ns.name),
        format!("http://headless.{}.svc.cluster.local:8080/hostname", ns.name),
        format!("http://{node_address}:{node_port}/hostname"),
    ];
    for url in urls {
        eventually(&url, Duration::from_secs(30), || {
            let page = ns.exec("client", &["wget", "-qO-", &url])?;
            ensure!(page.trim() == "server", "{url} said {page:?}");
            Ok(())
        })?;
        // The same from the node itself, and from the pod that serves.
        if !url.contains("//web") && !url.contains("headless") {
            let page = ns.cluster.node("node2", &["busybox", "wget", "-qO-", &url])?;
            ensure!(page.trim() == "server", "from the node, {url} said {page:?}");
        }
        let page = ns.exec("server", &["wget", "-qO-", &url])?;
        ensure!(page.trim() == "server", "from the server itself (hairpin), {url} said {page:?}");
    }
    Ok(())
}

#[test]
fn endpoints_follow_readiness() -> Result<()> {
    let ns = Cluster::running().namespace("ready")?;
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: server, labels: {{app: web}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: web\n    image: {IMAGE}\n    readinessProbe: {{exec: {{command: [test, -e, /tmp/ok]}}, periodSeconds: 1, failureThreshold: 1}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  selector: {{app: web}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
    ))?;
    eventually("the container to run", Duration::from_secs(60), || ns.exec("server", &["true"]))?;
    let addresses =
        |kind: &str| ns.kubectl(&["get", kind, "web", "-o", "jsonpath={.subsets[*].addresses[*].ip}"]);
    let slice_ready = || {
        ns.kubectl(&[
            "get",
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=web",
            "-o",
            "jsonpath={.items[*].endpoints[*].conditions.ready}",
        ])
    };
    eventually("no ready endpoint at first", Duration::from_secs(20), || {
        ensure!(
            addresses("endpoints")?.is_empty() && slice_ready()? == "false",
            "{} {}",
            addresses("endpoints")?,
            slice_ready()?
        );
        Ok(())
    })?;
    ns.exec("server", &["touch", "/tmp/ok"])?;
    eventually("a ready endpoint", Duration::from_secs(20), || {
        ensure!(!addresses("endpoints")?.is_empty() && slice_ready()? == "true", "not yet");
        Ok(())
    })?;
    ns.exec("server", &["rm", "/tmp/ok"])?;
    eventually("the endpoint to go", Duration::from_secs(20), || {
        ensure!(addresses("endpoints")?.is_empty() && slice_ready()? == "false", "not yet");
        Ok(())
    })
}

#[test]
fn session_affinity_keeps_the_client_on_one_pod() -> Result<()> {
    let ns = Cluster::running().namespace("affinity")?;
    ns.web("web", 3)?;
    ns.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"sessionAffinity":"ClientIP"}}"#])?;
    ns.sleeper("client", None)?;
    eventually("one pod to answer twelve times", Duration::from_secs(30), || {
        let pages = ns.exec(
            "client",
            &["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do wget -qO- http://web/hostname; done"],
        )?;
        let mut names: Vec<&str> = pages.lines().collect();
        names.dedup();
        ensure!(names.len() == 1, "several pods answered: {names:?}");
        Ok(())
    })
}

#[test]
fn a_service_without_endpoints_refuses() -> Result<()> {
    let ns = Cluster::running().namespace("refuse")?;
    ns.apply("apiVersion: v1\nkind: Service\nmetadata: {name: none}\nspec:\n  selector: {app: none}\n  ports: [{port: 80}]\n")?;
    ns.sleeper("client", None)?;
    eventually("a refusal", Duration::from_secs(30), || {
        let said = ns.kubectl_fails(&["exec", "client", "--", "wget", "-qO-", "http://none/"])?;
        ensure!(said.contains("refused"), "{said}");
        Ok(())
    })
}

#[test]
fn services_take_addresses_of_further_ranges() -> Result<()> {
    let ns = Cluster::running().namespace("ranges")?;
    let (cluster, range) = (&ns.cluster, ns.name.as_str());
    let manifest = format!(
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {{name: {range}}}\nspec: {{cidrs: [10.98.7.0/29]}}\n"
    );
    cluster.kubectl_in(&["create", "-f", "-"], &manifest)?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "servicecidr", range, "--timeout=30s"])?;
    ns.web("web", 1)?;
    ns.sleeper("client", Some("node2"))?;
    let service = |address: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: far}}\nspec:\n  clusterIP: {address}\n  selector: {{app: web}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
        )
    };
    let refused = cluster.kubectl_in_fails(&["-n", range, "create", "-f", "-"], &service("10.99.0.1"))?;
    ensure!(refused.contains("does not match the current range"), "{refused}");
    ns.apply(&service("10.98.7.5"))?;
    let address = cluster.json(&["get", "ipaddress", "10.98.7.5"])?;
    ensure!(
        address["spec"]["parentRef"]["name"] == "far" && address["spec"]["parentRef"]["namespace"] == range,
        "{address}"
    );
    eventually("a page from the further range", Duration::from_secs(30), || {
        ns.exec("client", &["wget", "-qO-", "http://10.98.7.5/hostname"])
    })?;

    // The range stays as long as a service has an address of it.
    cluster.kubectl(&["delete", "servicecidr", range, "--wait=false"])?;
    cluster.kubectl(&["wait", "--for=condition=Ready=False", "servicecidr", range, "--timeout=30s"])?;
    ns.kubectl(&["delete", "service", "far"])?;
    cluster.kubectl(&["wait", "--for=delete", "servicecidr", range, "--timeout=60s"])?;
    let left = cluster.kubectl_fails(&["get", "ipaddress", "10.98.7.5"])?;
    ensure!(left.contains("NotFound"), "{left}");
    Ok(())
}
