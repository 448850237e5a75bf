//! One try of a probe: exec, http, tcp or grpc.

use std::time::Duration;

use tokio::net::TcpStream;

use super::http;
use super::worker::Spec;
use crate::cri::Cri;
use crate::kuberuntime::hooks::resolve_port;

/// Output shown in an event.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// How a try ended.
pub(super) enum Verdict {
    Success,
    Warning(String),
    Failure(String),
    /// The probe itself could not run; counts as nothing.
    Unknown(String),
}

impl Verdict {
    pub(super) fn ok(&self) -> bool {
        matches!(self, Self::Success | Self::Warning(_))
    }
}

pub(super) async fn run(cri: &Cri, spec: &Spec, timeout: Duration) -> Verdict {
    let probe = &spec.probe;
    if let Some(exec) = &probe.exec {
        return run_exec(cri, spec, exec.command.clone().unwrap_or_default(), timeout).await;
    }
    if let Some(get) = &probe.http_get {
        let Some(port) = resolve_port(&get.port, &spec.container) else {
            return Verdict::Failure("invalid port".into());
        };
        let host = get.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&spec.pod_ip);
        let url = http::url(
            get.scheme.as_deref().unwrap_or("HTTP"),
            host,
            port,
            get.path.as_deref().unwrap_or("/"),
        );
        let headers = http::headers(get.http_headers.as_deref().unwrap_or(&[]));
        return match http::get(&url, headers, timeout).await {
            Ok(response) if response.redirected => {
                Verdict::Warning(format!("Probe terminated redirects, Response body: {}", response.body))
            }
            Ok(response) if (200..400).contains(&response.status) => Verdict::Success,
            Ok(response) => {
                Verdict::Failure(format!("HTTP probe failed with statuscode: {}", response.status))
            }
            Err(error) => Verdict::Failure(format!("Get {url:?}: {error}")),
        };
    }
    if let Some(socket) = &probe.tcp_socket {
        let Some(port) = resolve_port(&socket.port, &spec.container) else {
            return Verdict::Failure("invalid port".into());
        };
        let host = socket.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&spec.pod_ip);
        let address = http::authority(host, port);
        return match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
            Ok(Ok(_)) => Verdict::Success,
            Ok(Err(error)) => Verdict::Failure(format!("dial tcp {address}: {error}")),
            Err(_) => Verdict::Failure(format!("dial tcp {address}: i/o timeout")),
        };
    }
    if let Some(grpc) = &probe.grpc {
        let Ok(port) = u16::try_from(grpc.port) else { return Verdict::Failure("invalid port".into()) };
        let service = grpc.service.clone().unwrap_or_default();
        return match tokio::time::timeout(timeout, super::http::grpc_health(&spec.pod_ip, port, &service))
            .await
        {
            Ok(Ok(true)) => Verdict::Success,
            Ok(Ok(false)) => Verdict::Failure("service unhealthy (responded with \"NOT_SERVING\")".into()),
            Ok(Err(error)) => Verdict::Failure(format!("error: {error}")),
            Err(_) => Verdict::Failure(format!(
                "timeout: health rpc did not complete within {}s",
                timeout.as_secs()
            )),
        };
    }
    Verdict::Unknown("missing probe handler".into())
}

async fn run_exec(cri: &Cri, spec: &Spec, command: Vec<String>, timeout: Duration) -> Verdict {
    match cri.exec_sync(&spec.container_id, command.clone(), timeout).await {
        Ok(done) if done.exit_code == 0 => Verdict::Success,
        Ok(done) => {
            let mut output = [done.stdout, done.stderr].concat();
            output.truncate(OUTPUT_BYTES_MAX);
            Verdict::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.is_deadline() => Verdict::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        Err(error) => Verdict::Unknown(error.to_string()),
    }
}
