//! Whole requests, mutated: whatever a client writes into its method, query, headers and body, it is answered, and what
//! is wrong is its fault.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;

use super::{Harness, config_map, pod, server, table};
use crate::endpoints::query::{ListOptions, Query, WriteOptions, get_resource_version};
use crate::fuzz;
use crate::request::full;

/// A request's first line, its headers, an empty line, its body.
const REQUESTS: &[&str] = &[
    "GET /api/v1/namespaces/n/pods?limit=5&continue=abc&resourceVersion=3&resourceVersionMatch=Exact\naccept: application/json;as=Table;g=meta.k8s.io;v=v1,application/json\n\n",
    "GET /api/v1/pods?labelSelector=app%20in%20(a,b)&fieldSelector=spec.nodeName!%3Dx&resourceVersion=0&includeObject=Object\naccept: application/yaml;q=0.5,*/*;q=0.1\naccept-encoding: gzip;q=1\n\n",
    "GET /api/v1/namespaces/n/pods?watch=true&allowWatchBookmarks=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1\naccept: application/json;stream=watch\n\n",
    "GET /api/v1/namespaces/n/configmaps/x?resourceVersion=1&pretty=true\naccept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1\n\n",
    "POST /api/v1/namespaces/n/configmaps?dryRun=All&fieldManager=me&fieldValidation=Strict&pretty=false\ncontent-type: application/json; charset=utf-8\n\n{\"metadata\":{\"name\":\"y\"},\"data\":{\"a\":\"b\"}}",
    "POST /api/v1/namespaces/n/configmaps?fieldValidation=Warn\ncontent-type: application/yaml\n\nmetadata:\n  generateName: z-\ndata: {a: b}\n",
    "PUT /api/v1/namespaces/n/configmaps/x?dryRun=All&fieldValidation=Ignore\ncontent-type: application/json\n\n{\"metadata\":{\"name\":\"x\"},\"data\":{\"c\":\"d\"}}",
    "PATCH /api/v1/namespaces/n/configmaps/x?dryRun=All&force=true&fieldManager=me\ncontent-type: application/apply-patch+yaml\n\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n",
    "PATCH /api/v1/namespaces/n/pods/p?dryRun=All\ncontent-type: application/strategic-merge-patch+json\n\n{\"spec\":{\"containers\":[{\"$patch\":\"delete\",\"name\":\"c\"}]}}",
    "PATCH /api/v1/namespaces/n/configmaps/x?dryRun=All\ncontent-type: application/json-patch+json\n\n[{\"op\":\"test\",\"path\":\"/data/a\",\"value\":\"b\"},{\"op\":\"move\",\"from\":\"/data/a\",\"path\":\"/data/c\"}]",
    "DELETE /api/v1/namespaces/n/configmaps/x?dryRun=All&gracePeriodSeconds=5&propagationPolicy=Foreground\n\n{\"kind\":\"DeleteOptions\",\"apiVersion\":\"v1\",\"preconditions\":{\"uid\":\"u\",\"resourceVersion\":\"7\"},\"orphanDependents\":false,\"dryRun\":[\"All\"]}",
    "DELETE /api/v1/namespaces/n/pods?labelSelector=app%3Dq&dryRun=All&limit=2&orphanDependents=true\ncontent-type: application/yaml\n\nkind: DeleteOptions\napiVersion: meta.k8s.io/v1\ngracePeriodSeconds: -1\n",
];

/// Mistakes of clients that have no code of their own upstream, which makes them a 500.
const UNCLASSIFIED: [&str; 11] = [
    "resourceVersion: Invalid value",
    "failed to create typed patch object",
    // Strategic merges that misuse their directives.
    "unknown patch type",
    "cannot merge lists without merge key",
    "unable to find api field",
    "merging lists cannot yet be specified",
    "no elements in any of the given slices",
    "list element types are not identical",
    "expected a ",
    "does not contain declared merge key",
    "The order in patch list",
];

fn is_unclassified(message: &str) -> bool {
    UNCLASSIFIED.iter().any(|known| message.contains(known))
}

/// Sends it; the code of the answer, or nothing when HTTP itself refuses the request.
async fn send(server: &Harness, text: &str) -> Option<(u16, Bytes)> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let (method, uri) = lines.next()?.split_once(' ')?;
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    let mut request = http::Request::builder().method(method).uri(uri);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        request = request.header(name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?);
    }
    let request = request.body(full(Bytes::copy_from_slice(body.as_bytes()))).ok()?;
    let response = server.send(request).await?;
    let code = response.status().as_u16();
    let body = tokio::time::timeout(Duration::from_secs(5), response.into_body().collect()).await;
    Some((code, body.ok()?.ok()?.to_bytes()))
}

#[test]
fn fuzzed_requests_are_answered() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let server = runtime.block_on(async {
        let server = server();
        server.post("/api/v1/namespaces/n/configmaps", config_map("x")).await;
        server.post("/api/v1/namespaces/n/pods", pod("p", "node")).await;
        server
    });
    let corpus: Vec<Vec<u8>> = REQUESTS.iter().map(|text| text.as_bytes().to_vec()).collect();
    fuzz::run("requests", &corpus, |bytes, _| {
        let text = String::from_utf8_lossy(bytes);
        let Some((code, body)) = runtime.block_on(send(&server, &text)) else { return };
        // What the server cannot do in time may be asked for: a revision that is not there yet.
        let text = String::from_utf8_lossy(&body);
        assert!(code < 500 || code == 504 || is_unclassified(&text), "{code}: {text}");
    });
    runtime.block_on(async { drop(server) });
}

#[test]
fn fuzzed_options_are_read_or_refused() {
    let corpus: Vec<Vec<u8>> = REQUESTS
        .iter()
        .filter_map(|text| text.lines().next()?.split_once('?').map(|(_, query)| query.as_bytes().to_vec()))
        .collect();
    let table = table();
    let pods = table.get("", "v1", "pods").expect("a resource");
    fuzz::run("options", &corpus, |bytes, _| {
        let text = String::from_utf8_lossy(bytes);
        let query = Query::parse(&text);
        for kind in ["CreateOptions", "UpdateOptions", "PatchOptions"] {
            let _ = WriteOptions::parse(&query, kind);
        }
        let _ = WriteOptions::parse_apply(&query);
        let _ = get_resource_version(&query);
        for watch in [false, true] {
            for (namespace, name) in [("", ""), ("n", ""), ("n", "p")] {
                if let Err(status) = ListOptions::parse(&query, pods, namespace, name, watch) {
                    let unclassified = is_unclassified(&status.message);
                    assert!(unclassified || matches!(status.code, 400 | 410 | 422), "{status:?}");
                }
            }
        }
    });
}

#[test]
fn fuzzed_media_types_are_chosen_or_refused() {
    use crate::endpoints::negotiation;
    let corpus: Vec<Vec<u8>> = [
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=0.9,*/*;q=0.1",
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json",
        "application/vnd.kubernetes.protobuf;stream=watch",
        "text/html,application/xhtml+xml,application/yaml;q=1e999;v=\"v1\"",
        "gzip;q=0, deflate, br;q=1.0, *;q=0.5",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    fuzz::run("media types", &corpus, |bytes, _| {
        let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
        let mut headers = http::HeaderMap::new();
        for name in [http::header::ACCEPT, http::header::CONTENT_TYPE, http::header::ACCEPT_ENCODING] {
            headers.append(name, value.clone());
        }
        for shapes in [false, true] {
            if let Err(status) = negotiation::output(&headers, shapes) {
                assert_eq!(status.code, 406);
            }
        }
        if let Err(status) = negotiation::input(&headers) {
            assert_eq!(status.code, 415);
        }
        if let Some(accept) = negotiation::protobuf_as_json(&headers) {
            assert!(HeaderValue::try_from(accept).is_ok());
        }
        let _ = negotiation::accepts_gzip(&headers);
    });
}
