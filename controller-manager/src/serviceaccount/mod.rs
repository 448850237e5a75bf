//! Keeps the `default` service account in every active namespace.
//!
//! Answers to upstream's `pkg/controller/serviceaccount/serviceaccounts_controller.go`.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use crate::controller::{
    Change, Error, Informer, Key, Outcome, Reconcile, Rest, View, is_already_exists, is_namespace_terminating,
};
use crate::daemon::Context;
use crate::views::{Namespace, ServiceAccount};

const NAMES: [&str; 1] = ["default"];
const WORKERS: usize = 1;

struct ServiceAccounts {
    rest: Rest,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

/// Registers the handlers and starts the worker; keys are namespaces.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("serviceaccount");
    let namespaces = context.informers.of::<Namespace>();
    let accounts = context.informers.of::<ServiceAccount>();
    {
        let queue = queue.clone();
        namespaces.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                queue.add(change.object().key());
            }
        });
    }
    {
        let queue = queue.clone();
        accounts.on_change(move |change| {
            if let Change::Deleted(gone) = change
                && NAMES.contains(&gone.name())
            {
                queue.add(Key::cluster(gone.namespace()));
            }
        });
    }
    let controller = Arc::new(ServiceAccounts { rest: context.rest.clone(), namespaces, accounts });
    context.run(queue, controller, WORKERS);
}

#[async_trait]
impl Reconcile for ServiceAccounts {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(namespace) = self.namespaces.store().get(key) else { return Ok(Outcome::Done) };
        if namespace.is_terminating() || namespace.status.phase == "Terminating" {
            return Ok(Outcome::Done);
        }
        for name in NAMES {
            if self.accounts.store().find(namespace.name(), name).is_some() {
                continue;
            }
            let body = json!({ "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": name, "namespace": namespace.name() } });
            match self.rest.create::<ServiceAccount>(namespace.name(), &body).await {
                Ok(_) => {}
                Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) => {}
                Err(error) => return Err(Error::api(format!("create service account {name}"))(error)),
            }
        }
        Ok(Outcome::Done)
    }
}
