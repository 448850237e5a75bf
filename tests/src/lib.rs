//! Whole-cluster tests, and what they share: a handle on a running local cluster.
//!
//! `hack/test.sh` starts the cluster and runs the suites; by hand:
//!
//! ```text
//! hack/local-up.sh --nodes 2 --no-demo
//! cargo test -p tests --features cluster --test cluster
//! ```

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The image every test pod runs: busybox with a web server as entry point.
pub const IMAGE: &str = "localhost/pintle/demo:local";

/// A running cluster made by `hack/local-up.sh`.
#[derive(Clone)]
pub struct Cluster {
    name: String,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// The cluster that `PINTLE_CLUSTER` names (`local` when unset).
    ///
    /// # Panics
    /// When it is not there: the suites do not pass without one.
    pub fn running() -> Self {
        let name = std::env::var("PINTLE_CLUSTER").unwrap_or_else(|_| "local".into());
        let kubeconfig = PathBuf::from(format!("/var/lib/pintle/{name}/admin.conf"));
        assert!(
            kubeconfig.exists(),
            "no cluster '{name}': start it with hack/local-up.sh --nodes 2 --no-demo"
        );
        Self { name, kubeconfig }
    }

    /// Where the cluster keeps its files.
    pub fn state(&self) -> PathBuf {
        PathBuf::from(format!("/var/lib/pintle/{}", self.name))
    }

    pub fn kubeconfig(&self) -> &PathBuf {
        &self.kubeconfig
    }

    /// `kubectl` as the administrator.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args).stdin(Stdio::null());
        command
    }

    /// Runs `kubectl`; its standard output, or an error with what it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        succeeded(args, self.command(args).output().context("running kubectl")?)
    }

    /// Runs `kubectl` that must fail; what it said on standard error.
    pub fn kubectl_fails(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output().context("running kubectl")?;
        ensure!(!output.status.success(), "kubectl {} succeeded: {}", args.join(" "), text(&output.stdout));
        Ok(text(&output.stderr))
    }

    /// `kubectl ... -f -` with `manifest` on standard input.
    pub fn kubectl_in(&self, args: &[&str], manifest: &str) -> Result<String> {
        succeeded(args, self.with_input(args, manifest)?)
    }

    /// As [`Self::kubectl_in`], for what must fail.
    pub fn kubectl_in_fails(&self, args: &[&str], manifest: &str) -> Result<String> {
        let output = self.with_input(args, manifest)?;
        ensure!(!output.status.success(), "kubectl {} succeeded: {}", args.join(" "), text(&output.stdout));
        Ok(text(&output.stderr))
    }

    /// Runs `kubectl` with `input` on standard input, however it ends.
    pub fn with_input(&self, args: &[&str], input: &str) -> Result<Output> {
        use std::io::Write;
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("running kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl's standard input")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        Ok(child.wait_with_output()?)
    }

    /// `kubectl get ... -o json`.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// Runs a command inside a node (`node1`) and returns its output.
    pub fn node(&self, node: &str, command: &[&str]) -> Result<String> {
        succeeded(command, self.node_command(node, command).output()?)
    }

    /// A command that will run inside a node.
    pub fn node_command(&self, node: &str, command: &[&str]) -> Command {
        let mut inside = Command::new(script());
        inside.arg("exec").arg(node).args(command).env("PINTLE_CLUSTER", &self.name).stdin(Stdio::null());
        inside
    }

    /// The address of a node on the nodes' network.
    pub fn node_address(&self, node: &str) -> Result<String> {
        self.kubectl(&[
            "get",
            "node",
            node,
            "-o",
            r#"jsonpath={.status.addresses[?(@.type=="InternalIP")].address}"#,
        ])
    }

    /// Sends a signal to the processes of `program` inside a node; the pids it hit.
    pub fn kill(&self, node: &str, signal: &str, program: &str) -> Result<Vec<String>> {
        let pids: Vec<String> =
            self.node(node, &["pgrep", "-x", &comm(program)])?.split_whitespace().map(String::from).collect();
        ensure!(!pids.is_empty(), "no process {program} on {node}");
        for pid in &pids {
            self.node(node, &["kill", signal, pid])?;
        }
        Ok(pids)
    }

    /// A namespace of its own for one test, deleted (without waiting) when dropped.
    pub fn namespace(&self, hint: &str) -> Result<Namespace> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{hint}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.kubectl(&["create", "namespace", &name])?;
        let namespace = Namespace { cluster: self.clone(), name };
        eventually("the default service account", Duration::from_secs(30), || {
            namespace.kubectl(&["get", "serviceaccount", "default"]).map(drop)
        })?;
        Ok(namespace)
    }
}

/// The kernel keeps 15 characters of a program's name.
fn comm(program: &str) -> String {
    program.chars().take(15).collect()
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../hack/local-up.sh")
}

fn succeeded(args: &[&str], output: Output) -> Result<String> {
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    bail!("{}: {}\n{}", args.join(" "), output.status, text(&output.stderr))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A test's namespace.
pub struct Namespace {
    pub cluster: Cluster,
    pub name: String,
}

impl Namespace {
    /// `kubectl -n NAMESPACE ...`.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl(&self.with(args))
    }

    pub fn kubectl_fails(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl_fails(&self.with(args))
    }

    pub fn kubectl_in(&self, args: &[&str], manifest: &str) -> Result<String> {
        self.cluster.kubectl_in(&self.with(args), manifest)
    }

    pub fn with_input(&self, args: &[&str], input: &str) -> Result<Output> {
        self.cluster.with_input(&self.with(args), input)
    }

    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_in(&["apply", "-f", "-"], manifest)
    }

    pub fn json(&self, args: &[&str]) -> Result<Value> {
        self.cluster.json(&self.with(args))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        self.cluster.command(&self.with(args))
    }

    fn with<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(args);
        all
    }

    /// A Deployment of the web server, with a Service of the same name on port 80; waits until it is rolled out.
    pub fn web(&self, name: &str, replicas: u32) -> Result<()> {
        self.apply(&web_manifest(name, replicas))?;
        self.kubectl(&["rollout", "status", "deployment", name, "--timeout=120s"]).map(drop)
    }

    /// A pod that sleeps, on `node` when one is named; waits until it is ready.
    pub fn sleeper(&self, name: &str, node: Option<&str>) -> Result<()> {
        let at = node.map_or_else(String::new, |n| format!("\n  nodeName: {n}"));
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:{at}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {IMAGE}\n    command: [sh, -c, 'trap exit TERM; while :; do sleep 1; done']\n"
        ))?;
        self.ready(name)
    }

    /// Waits until a pod is ready.
    pub fn ready(&self, pod: &str) -> Result<()> {
        self.kubectl(&["wait", "--for=condition=Ready", "pod", pod, "--timeout=120s"]).map(drop)
    }

    /// Runs a command in a pod.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Result<String> {
        let mut args = vec!["exec", pod, "--"];
        args.extend_from_slice(command);
        self.kubectl(&args)
    }

    /// The names of the pods with a label.
    pub fn pods(&self, selector: &str) -> Result<Vec<String>> {
        let names =
            self.kubectl(&["get", "pods", "-l", selector, "-o", "jsonpath={.items[*].metadata.name}"])?;
        Ok(names.split_whitespace().map(String::from).collect())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A failed test leaves its objects to be looked at when this is set.
        if std::env::var_os("PINTLE_KEEP").is_none() {
            drop(self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"]));
        }
    }
}

/// The Deployment and Service of [`Namespace::web`].
pub fn web_manifest(name: &str, replicas: u32) -> String {
    format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:{}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  type: NodePort
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: http}}]
",
        web_template(name)
    )
}

/// What stands below `template:` of a workload of the web server.
pub fn web_template(name: &str) -> String {
    format!(
        r"
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {IMAGE}
        ports: [{{containerPort: 8080, name: http}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}"
    )
}

/// Tries until it succeeds; after `limit` the last error says why it did not.
pub fn eventually<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let since = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if since.elapsed() >= limit => {
                return Err(error.context(format!("waited {} s for {what}", limit.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// A child that is ended when dropped.
pub struct Background(pub std::process::Child);

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
