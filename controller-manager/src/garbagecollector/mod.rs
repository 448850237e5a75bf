//! Deletes what its owners no longer need.
//!
//! A metadata-only watch on every deletable resource feeds a [`graph`] of owners and dependents; what becomes
//! suspicious goes into a queue by uid and is decided by reading the object and its owners live ([`work`]),
//! never from the graph alone. Foreground, background and orphaning deletion follow from finalizers on the
//! owner. Answers to upstream's `pkg/controller/garbagecollector`.

mod absent;
mod graph;
mod monitor;
mod work;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::controller::{Queue, Rest};
use crate::daemon::Context;
use crate::discovery::Resource;
use absent::Absent;
use graph::{Graph, Wake};

/// Never watched: they own nothing, are owned by nothing that matters, and are many.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

pub(crate) struct GarbageCollector {
    rest: Rest,
    watcher: kube::Client,
    queue: Arc<Queue>,
    graph: Mutex<Graph>,
    absent: Absent,
    /// What discovery last found, to resolve owners.
    resources: Mutex<Vec<Arc<Resource>>>,
}

/// Starts the monitors and the workers; keys are uids.
pub fn start(context: &mut Context) {
    if !context.config.enable_garbage_collector {
        return;
    }
    let queue = context.workers.queue("garbage_collector_attempt_to_delete");
    let collector = Arc::new(GarbageCollector {
        rest: context.rest.clone(),
        watcher: context.client.clone(),
        queue: queue.clone(),
        graph: Mutex::default(),
        absent: Absent::default(),
        resources: Mutex::default(),
    });
    let tasks = context.workers.tasks().clone();
    let monitored = collector.clone();
    context.run_task("garbage-collector/monitors", move || monitor::run(monitored, tasks));
    context.run(queue, collector, context.config.concurrency.garbage_collector);
}

impl GarbageCollector {
    fn wake(&self, uids: Vec<Wake>) {
        for uid in uids {
            self.queue.add(crate::controller::Key::cluster(uid));
        }
    }
}
