//! The node's Lease in `kube-node-lease`, the cheap heartbeat.

use std::time::Duration;

use common::shutdown::CancellationToken;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{Api, PostParams};

const NAMESPACE: &str = "kube-node-lease";
/// Renewals in one lease duration, upstream's `nodeLeaseRenewIntervalFraction` of 0.25.
const RENEWALS: u32 = 4;
const RETRY: Duration = Duration::from_secs(1);

/// Renews until stopped, every quarter of the duration.
pub async fn run(client: Client, node: String, duration_seconds: i32, stop: CancellationToken) {
    let period = Duration::from_secs(u64::try_from(duration_seconds).unwrap_or(40)) / RENEWALS;
    let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let mut last: Option<Lease> = None;
    let mut failing = false;
    loop {
        let pause = match renew(&client, &api, &node, duration_seconds, &mut last).await {
            Ok(()) => {
                failing = false;
                period.mul_f64(1.0 + 0.04 * rand::random::<f64>())
            }
            Err(error) => {
                last = None;
                if !failing {
                    tracing::warn!(%error, "node lease not renewed; retrying");
                }
                failing = true;
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn renew(
    client: &Client,
    api: &Api<Lease>,
    node: &str,
    seconds: i32,
    last: &mut Option<Lease>,
) -> Result<(), kube::Error> {
    let found = match last.take() {
        Some(lease) => Some(lease),
        None => api.get_opt(node).await?,
    };
    let now = MicroTime(Timestamp::now());
    let written = match found {
        Some(mut lease) => {
            let spec = lease.spec.get_or_insert_default();
            spec.renew_time = Some(now);
            spec.holder_identity = Some(node.to_owned());
            spec.lease_duration_seconds = Some(seconds);
            if lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty) {
                lease.metadata.owner_references = owner(client, node).await;
            }
            api.replace(node, &PostParams::default(), &lease).await?
        }
        None => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(node.to_owned()),
                    namespace: Some(NAMESPACE.into()),
                    owner_references: owner(client, node).await,
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(node.to_owned()),
                    lease_duration_seconds: Some(seconds),
                    renew_time: Some(now),
                    ..LeaseSpec::default()
                }),
            };
            api.create(&PostParams::default(), &lease).await?
        }
    };
    *last = Some(written);
    Ok(())
}

/// The lease goes with the node.
async fn owner(client: &Client, node: &str) -> Option<Vec<OwnerReference>> {
    let found = Api::<Node>::all(client.clone()).get_opt(node).await.ok()??;
    Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.to_owned(),
        uid: found.metadata.uid?,
        ..OwnerReference::default()
    }])
}
