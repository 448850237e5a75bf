//! What path and method say: the verb, the resource, the name.
//!
//! Answers to `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use common::fields::FieldSelector;
use http::Method;

use super::query;
use crate::request::RequestInfo;

const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// The path cannot be read as any request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to determine kind and namespace from url, {0}")]
pub struct UnknownPath(String);

/// Reads a request line. `path` is as on the wire.
///
/// # Errors
/// For a special verb without anything behind it.
pub fn parse(method: &Method, raw_path: &str, raw_query: &str) -> Result<RequestInfo, UnknownPath> {
    let path = query::decode(raw_path, false).unwrap_or_else(|| raw_path.to_owned());
    let mut info =
        RequestInfo { verb: method.as_str().to_ascii_lowercase(), path: path.clone(), ..Default::default() };
    let trimmed = path.trim_matches('/');
    let parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
    let mut rest: &[&str] = match parts.as_slice() {
        ["api", rest @ ..] if rest.len() >= 2 => {
            info.api_prefix = "api".into();
            rest
        }
        ["apis", group, rest @ ..] if rest.len() >= 2 => {
            info.api_prefix = "apis".into();
            info.group = (*group).into();
            rest
        }
        _ => return Ok(info),
    };
    info.is_resource = true;
    info.version = rest[0].into();
    rest = &rest[1..];

    let mut verb_in_path = false;
    if matches!(rest[0], "proxy" | "watch") {
        if rest.len() < 2 {
            return Err(UnknownPath(raw_path.to_owned()));
        }
        info.verb = rest[0].into();
        verb_in_path = true;
        rest = &rest[1..];
    } else {
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .into();
    }

    if let ["namespaces", namespace, behind @ ..] = rest {
        info.namespace = (*namespace).into();
        if behind.first().is_some_and(|next| !NAMESPACE_SUBRESOURCES.contains(next)) {
            rest = behind;
        }
    }
    let behind = rest.get(if info.verb == "proxy" { 2 } else { 3 }..).unwrap_or_default();
    info.parts = as_sent(behind, raw_path, parts.len());
    info.resource = rest[0].into();
    info.name = rest.get(1).copied().unwrap_or_default().into();
    if info.verb != "proxy" {
        info.subresource = rest.get(2).copied().unwrap_or_default().into();
    }
    refine_by_query(&mut info, raw_query, verb_in_path);
    Ok(info)
}

/// The last parts of a path as they were on the wire: who is proxied to decodes them itself.
fn as_sent(last: &[&str], raw_path: &str, parts: usize) -> Vec<String> {
    let raw: Vec<&str> = raw_path.trim_matches('/').split('/').collect();
    // With an escaped slash among the parts it cannot be told which they were.
    let sent = if raw.len() == parts { &raw[raw.len() - last.len()..] } else { last };
    sent.iter().map(|part| (*part).to_owned()).collect()
}

/// A get without a name is a list or a watch, a delete without one is for the collection.
fn refine_by_query(info: &mut RequestInfo, raw_query: &str, verb_in_path: bool) {
    if info.name.is_empty() && info.verb == "get" {
        let watch = query::first(raw_query, "watch")
            .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"));
        info.verb = if watch { "watch" } else { "list" }.into();
        let selector =
            query::first(raw_query, "fieldSelector").and_then(|text| FieldSelector::parse(&text).ok());
        if let Some(name) = selector.as_ref().and_then(|s| s.required("metadata.name"))
            && is_path_segment(name)
        {
            info.name = name.to_owned();
        }
    }
    if info.name.is_empty() && info.verb == "delete" {
        info.verb = "deletecollection".into();
    }
    if !verb_in_path && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
        info.field_selector = query::first(raw_query, "fieldSelector").unwrap_or_default();
        info.label_selector = query::first(raw_query, "labelSelector").unwrap_or_default();
    }
}

fn is_path_segment(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%'])
}

/// Requests that may last: no timeout, not counted as in flight.
pub fn is_long_running(info: &RequestInfo) -> bool {
    matches!(info.verb.as_str(), "watch" | "proxy")
        || info.is_resource
            && matches!(info.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, uri: &str, wanted: &str) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let i = parse(&method.parse().unwrap(), path, query).unwrap();
        let got = if i.is_resource {
            let RequestInfo { verb, group, version, namespace, resource, subresource, name, .. } = i;
            format!("{verb} {group}/{version} ns={namespace} {resource}/{subresource} name={name}")
        } else {
            format!("{} {}", i.verb, i.path)
        };
        assert_eq!(got, wanted, "{method} {uri}");
    }

    #[test]
    fn urls_are_read_as_upstream_reads_them() {
        check("GET", "/", "get /");
        check("GET", "/healthz/ping", "get /healthz/ping");
        check("GET", "/api/v1", "get /api/v1");
        check("GET", "/apis/apps/v1", "get /apis/apps/v1");
        check("GET", "/api/v1/pods", "list /v1 ns= pods/ name=");
        check("GET", "/api/v1/pods?watch=true", "watch /v1 ns= pods/ name=");
        check("GET", "/api/v1/pods?watch=0", "list /v1 ns= pods/ name=");
        check(
            "GET",
            "/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn1",
            "watch /v1 ns= nodes/ name=n1",
        );
        check("GET", "/api/v1/namespaces", "list /v1 ns= namespaces/ name=");
        check("GET", "/api/v1/namespaces/a", "get /v1 ns=a namespaces/ name=a");
        check("PUT", "/api/v1/namespaces/a/finalize", "update /v1 ns=a namespaces/finalize name=a");
        check("PATCH", "/api/v1/namespaces/a/status", "patch /v1 ns=a namespaces/status name=a");
        check("POST", "/apis/apps/v1/namespaces/a/deployments", "create apps/v1 ns=a deployments/ name=");
        check("DELETE", "/api/v1/namespaces/a/pods", "deletecollection /v1 ns=a pods/ name=");
        check("DELETE", "/api/v1/namespaces/a/pods/p", "delete /v1 ns=a pods/ name=p");
        check("POST", "/api/v1/namespaces/a/pods/p/exec?command=x", "create /v1 ns=a pods/exec name=p");
        check("GET", "/api/v1/namespaces/a/services/s:80/proxy/x/y", "get /v1 ns=a services/proxy name=s:80");
        check("GET", "/api/v1/watch/namespaces/a/pods", "watch /v1 ns=a pods/ name=");
        check("GET", "/api/v1/watch/pods/p", "watch /v1 ns= pods/ name=p");
        check("GET", "/api/v1/proxy/namespaces/a/pods/p/x", "proxy /v1 ns=a pods/ name=p");
        check("OPTIONS", "/api/v1/pods", " /v1 ns= pods/ name=");
        check(
            "GET",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "get rbac.authorization.k8s.io/v1 ns= clusterroles/ name=system:node",
        );
        assert!(parse(&Method::GET, "/api/v1/watch", "").is_err());
    }

    #[test]
    fn what_is_behind_a_proxy_is_kept_as_it_came() {
        for (path, parts) in [
            ("/api/v1/nodes/n/proxy", vec![]),
            ("/api/v1/nodes/n/proxy/metrics", vec!["metrics"]),
            ("/api/v1/nodes/n:10250/proxy/metrics/cadvisor", vec!["metrics", "cadvisor"]),
            ("/api/v1/namespaces/a/services/https:s:443/proxy/x%20y/", vec!["x%20y"]),
            ("/api/v1/namespaces/a/pods/p/proxy/a//b", vec!["a", "", "b"]),
            ("/api/v1/namespaces/a/pods/p", vec![]),
        ] {
            assert_eq!(parse(&Method::GET, path, "").unwrap().parts, parts, "{path}");
        }
    }
}
