//! Usage of the node, its pods and containers, from the runtime and the root cgroup.
//!
//! Answers to upstream's `stats/summary` and `metrics/resource`. `usage` asks the runtime; `rates` computes
//! `usageNanoCores`, because runtimes give counters; `summary` and `exposition` are the pages made of it.

mod exposition;
mod rates;
mod summary;
mod usage;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use exposition::{cadvisor_metrics, resource_metrics};
pub use rates::Rates;
pub use summary::summary;
pub use usage::{node, pods};

/// CPU and memory of something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_nanos: u64,
    pub nano_cores: Option<u64>,
    pub working_set: u64,
    pub usage: Option<u64>,
    pub rss: Option<u64>,
    pub page_faults: Option<u64>,
    pub major_page_faults: Option<u64>,
}

impl Usage {
    fn add(&mut self, other: &Self) {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        };
        self.cpu_nanos = self.cpu_nanos.saturating_add(other.cpu_nanos);
        self.nano_cores = sum(self.nano_cores, other.nano_cores);
        self.working_set = self.working_set.saturating_add(other.working_set);
        self.usage = sum(self.usage, other.usage);
        self.rss = sum(self.rss, other.rss);
        self.page_faults = sum(self.page_faults, other.page_faults);
        self.major_page_faults = sum(self.major_page_faults, other.major_page_faults);
    }

    fn json(&self, time: &str) -> (Value, Value) {
        let cpu =
            json!({"time": time, "usageNanoCores": self.nano_cores, "usageCoreNanoSeconds": self.cpu_nanos});
        let memory = json!({
            "time": time, "workingSetBytes": self.working_set, "usageBytes": self.usage, "rssBytes": self.rss,
            "pageFaults": self.page_faults, "majorPageFaults": self.major_page_faults,
        });
        (without_null(cpu), without_null(memory))
    }
}

fn without_null(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, v| !v.is_null());
    }
    value
}

/// One container of a pod.
pub struct ContainerUsage {
    pub name: String,
    pub usage: Usage,
    pub writable_bytes: Option<u64>,
    pub writable_inodes: Option<u64>,
    pub start_nanos: i64,
}

/// One pod, by its newest sandbox.
pub struct PodUsage {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub start_nanos: i64,
    pub usage: Usage,
    pub network: Option<Value>,
    pub containers: Vec<ContainerUsage>,
}

fn rfc3339(nanos: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The number after a word at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().map(str::split_whitespace);
    words.find_map(|mut line| if line.next()? == name { line.next()?.parse().ok() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn one_pod() -> PodUsage {
        let usage = Usage { cpu_nanos: 1_500_000_000, working_set: 42, ..Usage::default() };
        PodUsage {
            name: "p".into(),
            namespace: "n".into(),
            uid: "u".into(),
            start_nanos: 1_000_000_000,
            usage: usage.clone(),
            network: None,
            containers: vec![ContainerUsage {
                name: "c".into(),
                usage,
                writable_bytes: Some(7),
                writable_inodes: None,
                start_nanos: 2_000_000_000,
            }],
        }
    }
}
