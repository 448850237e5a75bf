//! Images pulled from a registry, open and with a password.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Background, Cluster, Namespace, eventually};

/// `puller` with the password `pull`, as bcrypt: the one form the registry reads.
const PASSWORDS: &str = "puller:$2y$06$MKviftkXN6pfweTET92QlOY29TakkvTrR0p78ArfQ6hOxrI.6CMSy\n";

/// A registry on node1 that asks for a password, with the demo image in it; every node may reach it by http.
struct Registry {
    address: String,
    _server: Background,
    cluster: Cluster,
}

impl Registry {
    fn start(cluster: &Cluster, port: u16) -> Result<Self> {
        let folder = cluster.state().join(format!("registry-{port}"));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("passwords"), PASSWORDS)?;
        std::fs::write(
            folder.join("config.yml"),
            format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\nhttp: {{addr: ':{port}'}}\nauth: {{htpasswd: {{realm: test, path: {0}/passwords}}}}\n",
                folder.display()
            ),
        )?;
        let address = format!("{}:{port}", cluster.node_address("node1")?);
        for node in ["node1", "node2"] {
            let hosts = cluster.state().join(node).join("mnt/etc/containerd/certs.d").join(&address);
            std::fs::create_dir_all(&hosts)?;
            std::fs::write(
                hosts.join("hosts.toml"),
                format!("server = \"http://{address}\"\n[host.\"http://{address}\"]\n"),
            )?;
        }
        let config = folder.join("config.yml").display().to_string();
        let server = cluster
            .node_command("node1", &["docker-registry", "serve", &config])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let registry = Self { address, _server: Background(server), cluster: cluster.clone() };
        let archive = format!("oci-archive:{}", cluster.state().join("images/demo.tar").display());
        eventually("the image to be pushed", Duration::from_secs(30), || {
            let to = format!("docker://{}/demo:v1", registry.address);
            let pushed = cluster.node(
                "node1",
                &[
                    "skopeo",
                    "copy",
                    "-q",
                    "--dest-tls-verify=false",
                    "--dest-creds=puller:pull",
                    &archive,
                    &to,
                ],
            );
            pushed.map(drop)
        })?;
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // nsenter's child outlives nsenter.
        drop(self.cluster.kill("node1", "-TERM", "docker-registry"));
    }
}

fn pod(ns: &Namespace, name: &str, image: &str, secret: &str) -> Result<String> {
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{secret}  containers:\n  - {{name: main, image: {image}, imagePullPolicy: Always}}\n"
    ))
}

#[test]
fn images_come_from_a_registry_with_a_password() -> Result<()> {
    let cluster = Cluster::running();
    let ns = cluster.namespace("pull")?;
    let registry = Registry::start(&cluster, 5000)?;
    let image = format!("{}/demo:v1", registry.address);
    ns.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "login",
        "--docker-username=puller",
        "--docker-password=pull",
        &format!("--docker-server={}", registry.address),
    ])?;
    pod(&ns, "stranger", &image, "")?;
    pod(&ns, "known", &image, "  imagePullSecrets: [{name: login}]\n")?;
    pod(&ns, "absent", &format!("{}/nothing:v1", registry.address), "  imagePullSecrets: [{name: login}]\n")?;
    ns.ready("known")?;
    for name in ["stranger", "absent"] {
        eventually(&format!("{name} to back off"), Duration::from_secs(60), || {
            let pod = ns.json(&["get", "pod", name])?;
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            let reason = waiting["reason"].as_str().context("waiting")?;
            ensure!(matches!(reason, "ErrImagePull" | "ImagePullBackOff"), "{waiting}");
            Ok(())
        })?;
    }
    let events = ns.kubectl(&["get", "events", "--field-selector", "involvedObject.name=known"])?;
    ensure!(events.contains("Successfully pulled image"), "{events}");
    let events = ns.kubectl(&["get", "events", "--field-selector", "involvedObject.name=stranger"])?;
    ensure!(events.contains("Failed to pull image") && events.contains("401"), "{events}");
    Ok(())
}
