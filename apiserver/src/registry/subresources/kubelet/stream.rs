//! Passes a request on to a kubelet, and after a switch of protocols the bytes of both sides.

use common::status::Status;
use http::{HeaderMap, Request, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::client::{KubeletClient, streamed};
use super::{Target, upgrade};
use crate::request::{ApiRequest, Response, empty};

/// What each direction of a joined pair may hold.
const COPY_BUFFER_BYTES: usize = 32 * 1024;

/// Headers that are between the client and this server.
fn is_private(name: &str) -> bool {
    matches!(name, "authorization" | "cookie" | "host" | "te" | "transfer-encoding" | "keep-alive")
        || name.starts_with("impersonate-")
        || name.starts_with("x-remote-")
}

/// What of the client's headers the kubelet sees.
pub(super) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| !is_private(name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Sends the request as it is to `target`; joins both connections when the kubelet switches protocols.
pub(super) async fn forward(
    client: &KubeletClient,
    target: &Target,
    request: ApiRequest,
) -> Result<Response, Status> {
    let ApiRequest { mut parts, body, .. } = request;
    let switching = upgrade(&parts.headers).is_some();
    let ours = parts.extensions.remove::<OnUpgrade>();
    let mut out = Request::builder()
        .method(parts.method.clone())
        .uri(&target.path_and_query)
        .body(if switching { empty() } else { body })
        .map_err(|e| Status::bad_request(e.to_string()))?;
    *out.headers_mut() = passed_on(&parts.headers);
    if switching {
        out.headers_mut().remove(http::header::CONTENT_LENGTH);
    }
    let mut answer = client.send(target, out).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = answer.into_parts();
        let mut response = Response::new(streamed(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = passed_on(&head.headers);
        response.headers_mut().remove(http::header::CONNECTION);
        return Ok(response);
    }
    let theirs = hyper::upgrade::on(&mut answer);
    let Some(ours) = ours else {
        return Err(Status::internal("unable to upgrade: the connection cannot be taken over"));
    };
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    tokio::spawn(join(ours, theirs));
    Ok(response)
}

async fn join(ours: OnUpgrade, theirs: OnUpgrade) {
    let (ours, theirs) = match tokio::try_join!(ours, theirs) {
        Ok(pair) => pair,
        Err(error) => {
            tracing::debug!(%error, "a stream was not taken over");
            return;
        }
    };
    let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
    let copied = tokio::io::copy_bidirectional_with_sizes(
        &mut ours,
        &mut theirs,
        COPY_BUFFER_BYTES,
        COPY_BUFFER_BYTES,
    )
    .await;
    if let Err(error) = copied {
        tracing::debug!(%error, "a stream ended");
    }
}
