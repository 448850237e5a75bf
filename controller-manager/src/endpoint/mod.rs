//! Keeps the Endpoints object that older clients read beside EndpointSlices.
//!
//! Answers to upstream's `pkg/controller/endpoint`. What a pod contributes is the same question as for
//! slices and is answered there.

mod plan;

use std::sync::Arc;

use async_trait::async_trait;
use common::events::Recorder;
use common::labels::Selector;
use serde_json::{Value, json};

use crate::controller::{
    Change, Error, Informer, Key, Outcome, Reconcile, Rest, View, is_already_exists,
    is_namespace_terminating, is_not_found, message_of, reference,
};
use crate::daemon::Context;
use crate::endpointslice::desired::trigger_time;
use crate::endpointslice::{HEADLESS, watch_services_and_pods};
use crate::views::{Endpoints, Pod, Service};

pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

struct EndpointsController {
    rest: Rest,
    recorder: Recorder,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

/// Registers the handlers and starts the workers; keys are services.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("endpoint");
    let services = context.informers.of::<Service>();
    let pods = context.informers.of::<Pod>();
    let endpoints = context.informers.of::<Endpoints>();
    watch_services_and_pods(&queue, &services, &pods);
    {
        let queue = queue.clone();
        endpoints.on_change(move |change| {
            // Added: a service may have gone while nobody looked.
            if !matches!(change, Change::Updated { .. }) {
                queue.add(change.object().key());
            }
        });
    }
    let controller = Arc::new(EndpointsController {
        rest: context.rest.clone(),
        recorder: context.recorder("endpoint-controller"),
        services,
        pods,
        endpoints,
    });
    context.run(queue, controller, context.config.concurrency.endpoint);
}

#[async_trait]
impl Reconcile for EndpointsController {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let current = self.endpoints.store().get(key);
        let Some(service) = self.services.store().get(key) else {
            // Endpoints have no owner reference: they end with the service by this alone.
            if let Some(orphan) = current.filter(|e| e.label(MANAGED_BY).is_some()) {
                match self
                    .rest
                    .delete::<Endpoints>(orphan.namespace(), orphan.name(), orphan.uid(), None)
                    .await
                {
                    Err(error) if !is_not_found(&error) => {
                        return Err(Error::api("delete endpoints")(error));
                    }
                    _ => {}
                }
            }
            return Ok(Outcome::Done);
        };
        if service.spec.type_ == "ExternalName" || service.spec.selector.is_empty() {
            return Ok(Outcome::Done);
        }
        let selector = Selector::from_map(&service.spec.selector);
        let pods: Vec<_> = self
            .pods
            .store()
            .in_namespace(service.namespace())
            .into_iter()
            .filter(|p| selector.matches(&p.metadata.labels))
            .collect();
        let (subsets, truncated) = plan::subsets(&service, &pods);
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        labels.remove(HEADLESS);
        if service.spec.cluster_ip == "None" || service.spec.cluster_ip.is_empty() {
            labels.insert(HEADLESS.into(), String::new());
        }
        labels.insert(MANAGED_BY.into(), MANAGER.into());
        if let Some(current) = &current
            && plan::repack(current.subsets.clone()) == subsets
            && current.metadata.labels.as_ref() == Some(&labels)
            && (current.annotation(OVER_CAPACITY) == Some("truncated")) == truncated
        {
            return Ok(Outcome::Done);
        }
        let mut annotations = json!({
            LAST_CHANGE: trigger_time(&service, &pods),
            OVER_CAPACITY: truncated.then_some("truncated"),
        });
        let (namespace, name) = (service.namespace(), service.name());
        let result = match &current {
            None => {
                if let Some(map) = annotations.as_object_mut() {
                    map.retain(|_, v| !v.is_null());
                }
                let body = json!({
                    "apiVersion": "v1",
                    "kind": "Endpoints",
                    "metadata": { "name": name, "namespace": namespace,
                        "labels": labels, "annotations": annotations },
                    "subsets": subsets,
                });
                self.rest.create::<Endpoints>(namespace, &body).await
            }
            Some(current) => {
                let mut all: serde_json::Map<String, Value> =
                    current.metadata.labels.iter().flatten().map(|(k, _)| (k.clone(), Value::Null)).collect();
                all.extend(labels.iter().map(|(k, v)| (k.clone(), json!(v))));
                let body = json!({
                    "metadata": { "uid": current.uid(), "resourceVersion": current.metadata.resource_version,
                        "labels": all, "annotations": annotations },
                    "subsets": subsets,
                });
                self.rest.update::<Endpoints>(namespace, name, None, &body).await
            }
        };
        match result {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_namespace_terminating(&error) => Ok(Outcome::Done),
            // The cache is behind: the object's event does not enqueue, the retry does.
            Err(error) if is_already_exists(&error) => Err(Error::Behind(format!("endpoints {key}"))),
            Err(error) => {
                let failed = Error::api("write endpoints");
                if !crate::controller::is_conflict(&error) {
                    let (reason, text) = match current {
                        None => ("FailedToCreateEndpoint", "Failed to create endpoint for service"),
                        Some(_) => ("FailedToUpdateEndpoint", "Failed to update endpoint"),
                    };
                    let text = format!("{text} {namespace}/{name}: {}", message_of(&error));
                    self.recorder.warning(&reference(&*service), reason, text);
                }
                Err(failed(error))
            }
        }
    }
}
