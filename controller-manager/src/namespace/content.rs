//! Deletes one resource in one namespace and counts what is left of it.

use kube::api::{DeleteParams, ListParams};
use kube::core::Request;
use serde_json::Value;

use super::FINALIZER_ESTIMATE_SECONDS;
use super::conditions::Findings;
use crate::controller::{Rest, is_not_found, message_of};
use crate::discovery::Resource;

/// Objects read per request.
const PAGE: u32 = 500;

async fn send(
    rest: &Rest,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> kube::Result<Value> {
    rest.client().request(request.map_err(kube::Error::BuildRequest)?).await
}

/// A resource that is not there, or does not take the verb, has no content.
fn is_absent(error: &kube::Error) -> bool {
    is_not_found(error) || matches!(error, kube::Error::Api(s) if s.code == 405)
}

/// Sends the deletes and looks at what remains; everything worth telling goes into `findings`.
pub async fn delete_all(rest: &Rest, resource: &Resource, namespace: &str, findings: &mut Findings) {
    if let Err(error) = try_delete_all(rest, resource, namespace, findings).await {
        findings.failed.push(format!("{}: {}", resource.name(), message_of(&error)));
    }
}

async fn try_delete_all(
    rest: &Rest,
    resource: &Resource,
    namespace: &str,
    findings: &mut Findings,
) -> kube::Result<()> {
    let request = Request::new(resource.path(namespace));
    let collection = resource.can("deletecollection");
    if collection {
        let everything = ListParams::default();
        match send(rest, request.delete_collection(&DeleteParams::background(), &everything)).await {
            Err(error) if !is_absent(&error) => return Err(error),
            _ => {}
        }
    }
    if !resource.can("list") {
        return Ok(());
    }
    let mut page = ListParams::default().limit(PAGE);
    let (mut left, mut estimate) = (0, 0);
    loop {
        let list = match send(rest, request.list_metadata(&page)).await {
            Ok(list) => list,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for item in list["items"].as_array().into_iter().flatten() {
            let meta = &item["metadata"];
            left += 1;
            if !collection && let Some(name) = meta["name"].as_str() {
                match send(rest, request.delete(name, &DeleteParams::background())).await {
                    Err(error) if !is_absent(&error) => return Err(error),
                    _ => {}
                }
            }
            estimate = estimate.max(meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0));
            for finalizer in meta["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                *findings.finalizers.entry(finalizer.to_owned()).or_default() += 1;
                estimate = estimate.max(FINALIZER_ESTIMATE_SECONDS);
            }
        }
        match list["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => page = page.continue_token(token),
            _ => break,
        }
    }
    if left > 0 {
        *findings.remaining.entry(resource.name()).or_default() += left;
        findings.estimate_seconds = findings.estimate_seconds.max(estimate);
    }
    Ok(())
}
