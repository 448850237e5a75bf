//! postStart and preStop handlers: exec, http and sleep.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cri::Cri;
use crate::prober::http;

/// An http hook may take this long.
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

/// The number of a port given by number or by a container port's name.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(n) => u16::try_from(*n).ok().filter(|n| *n > 0),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(name))
            .and_then(|p| u16::try_from(p.container_port).ok())
            .or_else(|| name.parse().ok()),
    }
}

/// Runs a hook to its end; the error is a text for an event.
pub async fn run(
    cri: &Cri,
    hook: &LifecycleHandler,
    container: &Container,
    id: &str,
    pod_ip: &str,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        let done = cri.exec_sync(id, command, Duration::ZERO).await.map_err(|e| e.to_string())?;
        if done.exit_code != 0 {
            let output = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
            return Err(format!("command '{shown}' exited with {}: {output}", done.exit_code));
        }
        return Ok(());
    }
    if let Some(get) = &hook.http_get {
        let url = url(get, container, pod_ip)?;
        let headers = http::headers(get.http_headers.as_deref().unwrap_or(&[]));
        let response = http::get(&url, headers, HTTP_TIMEOUT).await?;
        return if response.status < 400 {
            Ok(())
        } else {
            Err(format!("unexpected status {}", response.status))
        };
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
        return Ok(());
    }
    Err("no handler".into())
}

fn url(get: &HTTPGetAction, container: &Container, pod_ip: &str) -> Result<String, String> {
    let port = resolve_port(&get.port, container).ok_or("invalid port")?;
    let host = get.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
    Ok(http::url(get.scheme.as_deref().unwrap_or("HTTP"), host, port, get.path.as_deref().unwrap_or("/")))
}
