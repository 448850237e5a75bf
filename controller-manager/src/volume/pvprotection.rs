//! Keeps a PersistentVolume while it is bound.

use std::sync::Arc;

use async_trait::async_trait;

use super::finalizer::{self, Due};
use crate::controller::{Change, Error, Informer, Key, Outcome, Reconcile, Rest, View};
use crate::daemon::Context;
use crate::views::PersistentVolume;

const FINALIZER: &str = "kubernetes.io/pv-protection";

struct Protection {
    rest: Rest,
    volumes: Informer<PersistentVolume>,
}

/// Registers the handler and starts the worker; keys are PersistentVolumes.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("pvprotection");
    let volumes = context.informers.of::<PersistentVolume>();
    {
        let queue = queue.clone();
        volumes.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) && step(change.object()).is_some() {
                queue.add(change.object().key());
            }
        });
    }
    let controller = Arc::new(Protection { rest: context.rest.clone(), volumes });
    context.run(queue, controller, 1);
}

/// Pure: what to write.
fn step(volume: &PersistentVolume) -> Option<Due> {
    let due = finalizer::due(volume, FINALIZER)?;
    let kept = due == Due::RemoveUnused && &*volume.status.phase == "Bound";
    (!kept).then_some(due)
}

#[async_trait]
impl Reconcile for Protection {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(volume) = self.volumes.store().get(key) else { return Ok(Outcome::Done) };
        if let Some(due) = step(&volume) {
            finalizer::write(&self.rest, &*volume, FINALIZER, due).await?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bound_volume_stays() {
        let check = |phase: &str, deleted: bool, finalizers: &[&str], expected: Option<Due>| {
            let mut object =
                json!({"metadata": {"name": "a", "finalizers": finalizers}, "status": {"phase": phase}});
            if deleted {
                object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            let volume: PersistentVolume = serde_json::from_value(object).expect("a view");
            assert_eq!(step(&volume), expected, "{phase} {deleted}");
        };
        check("Bound", true, &[FINALIZER], None);
        for phase in ["Released", "Available", "Failed", ""] {
            check(phase, true, &[FINALIZER], Some(Due::RemoveUnused));
        }
        check("Bound", false, &[], Some(Due::Add));
        check("Bound", false, &[FINALIZER], None);
    }
}
