//! Lists in EndpointSlices which pods serve a Service.
//!
//! Observe: the Service, its pods, their nodes' zones, and its slices. Plan: what each pod's endpoint is
//! ([`desired`]) and which slices must change so that as few as possible are written ([`plan`]). Slices of
//! other managers are not touched, and a Service without a selector is someone else's. Answers to upstream's
//! `pkg/controller/endpointslice` and `k8s.io/endpointslice`; topology hints are not computed.

pub mod desired;
mod plan;

use std::sync::Arc;

use async_trait::async_trait;
use common::events::Recorder;
use common::labels::Selector;
use serde_json::{Value, json};

use crate::controller::{
    Change, Error, Expectations, Informer, Key, Outcome, Queue, Reconcile, Rest, View, controller_reference,
    is_not_found, reference,
};
use crate::daemon::Context;
use crate::views::{EndpointSlice, Node, Pod, Service};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
pub const HEADLESS: &str = "service.kubernetes.io/headless";
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// The longest prefix of a generated name that leaves room for the random part.
const PREFIX_MAX: usize = 253;

struct Slices {
    rest: Rest,
    recorder: Recorder,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    expectations: Arc<Expectations>,
    per_slice: usize,
}

/// Registers the handlers and starts the workers; keys are services.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("endpoint_slice");
    let services = context.informers.of::<Service>();
    let pods = context.informers.of::<Pod>();
    let nodes = context.informers.of::<Node>();
    let slices = context.informers.of::<EndpointSlice>();
    let expectations = Arc::new(Expectations::default());
    watch_services_and_pods(&queue, &services, &pods);
    {
        let (queue, services, pods) = (queue.clone(), services.clone(), pods.clone());
        nodes.on_change(move |change| {
            let node = change.object();
            let zone = |n: &Node| n.label(desired::ZONE).map(str::to_owned);
            if change.old().is_none_or(|old| zone(old) != zone(node)) {
                for pod in pods.store().by_index(&format!("node:{}", node.name())) {
                    enqueue_services_of(&queue, &services, &pod);
                }
            }
        });
    }
    {
        let (queue, expectations) = (queue.clone(), expectations.clone());
        slices.on_change(move |change| {
            let slice = change.object();
            let Some(service) = slice.label(SERVICE_NAME) else { return };
            if slice.label(MANAGED_BY) != Some(MANAGER)
                && change.old().is_none_or(|old| old.label(MANAGED_BY) != Some(MANAGER))
            {
                return;
            }
            let key = Key::new(slice.namespace(), service);
            if matches!(change, Change::Added(_)) {
                expectations.creation_observed(&key);
            }
            queue.add(key);
        });
    }
    let controller = Arc::new(Slices {
        rest: context.rest.clone(),
        recorder: context.recorder("endpoint-slice-controller"),
        services,
        pods,
        nodes,
        slices,
        expectations,
        per_slice: context.config.endpoints_per_slice,
    });
    context.run(queue, controller, context.config.concurrency.endpointslice);
}

/// Enqueues every service whose selector matches the pod's labels.
pub fn enqueue_services_of(queue: &Queue, services: &Informer<Service>, pod: &Pod) {
    for service in services.store().in_namespace(pod.namespace()) {
        if !service.spec.selector.is_empty()
            && Selector::from_map(&service.spec.selector).matches(&pod.metadata.labels)
        {
            queue.add(service.key());
        }
    }
}

/// Handlers that both this controller and the one for Endpoints need.
pub fn watch_services_and_pods(queue: &Arc<Queue>, services: &Informer<Service>, pods: &Informer<Pod>) {
    {
        let queue = queue.clone();
        services.on_change(move |change| queue.add(change.object().key()));
    }
    let (queue, services) = (queue.clone(), services.clone());
    pods.on_change(move |change| {
        let pod = change.object();
        match change.old() {
            Some(old) => {
                let relabelled = old.metadata.labels != pod.metadata.labels;
                if relabelled {
                    enqueue_services_of(&queue, &services, old);
                }
                if relabelled || desired::differs(old, pod) {
                    enqueue_services_of(&queue, &services, pod);
                }
            }
            None => enqueue_services_of(&queue, &services, pod),
        }
    });
}

#[async_trait]
impl Reconcile for Slices {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(service) = self.services.store().get(key) else {
            // The garbage collector removes the slices with their owner.
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        if service.spec.type_ == "ExternalName"
            || service.spec.selector.is_empty()
            || service.is_terminating()
        {
            return Ok(Outcome::Done);
        }
        if !self.expectations.satisfied(key) {
            // The slice we made is on its way; its event brings the key back.
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
        let existing: Vec<_> = self
            .slices
            .store()
            .by_index(&format!("service:{key}"))
            .into_iter()
            .filter(|s| s.label(MANAGED_BY) == Some(MANAGER) && !s.is_terminating())
            .collect();
        let zones =
            |name: &str| self.nodes.store().find("", name).map(|n| n.label(desired::ZONE).map(str::to_owned));
        let groups = desired::groups(&service, &pods, &zones);
        let labels = plan::labels(&service, MANAGER);
        let writes = plan::plan(&service, &existing, groups, &labels, self.per_slice);
        if writes.is_empty() {
            return Ok(Outcome::Done);
        }
        let trigger = desired::trigger_time(&service, &pods);
        let result = self.apply(&service, writes, &labels, trigger).await;
        if let Err(error) = &result
            && !error.is_namespace_terminating()
            && !error.is_conflict()
        {
            let text = format!(
                "Error updating Endpoint Slices for Service {}/{}: {}",
                service.namespace(),
                service.name(),
                error.detail()
            );
            self.recorder.warning(&reference(&*service), "FailedToUpdateEndpointSlices", text);
        }
        match result {
            Err(error) if error.is_namespace_terminating() => Ok(Outcome::Done),
            other => other.map(|()| Outcome::Done),
        }
    }
}

impl Slices {
    async fn apply(
        &self,
        service: &Service,
        writes: Vec<plan::Write>,
        labels: &std::collections::BTreeMap<String, String>,
        trigger: Option<String>,
    ) -> Result<(), Error> {
        let (key, namespace) = (service.key(), service.namespace());
        let creates = writes.iter().filter(|w| matches!(w, plan::Write::Create { .. })).count();
        self.expectations.expect_creations(&key, creates);
        let mut left = creates;
        let mut failure = None;
        for write in writes {
            let result = match write {
                plan::Write::Create { address_type, ports, endpoints } => {
                    let body = json!({
                        "apiVersion": "discovery.k8s.io/v1",
                        "kind": "EndpointSlice",
                        "metadata": {
                            "generateName": prefix(service.name()),
                            "namespace": namespace,
                            "labels": labels,
                            "annotations": annotations(trigger.as_deref(), false),
                            "ownerReferences": [controller_reference(service)],
                        },
                        "addressType": address_type,
                        "ports": ports,
                        "endpoints": endpoints,
                    });
                    let result = self.rest.create::<EndpointSlice>(namespace, &body).await.map(drop);
                    if result.is_ok() {
                        left -= 1;
                    }
                    result.map_err(Error::api("create an endpoint slice"))
                }
                plan::Write::Update { slice, endpoints } => {
                    let mut all: serde_json::Map<String, Value> = slice
                        .metadata
                        .labels
                        .iter()
                        .flatten()
                        .map(|(k, _)| (k.clone(), Value::Null))
                        .collect();
                    all.extend(labels.iter().map(|(k, v)| (k.clone(), json!(v))));
                    let body = json!({
                        "metadata": {
                            "uid": slice.uid(),
                            "resourceVersion": slice.metadata.resource_version,
                            "labels": all,
                            "annotations": annotations(trigger.as_deref(), true),
                        },
                        "endpoints": endpoints,
                    });
                    let what = Error::api(format!("update endpoint slice {}", slice.key()));
                    self.rest
                        .update::<EndpointSlice>(namespace, slice.name(), None, &body)
                        .await
                        .map(drop)
                        .map_err(what)
                }
                plan::Write::Delete(slice) => {
                    match self.rest.delete::<EndpointSlice>(namespace, slice.name(), slice.uid(), None).await
                    {
                        Err(error) if !is_not_found(&error) => {
                            Err(Error::api(format!("delete endpoint slice {}", slice.key()))(error))
                        }
                        _ => Ok(()),
                    }
                }
            };
            if let Err(error) = result {
                failure.get_or_insert(error);
            }
        }
        for _ in 0..left {
            self.expectations.creation_observed(&key);
        }
        failure.map_or(Ok(()), Err)
    }
}

fn annotations(trigger: Option<&str>, replacing: bool) -> Value {
    match trigger {
        Some(at) => json!({ LAST_CHANGE: at }),
        None if replacing => json!({ LAST_CHANGE: null }),
        None => json!({}),
    }
}

fn prefix(service: &str) -> String {
    let dashed = format!("{service}-");
    if dashed.len() <= PREFIX_MAX { dashed } else { service.to_owned() }
}
