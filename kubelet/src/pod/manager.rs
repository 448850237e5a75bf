//! Desired pods by UID and by full name; mirrors beside their static pods.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;

use super::{full_name, is_mirror, uid};

#[derive(Default)]
struct Maps {
    pods: HashMap<String, Arc<Pod>>,
    by_name: HashMap<String, String>,
    /// Mirrors by full name.
    mirrors: HashMap<String, Arc<Pod>>,
}

/// One writer (the sync loop), many readers.
#[derive(Default)]
pub struct PodManager {
    maps: RwLock<Maps>,
}

impl PodManager {
    /// Adds or replaces a pod, whichever kind it is.
    pub fn set(&self, pod: Arc<Pod>) {
        let mut maps = self.maps.write();
        let name = full_name(&pod);
        if is_mirror(&pod) {
            maps.mirrors.insert(name, pod);
        } else {
            maps.by_name.insert(name, uid(&pod).to_owned());
            maps.pods.insert(uid(&pod).to_owned(), pod);
        }
    }

    /// Forgets a pod.
    pub fn remove(&self, pod: &Pod) {
        let mut maps = self.maps.write();
        let name = full_name(pod);
        if is_mirror(pod) {
            if maps.mirrors.get(&name).is_some_and(|m| uid(m) == uid(pod)) {
                maps.mirrors.remove(&name);
            }
            return;
        }
        maps.pods.remove(uid(pod));
        if maps.by_name.get(&name).is_some_and(|u| u == uid(pod)) {
            maps.by_name.remove(&name);
        }
    }

    /// All but mirrors.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.maps.read().pods.values().cloned().collect()
    }

    pub fn mirrors(&self) -> Vec<Arc<Pod>> {
        self.maps.read().mirrors.values().cloned().collect()
    }

    pub fn by_uid(&self, uid: &str) -> Option<Arc<Pod>> {
        self.maps.read().pods.get(uid).cloned()
    }

    /// By namespace and name; mirrors are not found here.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let maps = self.maps.read();
        let uid = maps.by_name.get(&format!("{name}_{namespace}"))?;
        maps.pods.get(uid).cloned()
    }

    /// The mirror of a static pod.
    pub fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        self.maps.read().mirrors.get(&full_name(pod)).cloned()
    }
}
