//! The writes: pods created in growing batches, pods deleted side by side, the status.

use std::future::Future;

use futures::future::join_all;
use serde_json::{Value, json};

use super::Replicator;
use super::plan::Manage;
use crate::controller::{
    Error, View, controller_reference, is_namespace_terminating, is_not_found, message_of, reference,
};
use crate::views::{Pod, ReplicaSetStatus, Replicated, Template};

/// The first batch; each successful one doubles it (`SlowStartInitialBatchSize` upstream).
const FIRST_BATCH: usize = 1;
/// A generated name's prefix longer than this is cut by the server anyway.
const NAME_MAX: usize = 253;

/// A pod as the template describes it, owned by `owner`.
pub fn pod_from_template<K: View>(template: &Template, owner: &K) -> Value {
    let dashed = format!("{}-", owner.name());
    let prefix = if dashed.len() <= NAME_MAX { dashed } else { owner.name().to_owned() };
    let mut pod = template.to_value();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["generateName"] = json!(prefix);
    pod["metadata"]["namespace"] = json!(owner.namespace());
    pod["metadata"]["ownerReferences"] = json!([controller_reference(owner)]);
    pod
}

/// Runs `count` calls in batches of 1, 2, 4 ...; stops after the first batch with a failure. Returns how many
/// succeeded and the first failure.
async fn slow_start<F, Fut>(count: usize, mut call: F) -> (usize, Option<Error>)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), Error>>,
{
    let (mut done, mut batch) = (0, FIRST_BATCH.min(count));
    while batch > 0 {
        let results = join_all((0..batch).map(|_| call())).await;
        done += results.iter().filter(|r| r.is_ok()).count();
        if let Some(error) = results.into_iter().find_map(Result::err) {
            return (done, Some(error));
        }
        batch = (batch * 2).min(count - done);
    }
    (done, None)
}

impl<S: Replicated> Replicator<S> {
    pub(super) async fn apply(&self, set: &S, plan: Manage) -> Result<(), Error> {
        match plan {
            Manage::Nothing => Ok(()),
            Manage::Create(count) => self.create(set, count).await,
            Manage::Delete(pods) => {
                let key = set.key();
                self.expectations.expect_deletions(&key, pods.iter().map(|p| p.uid().to_owned()));
                let results = join_all(pods.iter().map(|p| self.delete(set, p))).await;
                results.into_iter().find(Result::is_err).unwrap_or(Ok(()))
            }
        }
    }

    async fn create(&self, set: &S, count: usize) -> Result<(), Error> {
        let key = set.key();
        tracing::debug!(kind = %S::kind(&()), %key, count, "creating pods");
        let pod = pod_from_template(&set.spec().template, set);
        let about = reference(set);
        self.expectations.expect_creations(&key, count);
        let (done, error) = slow_start(count, || async {
            match self.rest.create::<Pod>(set.namespace(), &pod).await {
                Ok(made) => {
                    let text = format!("Created pod: {}", made.name());
                    self.recorder.normal(&about, "SuccessfulCreate", text);
                    Ok(())
                }
                Err(error) => {
                    if !is_namespace_terminating(&error) {
                        let text = format!("Error creating: {}", message_of(&error));
                        self.recorder.warning(&about, "FailedCreate", text);
                    }
                    Err(Error::api("create a pod")(error))
                }
            }
        })
        .await;
        for _ in done..count {
            self.expectations.creation_observed(&key);
        }
        match error {
            // Nothing can be created there any more; trying again would be noise.
            Some(error) if error.is_namespace_terminating() => Ok(()),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    async fn delete(&self, set: &S, pod: &Pod) -> Result<(), Error> {
        let about = reference(set);
        match self.rest.delete::<Pod>(pod.namespace(), pod.name(), pod.uid(), None).await {
            Ok(()) => {
                self.recorder.normal(&about, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
                Ok(())
            }
            Err(error) => {
                self.expectations.deletion_observed(&set.key(), pod.uid());
                if is_not_found(&error) {
                    return Ok(());
                }
                let text = format!("Error deleting: {}", message_of(&error));
                self.recorder.warning(&about, "FailedDelete", text);
                Err(Error::api(format!("delete pod {}", pod.key()))(error))
            }
        }
    }

    /// Writes the status if it says anything new.
    pub(super) async fn update_status(&self, set: &S, status: ReplicaSetStatus) -> Result<(), Error> {
        let mut comparable = set.status().clone();
        if comparable.terminating_replicas.is_none() && status.terminating_replicas == Some(0) {
            comparable.terminating_replicas = Some(0);
        }
        if comparable == status {
            return Ok(());
        }
        let body = json!({
            "metadata": { "uid": set.uid(), "resourceVersion": set.meta().resource_version },
            "status": status,
        });
        match self.rest.update_status::<S>(set.namespace(), set.name(), &body).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(Error::api("update the status")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::views::ReplicaSet;

    #[tokio::test]
    async fn batches_double_until_a_failure() {
        let calls = Cell::new(0);
        let (done, error) = slow_start(10, || {
            calls.set(calls.get() + 1);
            async { Ok(()) }
        })
        .await;
        assert_eq!((done, calls.get(), error.is_none()), (10, 10, true));
        let calls = Cell::new(0);
        let (done, error) = slow_start(100, || {
            calls.set(calls.get() + 1);
            let n = calls.get();
            async move { if n == 3 { Err(Error::Invalid("quota".into())) } else { Ok(()) } }
        })
        .await;
        // One, then two of which one fails, then no more.
        assert_eq!((done, calls.get(), error.is_some()), (2, 3, true));
    }

    #[test]
    fn a_pod_carries_the_template_and_its_owner() {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "u"},
            "spec": {"template": {"metadata": {"labels": {"a": "b"}, "annotations": {"x": "y"}},
                "spec": {"containers": [{"name": "c"}]}}},
        }))
        .expect("set");
        let pod = pod_from_template(&set.spec.template, &set);
        assert_eq!(pod["metadata"]["generateName"], "web-");
        assert_eq!(pod["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(pod["metadata"]["ownerReferences"][0]["controller"], true);
        assert_eq!(pod["spec"]["containers"][0]["name"], "c");
    }
}
