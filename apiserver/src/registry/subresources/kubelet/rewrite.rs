//! What changes on the way through a proxy: the backend is told where it is seen, and its redirects stay below
//! the proxy. Answers to `apimachinery/pkg/util/proxy` (transport), whose rewriting of links in pages is not here.

use common::status::Status;
use http::header::{HeaderName, LOCATION};
use http::{HeaderValue, Uri};

use super::client::KubeletClient;
use super::{Target, authority, stream};
use crate::request::{ApiRequest, Response};

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Sends the request to `target` and its answer back.
pub(super) async fn forward(
    client: &KubeletClient,
    target: &Target,
    mut request: ApiRequest,
) -> Result<Response, Status> {
    let path = request.parts.uri.path().to_owned();
    let before = prefix(&path, target.path_and_query.split('?').next().unwrap_or("/")).to_owned();
    if let Ok(seen) = HeaderValue::try_from(path) {
        request.parts.headers.insert(FORWARDED_URI, seen);
    }
    let mut answer = stream::forward(client, target, request).await?;
    let moved = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    if let Some(location) = moved.and_then(|location| rewritten(location, &authority(target), &before))
        && let Ok(location) = HeaderValue::try_from(location)
    {
        answer.headers_mut().insert(LOCATION, location);
    }
    Ok(answer)
}

/// What of the path that the client asked for is in front of the backend's own.
fn prefix<'a>(path: &'a str, behind: &str) -> &'a str {
    path.strip_suffix(behind).unwrap_or(path).trim_end_matches('/')
}

/// The place below `prefix` for a backend's redirect; `None` where it may stay: to another host, relative, or below
/// the prefix already.
fn rewritten(location: &str, backend: &str, prefix: &str) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    if uri.authority().is_some_and(|authority| authority.as_str() != backend) {
        return None;
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let there = uri.authority().is_none() && path.starts_with(prefix);
    (location.starts_with('/') || uri.authority().is_some()).then_some(())?;
    (!there).then(|| if path.starts_with(prefix) { path.to_owned() } else { format!("{prefix}{path}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_below_the_proxy() {
        let before = "/api/v1/namespaces/n/pods/p/proxy";
        let check = |location: &str, expected: Option<&str>| {
            assert_eq!(rewritten(location, "10.0.0.5:80", before).as_deref(), expected, "{location}");
        };
        check("/a/b?c=d", Some("/api/v1/namespaces/n/pods/p/proxy/a/b?c=d"));
        check("http://10.0.0.5:80/a/", Some("/api/v1/namespaces/n/pods/p/proxy/a/"));
        check("https://elsewhere/a", None);
        check("a/b", None);
        check("/api/v1/namespaces/n/pods/p/proxy/a", None);
        check(
            "http://10.0.0.5:80/api/v1/namespaces/n/pods/p/proxy/a",
            Some("/api/v1/namespaces/n/pods/p/proxy/a"),
        );
    }

    #[test]
    fn the_prefix_is_what_the_backend_does_not_see() {
        assert_eq!(prefix("/api/v1/nodes/n/proxy/", "/"), "/api/v1/nodes/n/proxy");
        assert_eq!(prefix("/api/v1/nodes/n/proxy/a/b", "/a/b"), "/api/v1/nodes/n/proxy");
        assert_eq!(prefix("/api/v1/nodes/n/proxy", "/"), "/api/v1/nodes/n/proxy");
    }
}
