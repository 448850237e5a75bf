//! Counts what a namespace uses of one resource, page by page.

use common::quota::{Evaluator, ResourceList, ScopeRequirement};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::core::Request;
use serde_json::Value;

use super::ResourceQuotas;
use crate::controller::{Error, is_not_found};

/// Objects read per request.
const PAGE: u32 = 500;

impl ResourceQuotas {
    /// What of `hard` the objects of this resource use; nothing for a resource that the server does not have.
    pub(super) async fn count(
        &self,
        namespace: &str,
        (group, resource): (&str, &str),
        hard: &ResourceList,
        scopes: &[ScopeRequirement],
    ) -> Result<ResourceList, Error> {
        let Some(evaluator) = Evaluator::of(group, resource) else { return Ok(ResourceList::default()) };
        let Some(path) = self.path(namespace, group, resource) else { return Ok(ResourceList::default()) };
        let whole = !matches!(evaluator, Evaluator::Count(_));
        let request = Request::new(path);
        let mut page = ListParams::default().limit(PAGE);
        let (mut total, now) = (ResourceList::default(), Timestamp::now());
        loop {
            let asked = if whole { request.list(&page) } else { request.list_metadata(&page) };
            let what = || format!("count {resource} in {namespace}");
            let asked = asked.map_err(kube::Error::BuildRequest).map_err(Error::api(what()))?;
            let mut list: Value = match self.rest.client().request(asked).await {
                Ok(list) => list,
                Err(error) if is_not_found(&error) => return Ok(ResourceList::default()),
                Err(error) => return Err(Error::api(what())(error)),
            };
            let items = match list["items"].take() {
                Value::Array(items) => items,
                _ => Vec::new(),
            };
            let used = evaluator.total(hard.names(), scopes, &items, now);
            total.add(&used.map_err(|error| Error::Invalid(format!("{}: {error}", what())))?);
            match list["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => page = page.continue_token(token),
                _ => return Ok(total),
            }
        }
    }

    /// The core group is known; where another's resources are, discovery says.
    fn path(&self, namespace: &str, group: &str, resource: &str) -> Option<String> {
        if group.is_empty() {
            return Some(format!("/api/v1/namespaces/{namespace}/{resource}"));
        }
        let known = self.resources.lock();
        Some(known.get(&(group.to_owned(), resource.to_owned()))?.path(namespace))
    }
}
