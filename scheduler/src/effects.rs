//! Carrying out what the core wants: bindings, status patches, evictions, events.
//!
//! Each request runs in its own task; the number of bindings is bounded by the core, the rest by a semaphore.

use std::sync::Arc;
use std::time::Duration;

use common::events::Recorder;
use common::shutdown::Tasks;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding as BindingObject, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::core::{Binding, Condition, Effect, Input};
use crate::model::PodInfo;

/// Requests other than bindings at once; the rest wait.
const REQUESTS_MAX: usize = 64;
/// A request without an answer for this long has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Executor {
    pub client: Client,
    pub recorder: Recorder,
    pub inputs: mpsc::Sender<Input>,
    pub tasks: Tasks,
    slots: Arc<Semaphore>,
}

impl Executor {
    pub fn new(client: Client, recorder: Recorder, inputs: mpsc::Sender<Input>, tasks: Tasks) -> Self {
        Self { client, recorder, inputs, tasks, slots: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    pub fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Event(note) => self.recorder.record(*note),
            Effect::Bind(binding) => {
                let (client, inputs) = (self.client.clone(), self.inputs.clone());
                self.tasks.spawn("bind", async move {
                    let result = bind(client, &binding).await;
                    // A closed channel means that the scheduler stops.
                    drop(inputs.send(Input::Bound { binding, result }).await);
                });
            }
            Effect::Status { pod, condition, nominated } => {
                let patch = status_patch(&pod, condition.as_ref(), nominated.as_deref(), Timestamp::now());
                self.request("patch-pod-status", pod.clone(), move |api| async move {
                    api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch))
                        .await
                        .map(drop)
                });
            }
            Effect::Evict { victim, preemptor } => {
                self.request("preempt-pod", victim.clone(), move |api| evict(api, victim, preemptor));
            }
        }
    }

    /// One request about a pod; a pod that is gone is no error.
    fn request<F, Fut>(&self, name: &'static str, pod: Arc<PodInfo>, make: F)
    where
        F: FnOnce(Api<Pod>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), kube::Error>> + Send,
    {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let slots = self.slots.clone();
        self.tasks.spawn(name, async move {
            let Ok(_slot) = slots.acquire().await else { return };
            match tokio::time::timeout(REQUEST_TIMEOUT, make(api)).await {
                Ok(Ok(())) => {}
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
                Ok(Err(error)) => tracing::warn!(pod = %pod.key(), %error, "{name} failed"),
                Err(_) => tracing::warn!(pod = %pod.key(), "{name} took too long"),
            }
        });
    }
}

/// The error is worded for the pod's event.
async fn bind(client: Client, binding: &Binding) -> Result<(), String> {
    let pod = &binding.queued.pod;
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace);
    let object = BindingObject {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".into()),
            name: Some(binding.node.clone()),
            ..ObjectReference::default()
        },
    };
    let params = PostParams::default();
    let request = api.create_subresource::<_, Value>("binding", &pod.name, &params, &object);
    let why = match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(kube::Error::Api(status))) => status.message.clone(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "context deadline exceeded".to_owned(),
    };
    Err(format!("running Bind plugin \"DefaultBinder\": {why}"))
}

/// Says why, then deletes, with the pod's own grace period.
async fn evict(api: Api<Pod>, victim: Arc<PodInfo>, preemptor: Arc<PodInfo>) -> Result<(), kube::Error> {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": format!("{}: preempting to accommodate a higher priority pod", preemptor.scheduler_name),
        "lastTransitionTime": seconds(Timestamp::now()),
        "observedGeneration": victim.generation,
    });
    let patch = Patch::Strategic(json!({
        "metadata": {"uid": victim.uid},
        "status": {"conditions": [condition]},
    }));
    api.patch_status(&victim.name, &PatchParams::default(), &patch).await?;
    let preconditions = Preconditions { uid: Some(victim.uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    api.delete(&victim.name, &params).await.map(drop)
}

/// A strategic merge patch: conditions merge by type. The UID keeps it off a pod of the same name.
fn status_patch(
    pod: &PodInfo,
    condition: Option<&Condition>,
    nominated: Option<&str>,
    now: Timestamp,
) -> Value {
    let mut status = serde_json::Map::new();
    if let Some(condition) = condition {
        let mut entry = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": condition.reason,
            "message": condition.message,
            "lastProbeTime": null,
        });
        if pod.generation > 0 {
            entry["observedGeneration"] = json!(pod.generation);
        }
        if pod.scheduled.as_ref().is_none_or(|(status, ..)| status != "False") {
            entry["lastTransitionTime"] = json!(seconds(now));
        }
        status.insert("conditions".into(), json!([entry]));
    }
    if let Some(node) = nominated {
        let value = if node.is_empty() { Value::Null } else { json!(node) };
        status.insert("nominatedNodeName".into(), value);
    }
    json!({"metadata": {"uid": pod.uid}, "status": status})
}

/// RFC 3339 in whole seconds, as metav1.Time is written.
fn seconds(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn the_condition_is_patched_by_type() {
        let condition = Condition { reason: "Unschedulable", message: "0/1".into() };
        let now = Timestamp::from_second(0).expect("time");
        let patch = status_patch(&pod("a").build(), Some(&condition), Some(""), now);
        assert_eq!(
            patch,
            json!({"metadata": {"uid": "a"}, "status": {"nominatedNodeName": null, "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1",
                "lastProbeTime": null, "lastTransitionTime": "1970-01-01T00:00:00Z"}]}})
        );
    }
}
