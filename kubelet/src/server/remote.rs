//! Commands in containers and ports of pods: exec, attach, run, port-forward.
//!
//! The runtime names a URL of its own streaming server, and the client's upgraded connection is passed on to it.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;

use super::AccessError;
use super::answers::{Body, access_error, body, reply, runtime_error, text};
use super::query::Query;
use super::routes::Routes;
use crate::cri::{CriError, v1};
use crate::streaming;

/// A container as a path names it: `/namespace/pod/container` or `/namespace/pod/uid/container`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target<'a> {
    namespace: &'a str,
    pod: &'a str,
    uid: Option<&'a str>,
    container: &'a str,
}

impl<'a> Target<'a> {
    pub(super) fn of(parts: &[&'a str]) -> Option<Self> {
        let (namespace, pod, uid, container) = match *parts {
            [namespace, pod, container] => (namespace, pod, None, container),
            [namespace, pod, uid, container] => (namespace, pod, Some(uid), container),
            _ => return None,
        };
        Some(Self { namespace, pod, uid, container })
    }
}

/// What a client's streams are joined to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remote {
    /// A command of their own.
    Exec,
    /// The container's main process.
    Attach,
}

impl Routes {
    pub(super) fn pod(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
    ) -> Result<Arc<Pod>, Box<Response<Body>>> {
        self.access
            .pod(namespace, name, uid)
            .ok_or_else(|| Box::new(text(StatusCode::NOT_FOUND, "pod does not exist")))
    }

    /// Joins the client's streams to a container.
    pub(super) async fn remote(
        &self,
        remote: Remote,
        target: Target<'_>,
        query: &Query,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (streams, container_id) = match self.streams(target, query).await {
            Ok(both) => both,
            Err(refusal) => return *refusal,
        };
        let Streams { stdin, stdout, stderr, tty } = streams;
        let url = match remote {
            Remote::Exec => {
                let cmd = query.all("command");
                let asked = v1::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr };
                self.cri.exec(asked).await.map(|answer| answer.url)
            }
            Remote::Attach => {
                let asked = v1::AttachRequest { container_id, tty, stdin, stdout, stderr };
                self.cri.attach(asked).await.map(|answer| answer.url)
            }
        };
        self.pass_on(request, url).await
    }

    /// What a remote command wants, and the container it wants it of.
    async fn streams(
        &self,
        target: Target<'_>,
        query: &Query,
    ) -> Result<(Streams, String), Box<Response<Body>>> {
        let streams = Streams::parse(query).map_err(|why| Box::new(text(StatusCode::BAD_REQUEST, why)))?;
        let pod = self.pod(target.namespace, target.pod, target.uid)?;
        let container = target.container;
        match self.access.container(&pod, container, false).await {
            Ok(info) if info.running => Ok((streams, info.id)),
            Ok(_) => {
                // Upstream's words for a container that cannot be found among the running ones.
                let why = format!("container not found ({container:?})");
                Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, why)))
            }
            Err(AccessError::ContainerNotFound { .. } | AccessError::Waiting { .. }) => {
                let why = format!("container not found ({container:?})");
                Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, why)))
            }
            Err(error) => Err(Box::new(access_error(&error))),
        }
    }

    /// Streams to ports of a pod.
    pub(super) async fn port_forward(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        query: &Query,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let pod = match self.pod(namespace, name, uid) {
            Ok(pod) => pod,
            Err(refusal) => return *refusal,
        };
        let mut port = Vec::new();
        for text_port in query.all("port").iter().flat_map(|p| p.split(',')).filter(|p| !p.is_empty()) {
            match text_port.parse::<u16>() {
                Ok(number) if number > 0 => port.push(i32::from(number)),
                _ => {
                    return text(StatusCode::BAD_REQUEST, format!("unable to parse {text_port:?} as a port"));
                }
            }
        }
        let sandbox = match self.access.sandbox_id(&pod).await {
            Ok(id) => id,
            Err(error) => return access_error(&error),
        };
        let asked = v1::PortForwardRequest { pod_sandbox_id: sandbox, port };
        let url = self.cri.port_forward(asked).await.map(|answer| answer.url);
        self.pass_on(request, url).await
    }

    /// Hands the connection to the runtime's streaming server, if it said where that is.
    async fn pass_on(&self, request: Request<Incoming>, url: Result<String, CriError>) -> Response<Body> {
        let url = match url {
            Ok(url) => url,
            Err(error) => return runtime_error(&error),
        };
        match streaming::proxy(request, &url, self.stop.clone()).await {
            Ok(response) => response.map(body),
            Err(error @ streaming::StreamingError::NoUpgrade) => {
                text(StatusCode::BAD_REQUEST, error.to_string())
            }
            Err(error) => {
                tracing::warn!(%error, "cannot pass a stream on to the runtime");
                text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }

    /// A command whose output is the answer.
    pub(super) async fn run(&self, target: Target<'_>, query: &Query) -> Response<Body> {
        let pod = match self.pod(target.namespace, target.pod, target.uid) {
            Ok(pod) => pod,
            Err(refusal) => return *refusal,
        };
        let info = match self.access.container(&pod, target.container, false).await {
            Ok(info) => info,
            Err(error) => return access_error(&error),
        };
        let cmd = query.get("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
        match self.cri.exec_sync(&info.id, cmd, std::time::Duration::ZERO).await {
            Ok(answer) => {
                let mut output = answer.stdout;
                output.extend_from_slice(&answer.stderr);
                if answer.exit_code == 0 {
                    reply(StatusCode::OK, "application/json", output)
                } else {
                    let why = format!(
                        "command terminated with exit code {}: {}",
                        answer.exit_code,
                        String::from_utf8_lossy(&output)
                    );
                    text(StatusCode::INTERNAL_SERVER_ERROR, why)
                }
            }
            Err(error) => runtime_error(&error),
        }
    }
}

/// Which streams a remote command uses.
#[derive(Debug, PartialEq, Eq)]
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Streams {
    fn parse(query: &Query) -> Result<Self, &'static str> {
        let on = |name| query.get(name).is_some_and(|v| v == "1" || v == "true");
        let tty = on("tty");
        // A terminal has one output.
        let streams = Self { stdin: on("input"), stdout: on("output"), stderr: on("error") && !tty, tty };
        if streams.stdin || streams.stdout || streams.stderr {
            Ok(streams)
        } else {
            Err("you must specify at least 1 of stdin, stdout, stderr")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_as_the_api_server_names_them() {
        let parse = |query| Streams::parse(&Query::parse(query));
        let got = parse("input=1&output=1&error=1&tty=1").unwrap();
        assert_eq!(got, Streams { stdin: true, stdout: true, stderr: false, tty: true });
        assert!(parse("tty=1").is_err());
        assert!(parse("stdin=true&stdout=true").is_err());
    }

    #[test]
    fn a_container_is_named_with_or_without_the_pods_uid() {
        let target = Target::of(&["n", "p", "u", "c"]).expect("target");
        assert_eq!((target.namespace, target.pod, target.uid, target.container), ("n", "p", Some("u"), "c"));
        assert_eq!(Target::of(&["n", "p", "c"]).expect("target").uid, None);
        assert_eq!(Target::of(&["n", "p"]), None);
    }
}
