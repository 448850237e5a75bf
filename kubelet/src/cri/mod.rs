//! The only door to the container runtime: CRI v1 over its unix socket, every call with a deadline.
//!
//! Answers to upstream's `internalapi.RuntimeService` and `ImageManagerService`. It knows no pods: callers
//! build requests (`kuberuntime`), this sends them. The channel reconnects by itself when the runtime restarts.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
pub use k8s_cri::v1;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::metrics::RuntimeOperations;

/// Messages up to 16 MiB, as upstream's `maxMsgSize`.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What stopping a container may take beyond its grace period.
const STOP_SLACK: Duration = Duration::from_secs(120);
/// Pulls have no deadline of their own upstream; this bounds a runtime that hangs.
const PULL_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// A call to the runtime that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CriError {
    #[error("container runtime endpoint {0:?} is not a unix socket path")]
    Endpoint(String),
    #[error("rpc error: code = {code} desc = {message}")]
    Rpc { call: &'static str, code: &'static str, grpc: tonic::Code, message: String },
    #[error("rpc error: code = DeadlineExceeded desc = context deadline exceeded")]
    Deadline { call: &'static str },
}

impl CriError {
    /// The thing asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Rpc { grpc: tonic::Code::NotFound, .. })
    }

    /// The call took longer than it may.
    pub fn is_deadline(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::Rpc { grpc: tonic::Code::DeadlineExceeded, .. })
    }

    /// The runtime does not offer the call.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Rpc { grpc: tonic::Code::Unimplemented, .. })
    }

    /// The runtime's own words, without the RPC's wrapping.
    pub fn message(&self) -> String {
        match self {
            Self::Rpc { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }

    fn from_status(call: &'static str, status: &tonic::Status) -> Self {
        Self::Rpc {
            call,
            code: code_name(status.code()),
            grpc: status.code(),
            message: status.message().into(),
        }
    }
}

/// gRPC codes as Go prints them.
fn code_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "OK",
        tonic::Code::Cancelled => "Canceled",
        tonic::Code::Unknown => "Unknown",
        tonic::Code::InvalidArgument => "InvalidArgument",
        tonic::Code::DeadlineExceeded => "DeadlineExceeded",
        tonic::Code::NotFound => "NotFound",
        tonic::Code::AlreadyExists => "AlreadyExists",
        tonic::Code::PermissionDenied => "PermissionDenied",
        tonic::Code::ResourceExhausted => "ResourceExhausted",
        tonic::Code::FailedPrecondition => "FailedPrecondition",
        tonic::Code::Aborted => "Aborted",
        tonic::Code::OutOfRange => "OutOfRange",
        tonic::Code::Unimplemented => "Unimplemented",
        tonic::Code::Internal => "Internal",
        tonic::Code::Unavailable => "Unavailable",
        tonic::Code::DataLoss => "DataLoss",
        tonic::Code::Unauthenticated => "Unauthenticated",
    }
}

/// A client of the runtime; clones share one connection.
#[derive(Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    timeout: Duration,
    metrics: Option<RuntimeOperations>,
}

impl Cri {
    /// `endpoint` is `unix:///run/containerd/containerd.sock` or a bare path; connects on first use.
    /// `timeout` is `runtimeRequestTimeout`.
    ///
    /// # Errors
    /// When the endpoint is not a unix socket.
    pub fn new(endpoint: &str, timeout: Duration) -> Result<Self, CriError> {
        let path = socket_path(endpoint)?;
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(Duration::from_secs(3))
            .connect_with_connector_lazy(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }));
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            timeout,
            metrics: None,
        })
    }

    /// Counts every call from now on.
    #[must_use]
    pub fn with_metrics(mut self, metrics: RuntimeOperations) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Stops a container: the runtime signals, waits `grace_seconds`, then kills.
    pub async fn stop_container(&self, id: &str, grace_seconds: i64) -> Result<(), CriError> {
        let mut client = self.runtime.clone();
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout: grace_seconds };
        let limit = Duration::from_secs(grace_seconds.max(0).unsigned_abs()) + STOP_SLACK;
        self.within("StopContainer", limit, client.stop_container(request)).await.map(drop)
    }

    /// Runs a command; `timeout` zero means the default deadline only.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse, CriError> {
        let mut client = self.runtime.clone();
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: seconds };
        let limit = if timeout.is_zero() { self.timeout } else { timeout + self.timeout };
        self.within("ExecSync", limit, client.exec_sync(request)).await
    }

    /// Pulls an image and returns its reference.
    pub async fn pull_image(&self, request: v1::PullImageRequest) -> Result<String, CriError> {
        let mut client = self.images.clone();
        self.within("PullImage", PULL_TIMEOUT, client.pull_image(request)).await.map(|r| r.image_ref)
    }
}

/// A call with the default deadline, named as in the protocol.
macro_rules! call {
    ($($(#[$doc:meta])* $client:ident.$name:ident($request:ident) -> $response:ty as $rpc:literal;)*) => {
        impl Cri { $(
            $(#[$doc])*
            pub async fn $name(&self, request: v1::$request) -> Result<$response, CriError> {
                let mut client = self.$client.clone();
                self.within($rpc, self.timeout, client.$name(request)).await
            }
        )* }
    };
}

call! {
    /// Name and versions of the runtime.
    runtime.version(VersionRequest) -> v1::VersionResponse as "Version";
    /// Runtime and network readiness.
    runtime.status(StatusRequest) -> v1::StatusResponse as "Status";
    /// Hands the pod CIDR to the runtime.
    runtime.update_runtime_config(UpdateRuntimeConfigRequest) -> v1::UpdateRuntimeConfigResponse as "UpdateRuntimeConfig";
    /// Makes and starts a sandbox.
    runtime.run_pod_sandbox(RunPodSandboxRequest) -> v1::RunPodSandboxResponse as "RunPodSandbox";
    /// Stops a sandbox and all in it; idempotent.
    runtime.stop_pod_sandbox(StopPodSandboxRequest) -> v1::StopPodSandboxResponse as "StopPodSandbox";
    /// Removes a sandbox and all in it; idempotent.
    runtime.remove_pod_sandbox(RemovePodSandboxRequest) -> v1::RemovePodSandboxResponse as "RemovePodSandbox";
    /// One sandbox in detail.
    runtime.pod_sandbox_status(PodSandboxStatusRequest) -> v1::PodSandboxStatusResponse as "PodSandboxStatus";
    /// All sandboxes that match.
    runtime.list_pod_sandbox(ListPodSandboxRequest) -> v1::ListPodSandboxResponse as "ListPodSandbox";
    /// Makes a container in a sandbox.
    runtime.create_container(CreateContainerRequest) -> v1::CreateContainerResponse as "CreateContainer";
    /// Starts a made container.
    runtime.start_container(StartContainerRequest) -> v1::StartContainerResponse as "StartContainer";
    /// Removes a container.
    runtime.remove_container(RemoveContainerRequest) -> v1::RemoveContainerResponse as "RemoveContainer";
    /// All containers that match.
    runtime.list_containers(ListContainersRequest) -> v1::ListContainersResponse as "ListContainers";
    /// One container in detail.
    runtime.container_status(ContainerStatusRequest) -> v1::ContainerStatusResponse as "ContainerStatus";
    /// Changes a running container's limits.
    runtime.update_container_resources(UpdateContainerResourcesRequest) -> v1::UpdateContainerResourcesResponse as "UpdateContainerResources";
    /// Makes the runtime open a container's log file again, after rotation.
    runtime.reopen_container_log(ReopenContainerLogRequest) -> v1::ReopenContainerLogResponse as "ReopenContainerLog";
    /// URL of a streaming exec.
    runtime.exec(ExecRequest) -> v1::ExecResponse as "Exec";
    /// URL of a streaming attach.
    runtime.attach(AttachRequest) -> v1::AttachResponse as "Attach";
    /// URL of a port forward.
    runtime.port_forward(PortForwardRequest) -> v1::PortForwardResponse as "PortForward";
    /// Usage of one container.
    runtime.container_stats(ContainerStatsRequest) -> v1::ContainerStatsResponse as "ContainerStats";
    /// Usage of all containers that match.
    runtime.list_container_stats(ListContainerStatsRequest) -> v1::ListContainerStatsResponse as "ListContainerStats";
    /// Usage of one sandbox.
    runtime.pod_sandbox_stats(PodSandboxStatsRequest) -> v1::PodSandboxStatsResponse as "PodSandboxStats";
    /// Usage of all sandboxes that match.
    runtime.list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> v1::ListPodSandboxStatsResponse as "ListPodSandboxStats";
    /// Images on the node.
    images.list_images(ListImagesRequest) -> v1::ListImagesResponse as "ListImages";
    /// One image, absent when not on the node.
    images.image_status(ImageStatusRequest) -> v1::ImageStatusResponse as "ImageStatus";
    /// Removes an image; idempotent.
    images.remove_image(RemoveImageRequest) -> v1::RemoveImageResponse as "RemoveImage";
    /// Usage of the filesystem that holds images.
    images.image_fs_info(ImageFsInfoRequest) -> v1::ImageFsInfoResponse as "ImageFsInfo";
}

impl Cri {
    async fn within<T>(
        &self,
        call: &'static str,
        limit: Duration,
        future: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, CriError> {
        let started = Instant::now();
        let result = match tokio::time::timeout(limit, future).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CriError::from_status(call, &status)),
            Err(_) => Err(CriError::Deadline { call }),
        };
        if let Some(metrics) = &self.metrics {
            metrics.observe(&operation_type(call), started, result.is_err());
        }
        result
    }
}

/// A call's name as metrics have it: `RunPodSandbox` is `run_podsandbox`.
fn operation_type(call: &str) -> String {
    if call == "UpdateContainerResources" {
        return "update_container".into();
    }
    let mut out = String::with_capacity(call.len() + 4);
    for c in call.replace("PodSandbox", "Podsandbox").chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn socket_path(endpoint: &str) -> Result<PathBuf, CriError> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') { Ok(path.into()) } else { Err(CriError::Endpoint(endpoint.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_types() {
        assert_eq!(operation_type("RunPodSandbox"), "run_podsandbox");
        assert_eq!(operation_type("ListPodSandboxStats"), "list_podsandbox_stats");
        assert_eq!(operation_type("ImageFsInfo"), "image_fs_info");
        assert_eq!(operation_type("UpdateContainerResources"), "update_container");
        assert_eq!(operation_type("Version"), "version");
    }

    #[test]
    fn endpoints() {
        assert_eq!(socket_path("unix:///a/b.sock").ok(), Some("/a/b.sock".into()));
        assert_eq!(socket_path("/a/b.sock").ok(), Some("/a/b.sock".into()));
        assert!(socket_path("tcp://1.2.3.4:5").is_err());
        assert!(socket_path("").is_err());
    }
}
