//! Rules of the house that a compiler does not check.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const DAEMONS: [&str; 5] = ["apiserver", "scheduler", "controller-manager", "kubelet", "kube-proxy"];

fn metadata() -> Result<Value> {
    let cargo = std::env::var_os("CARGO").context("cargo sets CARGO")?;
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn a_daemon_depends_on_common_and_on_no_other_daemon() -> Result<()> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("packages")?;
    for daemon in DAEMONS {
        let package =
            packages.iter().find(|p| p["name"] == daemon).with_context(|| format!("no crate {daemon}"))?;
        for dependency in package["dependencies"].as_array().context("dependencies")? {
            let name = dependency["name"].as_str().unwrap_or("");
            ensure!(!DAEMONS.contains(&name), "{daemon} depends on {name}; daemons meet only at the API");
        }
    }
    Ok(())
}

#[test]
fn every_daemon_has_the_same_root_files() -> Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for daemon in DAEMONS {
        ensure!(root.join(daemon).join("README.md").exists(), "{daemon} has no README.md");
        for room in ["main", "flags", "config", "daemon", "metrics", "lib"] {
            let source = root.join(daemon).join("src");
            let found =
                source.join(format!("{room}.rs")).exists() || source.join(room).join("mod.rs").exists();
            ensure!(found, "{daemon}/src has no {room}");
        }
    }
    Ok(())
}

#[test]
fn only_the_apiserver_touches_storage() -> Result<()> {
    let metadata = metadata()?;
    for package in metadata["packages"].as_array().context("packages")? {
        let uses_store = package["dependencies"]
            .as_array()
            .context("dependencies")?
            .iter()
            .any(|d| matches!(d["name"].as_str(), Some("etcd-client" | "redb")));
        // The benchmark, a developer's tool, measures etcd beside the apiserver.
        let may = package["name"] == "apiserver" || package["name"] == "hack";
        ensure!(!uses_store || may, "{} depends on a store", package["name"]);
    }
    Ok(())
}
