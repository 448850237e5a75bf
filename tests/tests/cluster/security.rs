//! Who may do what: 401 and 403 as upstream words them, and the borders between nodes.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::{Cluster, Namespace};

fn curl(cluster: &Cluster, path: &str, extra: &[&str]) -> Result<(u16, String)> {
    let server = cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
    let output = Command::new("curl")
        .args(["-sk", "-w", "\n%{http_code}", "--max-time", "20"])
        .args(extra)
        .arg(format!("{server}{path}"))
        .output()
        .context("running curl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').context("curl's answer")?;
    Ok((code.parse()?, body.to_owned()))
}

#[test]
fn strangers_are_refused_as_upstream_refuses_them() -> Result<()> {
    let cluster = Cluster::running();
    let (code, body) = curl(&cluster, "/api/v1/pods", &[])?;
    ensure!(code == 403, "{code} {body}");
    ensure!(
        body.contains(r#"pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" at the cluster scope"#),
        "{body}"
    );
    let (code, body) = curl(&cluster, "/api/v1/pods", &["-H", "Authorization: Bearer nonsense"])?;
    ensure!(code == 401 && body.contains(r#""reason":"Unauthorized""#), "{code} {body}");
    let (code, _) = curl(&cluster, "/livez", &[])?;
    ensure!(code == 200, "health is open: {code}");
    let (code, body) = curl(&cluster, "/metrics", &[])?;
    ensure!(
        code == 403 && body.contains(r#"User \"system:anonymous\" cannot get path \"/metrics\""#),
        "{code} {body}"
    );
    Ok(())
}

#[test]
fn a_certificate_of_another_authority_is_no_identity() -> Result<()> {
    let cluster = Cluster::running();
    let dir = std::env::temp_dir().join(format!("pintle-stranger-{}", std::process::id()));
    let hack = cluster.state().join("bin/pintle-hack");
    let made = Command::new(hack)
        .args([
            "pki",
            "--node",
            "stranger",
            "--server",
            "https://127.0.0.1:1",
            "--admin-server",
            "https://127.0.0.1:1",
            "--token",
            "a.b",
            "--dir",
        ])
        .arg(&dir)
        .status()?;
    ensure!(made.success(), "a PKI of our own");
    let pki = dir.join("pki");
    let certificate = pki.join("apiserver-kubelet-client.crt").display().to_string();
    let key = pki.join("apiserver-kubelet-client.key").display().to_string();
    let (code, body) = curl(&cluster, "/api/v1/pods", &["--cert", &certificate, "--key", &key])?;
    std::fs::remove_dir_all(dir)?;
    ensure!(code == 401, "{code} {body}");
    Ok(())
}

#[test]
fn rbac_decides_and_can_be_asked() -> Result<()> {
    let ns = Cluster::running().namespace("rbac")?;
    let account = format!("system:serviceaccount:{}:reader", ns.name);
    ns.kubectl(&["create", "serviceaccount", "reader"])?;
    let can = |verb: &str, what: &str| {
        let output = ns.command(&["auth", "can-i", verb, what, "--as", &account]).output()?;
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    ensure!(can("list", "pods")? == "no", "nothing is granted yet");
    ns.kubectl(&["create", "role", "reader", "--verb=get,list,watch", "--resource=pods"])?;
    ns.kubectl(&[
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        &format!("--serviceaccount={}:reader", ns.name),
    ])?;
    tests::eventually("the grant", std::time::Duration::from_secs(10), || {
        ensure!(can("list", "pods")? == "yes", "not yet");
        Ok(())
    })?;
    ensure!(can("delete", "pods")? == "no", "only what was granted");
    ensure!(ns.kubectl(&["auth", "can-i", "--list"])?.contains("*.*"), "the administrator's rules");
    let token = ns.kubectl(&["create", "token", "reader"])?;
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let (code, body) = curl(&ns.cluster, &format!("/api/v1/namespaces/{}/pods", ns.name), &["-H", &bearer])?;
    ensure!(code == 200, "{code} {body}");
    let (code, body) =
        curl(&ns.cluster, &format!("/api/v1/namespaces/{}/secrets", ns.name), &["-H", &bearer])?;
    ensure!(
        code == 403 && body.contains(&format!(r#"User \"{account}\" cannot list resource \"secrets\""#)),
        "{code} {body}"
    );
    ns.kubectl(&["delete", "serviceaccount", "reader"])?;
    let (code, _) = curl(&ns.cluster, &format!("/api/v1/namespaces/{}/pods", ns.name), &["-H", &bearer])?;
    ensure!(code == 401, "a token does not outlive its account: {code}");
    Ok(())
}

#[test]
fn a_node_sees_its_own_secrets_only() -> Result<()> {
    let ns = Cluster::running().namespace("nodes")?;
    ns.kubectl(&["create", "secret", "generic", "mine", "--from-literal=a=b"])?;
    ns.kubectl(&["create", "secret", "generic", "theirs", "--from-literal=a=b"])?;
    for (pod, node, secret) in [("one", "node1", "mine"), ("two", "node2", "theirs")] {
        ns.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}}}\nspec:\n  nodeName: {node}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: {}, volumeMounts: [{{name: s, mountPath: /s}}]}}\n  volumes: [{{name: s, secret: {{secretName: {secret}}}}}]\n",
            tests::IMAGE
        ))?;
        ns.ready(pod)?;
    }
    let as_node2 = |args: &[&str]| as_node(&ns, "node2", args);
    ensure!(as_node2(&["get", "secret", "theirs"])?.0, "its own pod's secret");
    let (allowed, said) = as_node2(&["get", "secret", "mine"])?;
    ensure!(
        !allowed && said.contains("no relationship found between node 'node2' and this object"),
        "{said}"
    );
    let (allowed, said) = as_node2(&["get", "secrets"])?;
    ensure!(!allowed && said.contains("No Object name found"), "{said}");
    let (allowed, said) = as_node2(&["label", "node", "node1", "x=y"])?;
    ensure!(
        !allowed && said.contains("node \"node2\" is not allowed to modify node \"node1\"")
            || said.contains("forbidden"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_node_joins_by_token_and_is_given_its_certificate() -> Result<()> {
    let cluster = Cluster::running();
    let requests = cluster.json(&["get", "certificatesigningrequests"])?;
    let joined = requests["items"].as_array().context("items")?.iter().any(|request| {
        let spec = &request["spec"];
        spec["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet"
            && spec["username"].as_str().is_some_and(|u| u.starts_with("system:bootstrap:"))
            && request["status"]["certificate"].is_string()
    });
    ensure!(joined, "no node joined by its bootstrap token: {requests}");
    let (allowed, said) =
        as_node_alone(&cluster, "node2", &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"])?;
    ensure!(allowed && said == "system:node:node2", "{said}");
    Ok(())
}

/// kubectl with the kubelet's own credentials, run on its node.
fn as_node(ns: &Namespace, node: &str, args: &[&str]) -> Result<(bool, String)> {
    let mut all = vec!["-n", &ns.name];
    all.extend_from_slice(args);
    as_node_alone(&ns.cluster, node, &all)
}

fn as_node_alone(cluster: &Cluster, node: &str, args: &[&str]) -> Result<(bool, String)> {
    let kubectl = String::from_utf8(Command::new("which").arg("kubectl").output()?.stdout)?;
    let mut command = vec![kubectl.trim(), "--kubeconfig", "/etc/kubernetes/kubelet.conf"];
    command.extend_from_slice(args);
    Ok(match cluster.node(node, &command) {
        Ok(said) => (true, said),
        Err(error) => (false, error.to_string()),
    })
}
