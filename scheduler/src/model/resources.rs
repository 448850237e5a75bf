//! Amounts as integers, and how much a pod asks for.
//!
//! Rules: KEP-753 (sidecars), KEP-1287 (in-place resize), KEP-2837 (pod-level resources), overhead (KEP-688).

use std::collections::BTreeMap;

use common::quantity::Quantity;

use super::view::{ContainerStatusView, ContainerView, PodView, Quantities};

/// What a container without a CPU request counts as for scoring, in millicores.
const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container without a memory request counts as for scoring, in bytes.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

type Amounts = BTreeMap<String, Quantity>;

/// CPU in millicores, memory and storage in bytes, the rest in units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Allowed pods; only on the node's side.
    pub pods: i64,
    /// Extended resources, huge pages and the like, sorted by name.
    pub scalars: Vec<(Box<str>, i64)>,
}

impl Resources {
    pub fn from_quantities(list: Option<&Quantities>) -> Self {
        Self::from_amounts(&parse(list))
    }

    fn from_amounts(amounts: &Amounts) -> Self {
        let mut out = Self::default();
        for (name, amount) in amounts {
            match name.as_str() {
                "cpu" => out.milli_cpu = amount.millis(),
                "memory" => out.memory = amount.units(),
                "ephemeral-storage" => out.ephemeral_storage = amount.units(),
                "pods" => out.pods = amount.units(),
                other if is_scalar(other) => out.scalars.push((other.into(), amount.units())),
                _ => {}
            }
        }
        out
    }

    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.binary_search_by(|(n, _)| n.as_ref().cmp(name)).map_or(0, |at| self.scalars[at].1)
    }

    /// Adds everything but the pod count, `sign` being 1 or -1.
    pub fn add(&mut self, other: &Self, sign: i64) {
        self.milli_cpu += sign * other.milli_cpu;
        self.memory += sign * other.memory;
        self.ephemeral_storage += sign * other.ephemeral_storage;
        for (name, amount) in &other.scalars {
            match self.scalars.binary_search_by(|(n, _)| n.cmp(name)) {
                Ok(at) => self.scalars[at].1 += sign * amount,
                Err(at) => self.scalars.insert(at, (name.clone(), sign * amount)),
            }
        }
    }

    /// By resource name, as scoring strategies name them.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            other => self.scalar(other),
        }
    }

    /// True when nothing but the pod's own slot is asked for.
    pub fn is_empty(&self) -> bool {
        self.milli_cpu == 0 && self.memory == 0 && self.ephemeral_storage == 0 && self.scalars.is_empty()
    }
}

/// Extended resources, huge pages, attachable volumes and names with a domain.
pub fn is_scalar(name: &str) -> bool {
    name.contains('/') || name.starts_with("hugepages-") || name.starts_with("attachable-volumes-")
}

/// (requests, requests with defaults for scoring) of a pod.
pub fn of_pod(pod: &PodView) -> (Resources, Resources) {
    let exact = Resources::from_amounts(&pod_requests(pod, false));
    let non_zero = Resources::from_amounts(&pod_requests(pod, true));
    (exact, non_zero)
}

fn pod_requests(pod: &PodView, defaults: bool) -> Amounts {
    let infeasible = pod
        .status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"));
    let request = |container: &ContainerView, statuses: Option<&Vec<ContainerStatusView>>| {
        let spec = parse(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
        let status = statuses.into_iter().flatten().find(|s| s.name == container.name);
        let mut amounts = match status.filter(|s| s.resources.is_some()) {
            None => spec,
            Some(status) => {
                let mut out = parse(status.resources.as_ref().and_then(|r| r.requests.as_ref()));
                max_into(&mut out, &parse(status.allocated_resources.as_ref()));
                if !infeasible {
                    max_into(&mut out, &spec);
                }
                out
            }
        };
        if defaults {
            amounts.entry("cpu".into()).or_insert_with(|| Quantity::from_millis(DEFAULT_MILLI_CPU));
            amounts.entry("memory".into()).or_insert_with(|| Quantity::from_units(DEFAULT_MEMORY));
        }
        amounts
    };

    let mut total = Amounts::new();
    for container in &pod.spec.containers {
        add_into(&mut total, &request(container, pod.status.container_statuses.as_ref()));
    }
    let mut sidecars = Amounts::new();
    let mut init_peak = Amounts::new();
    for container in pod.spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            let amounts = request(container, pod.status.init_container_statuses.as_ref());
            add_into(&mut total, &amounts);
            add_into(&mut sidecars, &amounts);
            max_into(&mut init_peak, &sidecars);
        } else {
            let mut amounts = request(container, None);
            add_into(&mut amounts, &sidecars);
            max_into(&mut init_peak, &amounts);
        }
    }
    max_into(&mut total, &init_peak);
    for (name, amount) in parse(pod.spec.resources.as_ref().and_then(|r| r.requests.as_ref())) {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            total.insert(name, amount);
        }
    }
    add_into(&mut total, &parse(pod.spec.overhead.as_ref()));
    total
}

/// Unreadable quantities count as nothing: the API server has refused them already.
fn parse(list: Option<&Quantities>) -> Amounts {
    list.into_iter()
        .flatten()
        .filter_map(|(name, q)| Some((name.clone(), Quantity::parse(&q.0).ok()?)))
        .collect()
}

fn add_into(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        *total.entry(name.clone()).or_default() += *amount;
    }
}

fn max_into(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = total.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(text: &str) -> (Resources, Resources) {
        of_pod(&serde_json::from_str(text).expect("pod"))
    }

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_add_up() {
        let (exact, _) = requests(
            r#"{"metadata":{},"spec":{
              "initContainers":[
                {"name":"s","restartPolicy":"Always","resources":{"requests":{"cpu":"1"}}},
                {"name":"i","resources":{"requests":{"cpu":"5","memory":"1Gi"}}}],
              "containers":[{"name":"a","resources":{"requests":{"cpu":"2","memory":"100Mi"}}}],
              "overhead":{"cpu":"250m"}}}"#,
        );
        assert_eq!(exact.milli_cpu, 6250, "init peak with the sidecar, and the overhead");
        assert_eq!(exact.memory, 1 << 30);
    }

    #[test]
    fn missing_requests_have_defaults_for_scoring_only() {
        let (exact, scored) = requests(
            r#"{"metadata":{},"spec":{"containers":[{"name":"a"},
               {"name":"b","resources":{"requests":{"cpu":"0","example.com/gpu":"2"}}}]}}"#,
        );
        assert_eq!((exact.milli_cpu, exact.memory, exact.scalar("example.com/gpu")), (0, 0, 2));
        assert_eq!((scored.milli_cpu, scored.memory), (100, 2 * DEFAULT_MEMORY));
    }

    #[test]
    fn pod_level_requests_replace_the_sum() {
        let (exact, _) = requests(
            r#"{"metadata":{},"spec":{"resources":{"requests":{"cpu":"3"}},
               "containers":[{"name":"a","resources":{"requests":{"cpu":"1","memory":"1Mi"}}}]}}"#,
        );
        assert_eq!((exact.milli_cpu, exact.memory), (3000, 1 << 20));
    }
}
