//! Admission on the node: the last check whether a pod fits, after the scheduler's.
//!
//! Answers to upstream's `pkg/kubelet/lifecycle/predicate.go`. A rejected pod becomes Failed and is not tried again.

mod affinity;

use std::collections::{BTreeMap, HashMap};

use common::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;

use crate::kuberuntime::resources::amount;
use crate::pod;

/// Why a pod may not run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

type Port = (String, i32, String);

#[derive(Debug, Clone, Default)]
struct Use {
    cpu_millis: i64,
    memory: i64,
    ephemeral: i64,
    ports: Vec<Port>,
}

/// Knows what admitted pods use.
pub struct Admission {
    allocatable: BTreeMap<String, Quantity>,
    node: Mutex<Option<Node>>,
    admitted: Mutex<HashMap<String, Use>>,
}

impl Admission {
    /// `allocatable` by resource name.
    pub fn new(allocatable: BTreeMap<String, Quantity>) -> Self {
        Self { allocatable, node: Mutex::new(None), admitted: Mutex::default() }
    }

    /// The node's newest object, for its labels.
    pub fn set_node(&self, node: Node) {
        *self.node.lock() = Some(node);
    }

    /// Forgets a pod that has ended.
    pub fn release(&self, uid: &str) {
        self.admitted.lock().remove(uid);
    }

    /// Counts a pod that runs already, as after a restart of the kubelet.
    pub fn count(&self, pod: &Pod) {
        self.admitted.lock().insert(pod::uid(pod).to_owned(), use_of(pod));
    }

    /// Admits a pod and counts it, or says why not.
    ///
    /// # Errors
    /// The reason and message of the pod's Failed status.
    pub fn admit(&self, pod: &Pod) -> Result<(), Rejection> {
        let wants = use_of(pod);
        let mut admitted = self.admitted.lock();
        admitted.remove(pod::uid(pod));
        if !pod::is_static(pod) {
            self.check(pod, &wants, &admitted)?;
        }
        admitted.insert(pod::uid(pod).to_owned(), wants);
        Ok(())
    }

    fn check(&self, pod: &Pod, wants: &Use, others: &HashMap<String, Use>) -> Result<(), Rejection> {
        let reject = |reason: String, message: String| Err(Rejection { reason, message });
        let os = pod::spec(pod).os.as_ref().map_or("linux", |o| o.name.as_str());
        if os != "linux" {
            return reject(
                "PodOSNotSupported".into(),
                "Failed to admit pod as the OS field doesn't match node OS".into(),
            );
        }
        if self.node.lock().as_ref().is_some_and(|node| !affinity::allows(pod, node)) {
            let text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
            return reject("NodeAffinity".into(), text.into());
        }
        let pods = self.allocatable.get("pods").map_or(i64::MAX, |q| q.units());
        let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
        if count + 1 > pods {
            return reject("OutOfpods".into(), short("pods", 1, count, pods));
        }
        let resources: [(&str, fn(&Use) -> i64, fn(Quantity) -> i64); 3] = [
            ("cpu", |u| u.cpu_millis, Quantity::millis),
            ("memory", |u| u.memory, Quantity::units),
            ("ephemeral-storage", |u| u.ephemeral, Quantity::units),
        ];
        for (name, of, amount) in resources {
            let Some(capacity) = self.allocatable.get(name).map(|q| amount(*q)) else { continue };
            let used: i64 = others.values().map(of).fold(0, i64::saturating_add);
            let asked = of(wants);
            if asked > 0 && asked.saturating_add(used) > capacity {
                return reject(format!("OutOf{name}"), short(name, asked, used, capacity));
            }
        }
        let clash = |a: &Port, b: &Port| {
            let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
            a.1 == b.1 && a.2 == b.2 && (any(&a.0) || any(&b.0) || a.0 == b.0)
        };
        if wants.ports.iter().any(|p| others.values().any(|o| o.ports.iter().any(|q| clash(p, q)))) {
            let text =
                "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
            return reject("NodePorts".into(), text.into());
        }
        Ok(())
    }
}

fn short(name: &str, asked: i64, used: i64, capacity: i64) -> String {
    format!(
        "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
    )
}

fn use_of(pod: &Pod) -> Use {
    let spec = pod::spec(pod);
    let mut out = Use::default();
    let request = |c: &k8s_openapi::api::core::v1::Container, name: &str| {
        amount(c.resources.as_ref().and_then(|r| r.requests.as_ref()), name)
    };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| pod::is_restartable_init(c));
    for container in spec.containers.iter().chain(sidecars) {
        out.cpu_millis = out.cpu_millis.saturating_add(request(container, "cpu").millis());
        out.memory = out.memory.saturating_add(request(container, "memory").units());
        out.ephemeral = out.ephemeral.saturating_add(request(container, "ephemeral-storage").units());
        for port in container.ports.iter().flatten() {
            if let Some(host) = port.host_port.filter(|p| *p > 0) {
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
                out.ports.push((port.host_ip.clone().unwrap_or_default(), host, protocol));
            }
        }
    }
    for container in spec.init_containers.iter().flatten() {
        out.cpu_millis = out.cpu_millis.max(request(container, "cpu").millis());
        out.memory = out.memory.max(request(container, "memory").units());
        out.ephemeral = out.ephemeral.max(request(container, "ephemeral-storage").units());
    }
    let overhead = amount(spec.overhead.as_ref(), "memory").units();
    out.memory = out.memory.saturating_add(overhead);
    out.cpu_millis = out.cpu_millis.saturating_add(amount(spec.overhead.as_ref(), "cpu").millis());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fits_until_it_does_not() {
        let admission = Admission::new(
            [("pods", "2"), ("cpu", "1"), ("memory", "1Gi")]
                .map(|(k, v)| (k.to_owned(), Quantity::parse(v).unwrap()))
                .into(),
        );
        let pod = |uid: &str, cpu: &str, port: i32| -> Pod {
            serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": {"containers": [{"name": "c",
                "ports": [{"containerPort": 1, "hostPort": port}], "resources": {"requests": {"cpu": cpu}}}]}}))
            .unwrap()
        };
        admission.admit(&pod("a", "600m", 80)).unwrap();
        admission.admit(&pod("a", "600m", 80)).unwrap();
        let refused = admission.admit(&pod("b", "600m", 81)).unwrap_err();
        assert_eq!(refused.reason, "OutOfcpu");
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000"
        );
        assert_eq!(admission.admit(&pod("b", "1m", 80)).unwrap_err().reason, "NodePorts");
        admission.admit(&pod("b", "1m", 81)).unwrap();
        assert_eq!(admission.admit(&pod("c", "1m", 82)).unwrap_err().reason, "OutOfpods");
        admission.release("a");
        admission.count(&pod("d", "600m", 80));
        assert_eq!(admission.admit(&pod("c", "1m", 82)).unwrap_err().reason, "OutOfpods");
    }
}
