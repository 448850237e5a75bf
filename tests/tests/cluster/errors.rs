//! Wrong input gets upstream's Status, and the server lives on.

use anyhow::{Result, ensure};
use tests::{Cluster, IMAGE};

fn check(manifest: &str, args: &[&str], expected: &[&str]) -> Result<()> {
    let cluster = Cluster::running();
    let mut all = vec!["create", "-n", "default", "-f", "-"];
    all.extend_from_slice(args);
    let said = cluster.kubectl_in_fails(&all, manifest)?;
    for text in expected {
        ensure!(said.contains(text), "expected {text:?} in: {said}");
    }
    ensure!(cluster.kubectl(&["get", "--raw", "/readyz"])? == "ok", "the server lives on");
    Ok(())
}

#[test]
fn broken_manifests() -> Result<()> {
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec: {containers: [{name: a, image: b}]}\n",
        &["--validate=false"],
        &[
            "The Pod \"Bad_Name\" is invalid",
            "metadata.name: Invalid value: \"Bad_Name\"",
            "RFC 1123 subdomain",
        ],
    )?;
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: empty}\nspec: {containers: []}\n",
        &["--validate=false"],
        &["spec.containers: Required value"],
    )?;
    check(
        &format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\nspec:\n  selector: {{matchLabels: {{a: b}}}}\n  template:\n    metadata: {{labels: {{a: c}}}}\n    spec: {{containers: [{{name: x, image: {IMAGE}}}]}}\n"
        ),
        &[],
        &["spec.template.metadata.labels: Invalid value", "`selector` does not match template `labels`"],
    )?;
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: policy}\nspec: {restartPolicy: Sometimes, containers: [{name: a, image: b}]}\n",
        &[],
        &["spec.restartPolicy: Unsupported value: \"Sometimes\"", "\"Always\", \"Never\", \"OnFailure\""],
    )
}

#[test]
fn unknown_fields_are_refused_or_warned_about() -> Result<()> {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: odd}\nnonsense: 1\ndata: {a: b}\n";
    check(manifest, &["--validate=strict"], &["unknown field \"nonsense\""])?;
    let cluster = Cluster::running();
    let ns = cluster.namespace("warn")?;
    let mut warned = ns.command(&["create", "--validate=warn", "-f", "-"]);
    let output = with_input(&mut warned, manifest)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && said.contains("Warning: unknown field \"nonsense\""), "{said}");
    Ok(())
}

#[test]
fn wrong_types_and_sizes() -> Result<()> {
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: typed}\ndata: 5\n",
        &["--validate=false"],
        &["json: cannot unmarshal"],
    )?;
    check(
        &format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: large}}\ndata: {{a: \"{}\"}}\n",
            "x".repeat(1_100_000)
        ),
        &["--validate=false"],
        &["Too long: may not be more than 1048576 bytes"],
    )?;
    check(
        &format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: huge}}\ndata: {{a: \"{}\"}}\n",
            "x".repeat(4_000_000)
        ),
        &["--validate=false"],
        &["Request entity too large: limit is 3145728"],
    )
}

#[test]
fn what_is_not_there_is_said_so() -> Result<()> {
    let cluster = Cluster::running();
    let said = cluster.kubectl_fails(&["get", "pod", "absent", "-n", "default"])?;
    ensure!(said.contains("Error from server (NotFound): pods \"absent\" not found"), "{said}");
    let said = cluster.kubectl_fails(&["get", "--raw", "/apis/nowhere/v1"])?;
    ensure!(said.contains("could not find the requested resource"), "{said}");
    let said = cluster.kubectl_in_fails(
        &["create", "-f", "-"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: nowhere}\n",
    )?;
    ensure!(said.contains("namespaces \"nowhere\" not found"), "{said}");
    Ok(())
}

#[test]
fn a_stale_update_conflicts() -> Result<()> {
    let ns = Cluster::running().namespace("stale")?;
    ns.kubectl(&["create", "configmap", "c", "--from-literal=a=1"])?;
    let old = ns.kubectl(&["get", "configmap", "c", "-o", "json"])?;
    ns.kubectl(&["patch", "configmap", "c", "-p", r#"{"data":{"a":"2"}}"#])?;
    let mut replace = ns.command(&["replace", "-f", "-"]);
    let output = with_input(&mut replace, &old)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success()
            && said.contains(
                "the object has been modified; please apply your changes to the latest version and try again"
            ),
        "{said}"
    );
    Ok(())
}

fn with_input(command: &mut std::process::Command, input: &str) -> Result<std::process::Output> {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().expect("piped above").write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}
