//! What a cluster's API does beyond running pods: custom resources, field ownership, quotas, pod security.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{Cluster, IMAGE, Namespace, eventually};

const LONG: Duration = Duration::from_secs(60);

fn refused(ns: &Namespace, verb: &[&str], manifest: &str, expected: &str) -> Result<()> {
    let mut args = vec!["-n", ns.name.as_str()];
    args.extend_from_slice(verb);
    args.extend_from_slice(&["-f", "-"]);
    let said = ns.cluster.kubectl_in_fails(&args, manifest)?;
    ensure!(said.contains(expected), "expected {expected:?} in: {said}");
    Ok(())
}

fn widget_definition(group: &str) -> String {
    format!(
        r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: widgets.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: widgets, singular: widget, kind: Widget}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {{status: {{}}, scale: {{specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}}}
    additionalPrinterColumns: [{{name: Size, type: string, jsonPath: .spec.size}}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations:
            - {{rule: "self.min <= self.max", message: "min must not exceed max"}}
            - {{rule: "self.size == oldSelf.size", message: "size is immutable"}}
            properties:
              size: {{type: string, enum: [S, M, L], default: M, description: How large it is.}}
              min: {{type: integer, default: 0}}
              max: {{type: integer, default: 10}}
              replicas: {{type: integer, default: 1}}
          status: {{type: object, properties: {{replicas: {{type: integer}}}}}}
"#
    )
}

#[test]
fn custom_resources_are_like_others() -> Result<()> {
    let cluster = Cluster::running();
    let ns = cluster.namespace("custom")?;
    let group = format!("{}.example.com", ns.name);
    let widgets = format!("widgets.{group}");
    let definition = widget_definition(&group);
    cluster.kubectl_in(&["apply", "-f", "-"], &definition)?;
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &format!("crd/{widgets}")])?;

    let widget = |spec: &str| {
        format!("apiVersion: {group}/v1\nkind: Widget\nmetadata: {{name: w}}\nspec: {{{spec}}}\n")
    };
    eventually("the new kind", LONG, || ns.apply(&widget("max: 5")))?;
    let shown = ns.kubectl(&["get", &widgets])?;
    ensure!(shown.contains("SIZE") && shown.contains('M'), "{shown}");
    ns.apply(&widget("max: 6"))?;
    refused(&ns, &["apply"], &widget("max: 6, min: 7"), "min must not exceed max")?;
    refused(&ns, &["apply"], &widget("max: 6, size: L"), "size is immutable")?;
    refused(&ns, &["apply"], &widget("max: 6, size: XL"), "Unsupported value: \"XL\"")?;
    refused(&ns, &["apply"], &widget("max: 6, nonsense: 1"), "unknown field \"spec.nonsense\"")?;
    ns.kubectl(&["scale", &widgets, "w", "--replicas=3"])?;
    let stored = ns.json(&["get", &widgets, "w"])?;
    ensure!(stored["spec"]["replicas"] == 3 && stored["spec"]["max"] == 6, "{stored}");
    let explained = cluster.kubectl(&["explain", &format!("{widgets}.spec.size")])?;
    ensure!(explained.contains("How large it is."), "{explained}");

    // With the definition go its objects.
    cluster.kubectl_in(&["delete", "--timeout=60s", "-f", "-"], &definition)?;
    let said = ns.kubectl_fails(&["get", &widgets])?;
    ensure!(said.contains("the server doesn't have a resource type"), "{said}");
    Ok(())
}

#[test]
fn a_namespace_goes_with_its_custom_resources() -> Result<()> {
    let cluster = Cluster::running();
    let ns = cluster.namespace("custom-gone")?;
    let group = format!("{}.example.com", ns.name);
    let definition = widget_definition(&group);
    cluster.kubectl_in(&["apply", "-f", "-"], &definition)?;
    let widget = format!("apiVersion: {group}/v1\nkind: Widget\nmetadata: {{name: w}}\nspec: {{}}\n");
    eventually("the new kind", LONG, || ns.apply(&widget))?;
    cluster.kubectl(&["delete", "namespace", &ns.name, "--timeout=60s"])?;
    let left = cluster.kubectl(&["get", &format!("widgets.{group}"), "-A", "--no-headers"])?;
    ensure!(left.trim().is_empty(), "{left}");
    cluster.kubectl_in(&["delete", "--timeout=60s", "-f", "-"], &definition)?;
    Ok(())
}

#[test]
fn fields_have_owners() -> Result<()> {
    let cluster = Cluster::running();
    let ns = cluster.namespace("owners")?;
    let config =
        |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{{data}}}\n");
    let apply = |manager: &str, data: &str, more: &[&str]| {
        let manager = format!("--field-manager={manager}");
        let mut args = vec!["-n", ns.name.as_str(), "apply", "--server-side", manager.as_str(), "-f", "-"];
        args.extend_from_slice(more);
        cluster.kubectl_in(&args, &config(data))
    };
    apply("one", "a: first, b: first", &[])?;
    let before = ns.json(&["get", "configmap", "c"])?;
    apply("one", "a: first, b: first", &[])?;
    let after = ns.json(&["get", "configmap", "c"])?;
    ensure!(
        before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"],
        "nothing was written"
    );
    refused(
        &ns,
        &["apply", "--server-side", "--field-manager=two"],
        &config("a: second"),
        "conflict with \"one\": .data.a",
    )?;
    apply("two", "a: second", &["--force-conflicts"])?;
    // What a manager leaves out and nobody else owns goes.
    apply("one", "c: third", &[])?;
    let data = ns.json(&["get", "configmap", "c"])?["data"].clone();
    ensure!(data == json!({"a": "second", "c": "third"}), "{data}");
    let entries = ns.json(&["get", "configmap", "c", "--show-managed-fields"])?;
    let managers = entries["metadata"]["managedFields"].as_array().map_or(0, Vec::len);
    ensure!(managers == 2, "{entries}");
    Ok(())
}

#[test]
fn quotas_and_limits_hold() -> Result<()> {
    let cluster = Cluster::running();
    let ns = cluster.namespace("quota")?;
    ns.kubectl(&["create", "quota", "q", "--hard=pods=2,requests.cpu=100m"])?;
    ns.apply(
        "apiVersion: v1\nkind: LimitRange\nmetadata: {name: l}\nspec: {limits: [{type: Container, defaultRequest: {cpu: 10m}, max: {cpu: 80m}}]}\n",
    )?;
    let used = || -> Result<Value> { Ok(ns.json(&["get", "quota", "q"])?["status"]["used"].clone()) };
    eventually("the quota's first count", LONG, || {
        let used = used()?;
        ensure!(used["pods"] == "0", "{used}");
        Ok(())
    })?;
    let pod = |name: &str, cpu: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers: [{{name: c, image: {IMAGE}, resources: {{requests: {{cpu: {cpu}}}, limits: {{cpu: {cpu}}}}}}}]\n"
        )
    };
    refused(&ns, &["create"], &pod("big", "90m"), "maximum cpu usage per Container is 80m")?;
    ns.apply(&pod("a", "60m"))?;
    refused(&ns, &["create"], &pod("b", "60m"), "exceeded quota: q, requested: requests.cpu=60m")?;
    ns.apply(&pod("b", "10m"))?;
    refused(
        &ns,
        &["create"],
        &pod("c", "10m"),
        "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2",
    )?;
    ns.kubectl(&["delete", "pod", "a", "b", "--timeout=60s"])?;
    eventually("the quota to be free again", LONG, || {
        let used = used()?;
        ensure!(used["pods"] == "0" && used["requests.cpu"] == "0", "{used}");
        Ok(())
    })
}

#[test]
fn pods_meet_their_namespaces_standard() -> Result<()> {
    let cluster = Cluster::running();
    let ns = cluster.namespace("standard")?;
    cluster.kubectl(&["label", "namespace", &ns.name, "pod-security.kubernetes.io/enforce=baseline"])?;
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{hostNetwork: true, containers: [{{name: c, image: {IMAGE}}}]}}\n"
    );
    refused(
        &ns,
        &["create"],
        &pod,
        "violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)",
    )?;
    // A template is let in with a warning; its pods would not be.
    let mut deployment = ns.command(&["create", "deployment", "d", "--image", IMAGE]);
    ensure!(deployment.output()?.status.success(), "a deployment within the standard is created");
    let labelled = cluster
        .command(&["label", "namespace", &ns.name, "pod-security.kubernetes.io/warn=strict"])
        .output()?;
    let said = String::from_utf8_lossy(&labelled.stderr).into_owned();
    ensure!(said.contains("must be one of privileged, baseline, restricted"), "{said}");
    Ok(())
}
