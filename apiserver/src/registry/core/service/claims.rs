//! Claims on cluster addresses and node ports that all servers of one store see.
//!
//! An address belongs to the service named by its IPAddress object, whose create is the claim: it fails when
//! another has it. The ports are one bitmap under upstream's key `ranges/servicenodeports`, changed only on
//! condition that it is what was read.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::status::Status;
use serde_json::{Value, json};

use super::allocation::{PortMap, family_of};
use crate::cacher::{CachedObject, Decision, ObjectStore, Preconditions, Update};
use crate::object::{self, Object};
use crate::registry::tree::{at, text};
use crate::resources::{GroupResource, Registry};
use crate::storage::{Revision, Store, StoreError};

pub(super) const GROUP: &str = "networking.k8s.io";
pub(super) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(super) const CONTROLLER: &str = "ipallocator.k8s.io";
pub(super) const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// Its labels as managed fields name them.
const LABELS_OWNED: [&str; 2] =
    ["f:ipaddress.kubernetes.io/ip-family", "f:ipaddress.kubernetes.io/managed-by"];
/// How often a change of the ports is tried against other servers' changes.
const ATTEMPTS_MAX: u32 = 100;

/// See the module.
pub struct Claims {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    key: String,
    ports: RangeInclusive<u16>,
}

/// An IPAddress object by name and uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub name: String,
    pub uid: String,
}

fn unavailable(error: &StoreError) -> Status {
    Status::service_unavailable(format!("cannot reach the node ports in the store: {error}"))
}

impl Claims {
    /// `prefix` is that of the store's keys, `/registry`.
    pub fn new(
        registry: Arc<Registry>,
        store: Arc<dyn Store>,
        prefix: &str,
        ports: RangeInclusive<u16>,
    ) -> Self {
        let key = format!("{}/ranges/servicenodeports", prefix.trim_end_matches('/'));
        Self { registry, store, key, ports }
    }

    pub fn addresses(&self) -> Result<&Arc<dyn ObjectStore>, Status> {
        let none = || Status::internal("ipaddresses.networking.k8s.io are not stored by this server");
        self.registry.get(&GroupResource::new(GROUP, "ipaddresses")).ok_or_else(none)
    }

    /// Whether this server knows of a claim. Another's newest may be missing.
    pub fn is_known(&self, ip: IpAddr) -> bool {
        self.addresses().is_ok_and(|store| store.cached("", &ip.to_string()).is_some())
    }

    /// Claims an address for a service; `None` when it is claimed already.
    pub async fn claim(&self, ip: IpAddr, service: &Object) -> Result<Option<Claimed>, Status> {
        let claimed = Claimed { name: ip.to_string(), uid: uuid::Uuid::new_v4().to_string() };
        let now = now();
        let object = json!({
            "kind": "IPAddress",
            "apiVersion": "networking.k8s.io/v1",
            "metadata": {
                "name": claimed.name,
                "uid": claimed.uid,
                "creationTimestamp": now,
                "labels": {FAMILY: family_of(ip), MANAGED_BY: CONTROLLER},
                "managedFields": [{
                    "manager": "kube-apiserver",
                    "operation": "Update",
                    "apiVersion": "networking.k8s.io/v1",
                    "time": now,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {
                        "f:metadata": {"f:labels": {".": {}, LABELS_OWNED[0]: {}, LABELS_OWNED[1]: {}}},
                        "f:spec": {"f:parentRef": {".": {}, "f:group": {}, "f:name": {}, "f:namespace": {},
                            "f:resource": {}}},
                    },
                }],
            },
            "spec": {"parentRef": {"group": "", "resource": "services",
                "namespace": object::namespace(service), "name": object::name(service)}},
        });
        match self.addresses()?.create(&object, None).await {
            Ok(_) => Ok(Some(claimed)),
            Err(status) if status.code == 409 => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// The claim on an address, when it is this service's.
    pub async fn claim_of(&self, ip: IpAddr, service: &Object) -> Result<Option<Claimed>, Status> {
        let found = match self.addresses()?.get("", &ip.to_string(), None).await {
            Ok(found) => found,
            Err(status) if status.code == 404 => return Ok(None),
            Err(status) => return Err(status),
        };
        let own = parent(&found.tree()) == Some((object::namespace(service), object::name(service)));
        Ok(own.then(|| Claimed { name: found.name.clone(), uid: found.uid.clone() }))
    }

    /// Gives a claim back. One that is gone or another's by now is left alone.
    pub async fn release(&self, claimed: &Claimed) -> Result<(), Status> {
        let only = Preconditions { uid: Some(claimed.uid.clone()), resource_version: None };
        match self.addresses()?.guaranteed_update("", &claimed.name, &only, false, &mut Removal).await {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.code, 404 | 409) => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// The ports as they are now, and of which write.
    pub async fn read_ports(&self) -> Result<(PortMap, Option<Revision>), Status> {
        let (found, _) = self.store.get(&self.key).await.map_err(|e| unavailable(&e))?;
        let Some(found) = found else { return Ok((PortMap::new(self.ports.clone()), None)) };
        let bad = |why: &str| Status::internal(format!("{}: {why}", self.key));
        // Another server's form, as other limits with other bits: what is taken is counted anew from the services.
        let Ok(tree) = serde_json::from_slice::<Value>(&found.value) else {
            return Ok((PortMap::new(self.ports.clone()), Some(found.mod_revision)));
        };
        let data = STANDARD.decode(text(&tree, "data")).map_err(|_| bad("data is not base64"))?;
        if text(&tree, "range") != self.range_text() {
            return Ok((PortMap::new(self.ports.clone()), Some(found.mod_revision)));
        }
        Ok((PortMap::from_bytes(self.ports.clone(), &data), Some(found.mod_revision)))
    }

    /// As `30000-32767`.
    pub(super) fn range_text(&self) -> String {
        format!("{}-{}", self.ports.start(), self.ports.end())
    }

    /// Writes the ports if they are still those of `read`; false when they are not.
    pub async fn write_ports(&self, ports: &PortMap, read: Option<Revision>) -> Result<bool, Status> {
        let tree = json!({"kind": "RangeAllocation", "apiVersion": "v1", "metadata": {},
            "range": self.range_text(), "data": STANDARD.encode(ports.to_bytes())});
        let value = Bytes::from(tree.to_string());
        let written = match read {
            Some(revision) => self.store.update(&self.key, revision, value, None).await,
            None => self.store.create(&self.key, value, None).await,
        };
        match written {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. } | StoreError::Exists(_)) => Ok(false),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Changes the ports by a function of what they are, which says whether there is anything to write.
    pub async fn change_ports<T>(
        &self,
        mut change: impl FnMut(&mut PortMap) -> Result<(T, bool), Status>,
    ) -> Result<T, Status> {
        for _ in 0..ATTEMPTS_MAX {
            let (mut ports, read) = self.read_ports().await?;
            let (answer, changed) = change(&mut ports)?;
            if !changed || self.write_ports(&ports, read).await? {
                return Ok(answer);
            }
        }
        Err(Status::service_unavailable("too many servers are allocating node ports"))
    }
}

/// As metadata has times.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The service an IPAddress belongs to, by namespace and name.
pub(super) fn parent(address: &Object) -> Option<(&str, &str)> {
    let parent = at(address, &["spec", "parentRef"]);
    let service = text(parent, "resource") == "services" && text(parent, "group").is_empty();
    service.then(|| (text(parent, "namespace"), text(parent, "name")))
}

/// True for those that this kind of server made.
pub(super) fn is_managed(address: &CachedObject) -> bool {
    address.labels.iter().any(|(key, value)| key == MANAGED_BY && value == CONTROLLER)
}

/// Takes an object away as a delete would: one with finalizers is marked, for those who hold it to finish.
pub(super) struct Removal;

#[async_trait]
impl Update for Removal {
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
        let Some(mut object) = current else { return Ok(Decision::Delete) };
        let metadata = object::metadata_mut(&mut object);
        let held = metadata.get("finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        if !held {
            return Ok(Decision::Delete);
        }
        if !metadata.contains_key("deletionTimestamp") {
            metadata.insert("deletionTimestamp".into(), now().into());
            metadata.insert("deletionGracePeriodSeconds".into(), 0.into());
        }
        Ok(Decision::Write { object, ttl_seconds: None })
    }
}
