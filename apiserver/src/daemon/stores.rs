//! The store that the flags name, what is measured of it, and a cache in front of it for each resource.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use common::shutdown::Tasks;

use super::BuildError;
use crate::cacher::{CacheMetrics, Cacher, CacherConfig, ObjectStore};
use crate::config::{Config, StoreConfig};
use crate::protobuf;
use crate::resources::rows::{Storage, rows};
use crate::resources::{GroupResource, Registry};
use crate::storage::Store;
use crate::storage::embedded::EmbeddedStore;
use crate::storage::etcd::{EtcdConfig, EtcdStore};
use crate::storage::measured::{self, Measured, StoreMetrics};
use crate::storage::memory::MemoryStore;
use crate::storage::readable::Readable;

pub(super) async fn open_store(
    config: &Config,
    messages: &Arc<protobuf::Table>,
    metrics: &StoreMetrics,
    tasks: &Tasks,
) -> Result<Arc<dyn Store>, BuildError> {
    match &config.store {
        StoreConfig::Memory => Ok(MemoryStore::start(tasks)),
        StoreConfig::Embedded(path) => {
            tracing::info!(path = %path.display(), "no --etcd-servers: using the embedded store");
            Ok(EmbeddedStore::open(path, config.flags.etcd_compaction_interval, tasks)?)
        }
        StoreConfig::Etcd { servers, ca, certificate } => {
            let (cert_file, key_file) = certificate.clone().unzip();
            let etcd = EtcdConfig {
                servers: servers.clone(),
                ca_file: ca.clone(),
                cert_file,
                key_file,
                prefix: format!("{}/", config.flags.etcd_prefix.trim_end_matches('/')),
                compaction_interval: config.flags.etcd_compaction_interval,
            };
            // Stock servers may have written to it, and may do so beside us.
            let store = EtcdStore::connect(etcd, tasks).await?;
            store.count_leases(metrics.lease_objects());
            Ok(Arc::new(Readable::new(store, Arc::clone(messages))))
        }
    }
}

/// Counts what is asked of the store, by resource.
pub(super) fn measure(config: &Config, store: Arc<dyn Store>, metrics: &Arc<StoreMetrics>) -> Arc<dyn Store> {
    let prefix = config.flags.etcd_prefix.trim_end_matches('/');
    let known = rows().iter().filter_map(|row| {
        let Storage::Own(path) = row.storage else { return None };
        Some((format!("{prefix}/{path}/"), row.group.to_owned(), row.resource.to_owned()))
    });
    Measured::new(store, Arc::clone(metrics), &format!("{prefix}/"), known)
}

/// Whose objects are counted for metrics.
pub(super) struct Count {
    group: &'static str,
    resource: &'static str,
    cacher: Weak<Cacher>,
}

/// Keeps the metrics of the store's size and of the numbers of objects.
pub(super) fn poll_sizes(
    store: Arc<dyn Store>,
    metrics: Arc<StoreMetrics>,
    counts: Vec<Count>,
    tasks: &Tasks,
) {
    let stop = tasks.stop_token();
    tasks.spawn_essential("store sizes", async move {
        let polling = async {
            loop {
                let size = store.size_bytes().await;
                if let Some(bytes) = size {
                    metrics.observe_size(bytes);
                }
                for Count { group, resource, cacher } in &counts {
                    if let Some(cacher) = cacher.upgrade() {
                        metrics.observe_objects(group, resource, cacher.object_count());
                    }
                }
                // An etcd that did not answer yet is asked again soon.
                let pause = if size.is_some() { measured::POLL_INTERVAL } else { measured::RETRY_INTERVAL };
                tokio::time::sleep(pause).await;
            }
        };
        stop.run_until_cancelled(polling).await;
    });
}

pub(super) fn start_caches(
    config: &Config,
    store: &Arc<dyn Store>,
    metrics: &Arc<CacheMetrics>,
    tasks: &Tasks,
) -> (Registry, Vec<Count>) {
    let prefix = config.flags.etcd_prefix.trim_end_matches('/');
    let mut counts = Vec::new();
    let mut stores: HashMap<GroupResource, Arc<dyn ObjectStore>> = HashMap::new();
    for row in rows() {
        let Storage::Own(path) = row.storage else { continue };
        if !config.enablement.stores(row) {
            continue;
        }
        let cacher = Cacher::start(
            CacherConfig {
                store: Arc::clone(store),
                prefix: format!("{prefix}/{path}/"),
                group: row.group.to_owned(),
                resource: row.resource.to_owned(),
                kind: row.kind.to_owned(),
                namespaced: row.namespaced,
                selectable_fields: row.fields.read,
                selectable_field_names: row.fields.names,
                custom: None,
                metrics: Arc::clone(metrics),
            },
            tasks,
        );
        counts.push(Count { group: row.group, resource: row.resource, cacher: Arc::downgrade(&cacher) });
        stores.insert(GroupResource::new(row.group, row.resource), cacher);
    }
    (Registry::new(stores), counts)
}
