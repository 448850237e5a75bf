//! Publishes the cluster's root certificate into every active namespace as `kube-root-ca.crt`.
//!
//! Answers to upstream's `pkg/controller/certificates/rootcacertpublisher`. It watches only config maps of
//! that name, because others are none of its business and may be large.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use crate::controller::{
    Change, Error, Informer, Key, Outcome, Reconcile, Rest, View, is_already_exists, is_namespace_terminating,
};
use crate::daemon::Context;
use crate::views::{ConfigMap, Namespace};

pub const NAME: &str = "kube-root-ca.crt";
const DATA_KEY: &str = "ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
const WORKERS: usize = 1;

struct Publisher {
    rest: Rest,
    root_ca: String,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
}

/// Starts when there is a `--root-ca-file`; keys are namespaces.
pub fn start(context: &mut Context) {
    let Some(root_ca) = context.config.root_ca.clone() else {
        tracing::info!("no --root-ca-file: the root certificate is not published");
        return;
    };
    let queue = context.workers.queue("root_ca_cert_publisher");
    let namespaces = context.informers.of::<Namespace>();
    let maps = context.informers.of::<ConfigMap>();
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
        maps.on_change(move |change| {
            let map = change.object();
            if map.name() == NAME {
                queue.add(Key::cluster(map.namespace()));
            }
        });
    }
    let controller = Arc::new(Publisher { rest: context.rest.clone(), root_ca, namespaces, maps });
    context.run(queue, controller, WORKERS);
}

/// What must be written, if anything.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Create,
    Update,
}

fn plan(map: Option<&ConfigMap>, root_ca: &str) -> Plan {
    match map {
        None => Plan::Create,
        Some(map) => {
            let right = BTreeMap::from([(DATA_KEY.to_owned(), root_ca.to_owned())]);
            let described = map.annotation(DESCRIPTION_KEY) == Some(DESCRIPTION);
            if map.data == right && described { Plan::Nothing } else { Plan::Update }
        }
    }
}

#[async_trait]
impl Reconcile for Publisher {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(namespace) = self.namespaces.store().get(key) else { return Ok(Outcome::Done) };
        if namespace.is_terminating() || namespace.status.phase == "Terminating" {
            return Ok(Outcome::Done);
        }
        let map = self.maps.store().find(namespace.name(), NAME);
        let result = match plan(map.as_deref(), &self.root_ca) {
            Plan::Nothing => return Ok(Outcome::Done),
            Plan::Create => {
                let body = json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": { "name": NAME, "namespace": namespace.name(),
                        "annotations": { DESCRIPTION_KEY: DESCRIPTION } },
                    "data": { DATA_KEY: self.root_ca },
                });
                self.rest.create::<ConfigMap>(namespace.name(), &body).await
            }
            Plan::Update => {
                // The role allows no read, but this one kind is kept whole.
                let map = map.as_deref().expect("an update is planned for an existing map");
                let mut annotations = map.metadata.annotations.clone().unwrap_or_default();
                annotations.insert(DESCRIPTION_KEY.into(), DESCRIPTION.into());
                let body = json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {
                        "name": NAME,
                        "namespace": namespace.name(),
                        "uid": map.uid(),
                        "resourceVersion": map.metadata.resource_version,
                        "labels": map.metadata.labels,
                        "annotations": annotations,
                    },
                    "data": { DATA_KEY: self.root_ca },
                });
                self.rest.replace::<ConfigMap>(namespace.name(), NAME, &body).await
            }
        };
        match result {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) => Ok(Outcome::Done),
            Err(error) => Err(Error::api("publish the root certificate")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn anything_but_the_certificate_is_put_right() {
        assert_eq!(plan(None, "x"), Plan::Create);
        let map = |data: Value, annotations: Value| -> ConfigMap {
            serde_json::from_value(
                json!({"metadata": {"name": NAME, "annotations": annotations}, "data": data}),
            )
            .expect("map")
        };
        let described = json!({ DESCRIPTION_KEY: DESCRIPTION });
        assert_eq!(plan(Some(&map(json!({"ca.crt": "x"}), described.clone())), "x"), Plan::Nothing);
        assert_eq!(plan(Some(&map(json!({"ca.crt": "y"}), described.clone())), "x"), Plan::Update);
        assert_eq!(plan(Some(&map(json!({"ca.crt": "x", "more": "z"}), described)), "x"), Plan::Update);
        assert_eq!(plan(Some(&map(json!({"ca.crt": "x"}), json!({}))), "x"), Plan::Update);
    }
}
