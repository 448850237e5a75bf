//! Usage of the node, its pods and containers, from the runtime and the root cgroup.
//!
//! Answers to upstream's `stats/summary` and `metrics/resource`. Runtimes give counters; rates
//! (`usageNanoCores`) are computed here from the change since an earlier sample.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cri::{Cri, CriError, v1};

/// Rates are computed over at least this long.
const RATE_WINDOW_MIN: Duration = Duration::from_secs(5);
/// Counters remembered for rates; forgotten all at once beyond it.
const COUNTERS_MAX: usize = 16384;

const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    nanos: u64,
    rate: Option<u64>,
}

/// Remembers counters between requests.
#[derive(Default)]
pub struct Rates {
    samples: Mutex<HashMap<String, Sample>>,
}

impl Rates {
    /// The rate of a CPU counter in nano-cores since an earlier call; None at the first.
    pub fn of(&self, key: &str, nanos: u64, at: Instant) -> Option<u64> {
        let mut samples = self.samples.lock();
        if samples.len() >= COUNTERS_MAX {
            samples.clear();
        }
        let Some(last) = samples.get(key).copied() else {
            samples.insert(key.to_owned(), Sample { at, nanos, rate: None });
            return None;
        };
        let elapsed = at.saturating_duration_since(last.at);
        if elapsed < RATE_WINDOW_MIN && last.rate.is_some() {
            return last.rate;
        }
        let used = nanos.saturating_sub(last.nanos);
        let rate = u128::from(used) * 1_000_000_000 / elapsed.as_nanos().max(1);
        let rate = Some(u64::try_from(rate).unwrap_or(u64::MAX));
        samples.insert(key.to_owned(), Sample { at, nanos, rate });
        rate
    }
}

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

fn value(wrapped: Option<&v1::UInt64Value>) -> Option<u64> {
    wrapped.map(|w| w.value)
}

fn usage(rates: &Rates, key: &str, cpu: Option<&v1::CpuUsage>, memory: Option<&v1::MemoryUsage>) -> Usage {
    let nanos = cpu.and_then(|c| value(c.usage_core_nano_seconds.as_ref())).unwrap_or(0);
    let told = cpu.and_then(|c| value(c.usage_nano_cores.as_ref())).filter(|n| *n > 0);
    Usage {
        cpu_nanos: nanos,
        nano_cores: told.or_else(|| rates.of(key, nanos, Instant::now())),
        working_set: memory.and_then(|m| value(m.working_set_bytes.as_ref())).unwrap_or(0),
        usage: memory.and_then(|m| value(m.usage_bytes.as_ref())),
        rss: memory.and_then(|m| value(m.rss_bytes.as_ref())),
        page_faults: memory.and_then(|m| value(m.page_faults.as_ref())),
        major_page_faults: memory.and_then(|m| value(m.major_page_faults.as_ref())),
    }
}

/// All running pods' usage. Where the runtime cannot tell it per pod (one sandbox that is just going away
/// makes some runtimes fail the whole list), pods are the sum of their containers.
///
/// # Errors
/// When the runtime does not answer.
pub async fn pods(cri: &Cri, rates: &Rates) -> Result<Vec<PodUsage>, CriError> {
    let (stats, sandboxes, containers) = tokio::join!(
        cri.list_pod_sandbox_stats(v1::ListPodSandboxStatsRequest::default()),
        cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()),
        cri.list_containers(v1::ListContainersRequest::default()),
    );
    let (sandboxes, containers) = (sandboxes?, containers?);
    let started: HashMap<&str, i64> =
        containers.containers.iter().map(|c| (c.id.as_str(), c.created_at)).collect();
    let pods = match stats {
        Ok(stats) => {
            let created: HashMap<&str, i64> =
                sandboxes.items.iter().map(|s| (s.id.as_str(), s.created_at)).collect();
            stats.stats.iter().filter_map(|s| of_sandbox(s, rates, &created, &started)).collect()
        }
        Err(error) => {
            tracing::debug!(%error, "no usage per pod; adding up containers");
            let stats = cri.list_container_stats(v1::ListContainerStatsRequest::default()).await?;
            added_up(&sandboxes.items, &stats.stats, rates, &started)
        }
    };
    Ok(newest_of_each(pods))
}

/// Of a pod's sandboxes the newest one counts; a series that stood twice would spoil a whole scrape.
fn newest_of_each(mut pods: Vec<PodUsage>) -> Vec<PodUsage> {
    pods.sort_by(|a, b| {
        (&a.namespace, &a.name, &a.uid, b.start_nanos).cmp(&(&b.namespace, &b.name, &b.uid, a.start_nanos))
    });
    pods.dedup_by(|later, kept| later.uid == kept.uid && later.name == kept.name);
    for pod in &mut pods {
        pod.containers.sort_by(|a, b| (&a.name, b.start_nanos).cmp(&(&b.name, a.start_nanos)));
        pod.containers.dedup_by(|later, kept| later.name == kept.name);
    }
    pods
}

fn of_sandbox(
    stats: &v1::PodSandboxStats,
    rates: &Rates,
    created: &HashMap<&str, i64>,
    started: &HashMap<&str, i64>,
) -> Option<PodUsage> {
    let (attributes, linux) = (stats.attributes.as_ref()?, stats.linux.as_ref()?);
    let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
    Some(PodUsage {
        name: label(POD_NAME),
        namespace: label(POD_NAMESPACE),
        uid: label(POD_UID),
        start_nanos: created.get(attributes.id.as_str()).copied().unwrap_or(0),
        usage: usage(rates, &attributes.id, linux.cpu.as_ref(), linux.memory.as_ref()),
        network: linux.network.as_ref().and_then(network),
        containers: linux.containers.iter().filter_map(|c| of_container(c, rates, started)).collect(),
    })
}

fn of_container(
    stats: &v1::ContainerStats,
    rates: &Rates,
    started: &HashMap<&str, i64>,
) -> Option<ContainerUsage> {
    let (attributes, layer) = (stats.attributes.as_ref()?, stats.writable_layer.as_ref());
    Some(ContainerUsage {
        name: attributes.labels.get(CONTAINER_NAME).cloned().unwrap_or_default(),
        usage: usage(rates, &attributes.id, stats.cpu.as_ref(), stats.memory.as_ref()),
        writable_bytes: layer.and_then(|l| value(l.used_bytes.as_ref())),
        writable_inodes: layer.and_then(|l| value(l.inodes_used.as_ref())),
        start_nanos: started.get(attributes.id.as_str()).copied().unwrap_or(0),
    })
}

fn added_up(
    sandboxes: &[v1::PodSandbox],
    stats: &[v1::ContainerStats],
    rates: &Rates,
    started: &HashMap<&str, i64>,
) -> Vec<PodUsage> {
    let ready = sandboxes.iter().filter(|s| s.state == v1::PodSandboxState::SandboxReady as i32);
    ready
        .map(|sandbox| {
            let label = |name: &str| sandbox.labels.get(name).cloned().unwrap_or_default();
            let uid = label(POD_UID);
            let own = stats
                .iter()
                .filter(|s| s.attributes.as_ref().is_some_and(|a| a.labels.get(POD_UID) == Some(&uid)));
            let containers: Vec<_> = own.filter_map(|c| of_container(c, rates, started)).collect();
            let mut sum = Usage::default();
            for container in &containers {
                sum.add(&container.usage);
            }
            PodUsage {
                name: label(POD_NAME),
                namespace: label(POD_NAMESPACE),
                uid,
                start_nanos: sandbox.created_at,
                usage: sum,
                network: None,
                containers,
            }
        })
        .collect()
}

fn network(stats: &v1::NetworkUsage) -> Option<Value> {
    let one = |i: &v1::NetworkInterfaceUsage| {
        without_null(json!({
            "name": i.name, "rxBytes": value(i.rx_bytes.as_ref()), "rxErrors": value(i.rx_errors.as_ref()),
            "txBytes": value(i.tx_bytes.as_ref()), "txErrors": value(i.tx_errors.as_ref()),
        }))
    };
    let mut out = stats.default_interface.as_ref().map(one)?;
    out["time"] = rfc3339(stats.timestamp).into();
    let mut interfaces = vec![one(stats.default_interface.as_ref()?)];
    interfaces.extend(stats.interfaces.iter().map(one));
    out["interfaces"] = interfaces.into();
    Some(out)
}

fn rfc3339(nanos: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The node's own usage: the root cgroup where it counts, else `/proc`.
pub fn node(rates: &Rates) -> Usage {
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|t| t.trim().parse::<u64>().ok());
    let cpu_nanos = number("/sys/fs/cgroup/cpuacct/cpuacct.usage")
        .or_else(|| number("/sys/fs/cgroup/cpu,cpuacct/cpuacct.usage"))
        .or_else(|| {
            let stat = fs::read_to_string("/sys/fs/cgroup/cpu.stat").ok()?;
            field(&stat, "usage_usec").map(|micros| micros * 1000)
        })
        .unwrap_or(0);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name| field(&meminfo, name).unwrap_or(0) * 1024;
    let used = of("MemTotal:").saturating_sub(of("MemFree:"));
    let inactive = of("Inactive(file):");
    Usage {
        cpu_nanos,
        nano_cores: rates.of("/", cpu_nanos, Instant::now()),
        working_set: used.saturating_sub(inactive),
        usage: Some(used),
        rss: Some(of("AnonPages:")),
        page_faults: None,
        major_page_faults: None,
    }
}

/// The number after a word at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().map(str::split_whitespace);
    words.find_map(|mut line| if line.next()? == name { line.next()?.parse().ok() } else { None })
}

fn file_system(path: &str, time: &str) -> Value {
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return json!({}) };
    let block = stat.fragment_size();
    json!({
        "time": time,
        "availableBytes": stat.blocks_available() * block,
        "capacityBytes": stat.blocks() * block,
        "usedBytes": stat.blocks().saturating_sub(stat.blocks_free()) * block,
        "inodesFree": stat.files_free(),
        "inodes": stat.files(),
        "inodesUsed": stat.files().saturating_sub(stat.files_free()),
    })
}

/// `/stats/summary`.
pub fn summary(node_name: &str, node: &Usage, pods: &[PodUsage], only_cpu_and_memory: bool) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (cpu, mut memory) = node.json(&now);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = field(&meminfo, "MemTotal:").unwrap_or(0) * 1024;
    memory["availableBytes"] = total.saturating_sub(node.working_set).into();
    let mut top = json!({"nodeName": node_name, "startTime": boot_time(), "cpu": cpu, "memory": memory});
    if !only_cpu_and_memory {
        let fs = file_system("/", &now);
        top["fs"] = fs.clone();
        top["runtime"] = json!({"imageFs": fs.clone(), "containerFs": fs});
        if let Ok(pids) = fs::read_dir("/proc") {
            let running = pids
                .flatten()
                .filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
            let max = crate::nodestatus::machine::pids_max();
            top["rlimit"] = without_null(json!({"time": now, "maxpid": max, "curproc": running.count()}));
        }
    }
    let pods: Vec<Value> = pods.iter().map(|pod| pod_json(pod, &now, only_cpu_and_memory)).collect();
    json!({"node": top, "pods": pods})
}

fn pod_json(pod: &PodUsage, now: &str, only_cpu_and_memory: bool) -> Value {
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|container| {
            let (cpu, memory) = container.usage.json(now);
            let mut out = json!({"name": container.name, "startTime": rfc3339(container.start_nanos),
                "cpu": cpu, "memory": memory});
            if !only_cpu_and_memory {
                out["rootfs"] = without_null(json!({"time": now, "usedBytes": container.writable_bytes,
                    "inodesUsed": container.writable_inodes}));
            }
            out
        })
        .collect();
    let (cpu, memory) = pod.usage.json(now);
    let mut out = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": rfc3339(pod.start_nanos), "containers": containers, "cpu": cpu, "memory": memory,
    });
    if let Some(network) = pod.network.clone().filter(|_| !only_cpu_and_memory) {
        out["network"] = network;
    }
    out
}

fn boot_time() -> String {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    rfc3339(i64::try_from(field(&stat, "btime").unwrap_or(0)).unwrap_or(0).saturating_mul(1_000_000_000))
}

/// `/metrics/resource`; `pods` None says that the runtime did not answer.
pub fn resource_metrics(node: &Usage, pods: Option<&[PodUsage]>) -> String {
    let mut out = Exposition::default();
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let failed = f64::from(u8::from(pods.is_none()));
    let pods = pods.unwrap_or_default();
    let each = |out: &mut Exposition, name: &str, of: &dyn Fn(&ContainerUsage) -> f64| {
        for pod in pods {
            for container in &pod.containers {
                let labels = [
                    ("container", container.name.as_str()),
                    ("namespace", pod.namespace.as_str()),
                    ("pod", pod.name.as_str()),
                ];
                out.line(name, &labels, of(container));
            }
        }
    };
    out.head(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    each(&mut out, "container_cpu_usage_seconds_total", &|c| seconds(c.usage.cpu_nanos));
    out.head("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes");
    each(&mut out, "container_memory_working_set_bytes", &|c| c.usage.working_set as f64);
    out.head(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
    );
    each(&mut out, "container_start_time_seconds", &|c| c.start_nanos as f64 / 1e9);
    out.head(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    out.line("node_cpu_usage_seconds_total", &[], seconds(node.cpu_nanos));
    out.head("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    out.line("node_memory_working_set_bytes", &[], node.working_set as f64);
    out.head(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
    );
    for pod in pods {
        let labels = [("namespace", pod.namespace.as_str()), ("pod", pod.name.as_str())];
        out.line("pod_cpu_usage_seconds_total", &labels, seconds(pod.usage.cpu_nanos));
    }
    out.head("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
    for pod in pods {
        let labels = [("namespace", pod.namespace.as_str()), ("pod", pod.name.as_str())];
        out.line("pod_memory_working_set_bytes", &labels, pod.usage.working_set as f64);
    }
    out.head(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    out.line("resource_scrape_error", &[], failed);
    out.0
}

/// `/metrics/cadvisor`, as far as the runtime tells it.
pub fn cadvisor_metrics(pods: &[PodUsage]) -> String {
    let mut out = Exposition::default();
    let each = |out: &mut Exposition, name: &str, of: &dyn Fn(&Usage) -> f64| {
        for pod in pods {
            let own = pod.containers.iter().map(|c| (c.name.as_str(), &c.usage));
            for (container, usage) in own.chain([("", &pod.usage)]) {
                let labels = [
                    ("container", container),
                    ("namespace", pod.namespace.as_str()),
                    ("pod", pod.name.as_str()),
                ];
                out.line(name, &labels, of(usage));
            }
        }
    };
    out.head("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.");
    each(&mut out, "container_cpu_usage_seconds_total", &|u| u.cpu_nanos as f64 / 1e9);
    out.head("container_memory_working_set_bytes", "gauge", "Current working set in bytes.");
    each(&mut out, "container_memory_working_set_bytes", &|u| u.working_set as f64);
    out.head("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory.");
    each(&mut out, "container_memory_usage_bytes", &|u| u.usage.unwrap_or(0) as f64);
    out.head("container_memory_rss", "gauge", "Size of RSS in bytes.");
    each(&mut out, "container_memory_rss", &|u| u.rss.unwrap_or(0) as f64);
    out.0
}

#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(n, v)| {
                format!("{n}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
            })
            .collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.0.push_str(&format!("{name}{labels} {value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_two_samples() {
        let (rates, start) = (Rates::default(), Instant::now());
        assert_eq!(rates.of("c", 1_000_000_000, start), None);
        let later = start + Duration::from_secs(10);
        assert_eq!(rates.of("c", 6_000_000_000, later), Some(500_000_000));
        assert_eq!(rates.of("c", 6_100_000_000, later + Duration::from_secs(1)), Some(500_000_000));
        assert_eq!(rates.of("c", 0, later + Duration::from_secs(10)), Some(0), "a reset counter is no panic");
    }

    fn one_pod() -> PodUsage {
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

    #[test]
    fn a_pod_counts_once() {
        let (mut old, new) = (one_pod(), one_pod());
        old.start_nanos = 5;
        let kept = newest_of_each(vec![old, new]);
        assert_eq!(kept.iter().map(|p| p.start_nanos).collect::<Vec<_>>(), [1_000_000_000]);
    }

    #[test]
    fn pages_hold_every_container() {
        let page = resource_metrics(&Usage::default(), Some(&[one_pod()]));
        assert!(
            page.contains(
                "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5\n"
            )
        );
        assert!(page.contains("pod_memory_working_set_bytes{namespace=\"n\",pod=\"p\"} 42\n"));
        assert!(page.ends_with("resource_scrape_error 0\n"));
        assert!(resource_metrics(&Usage::default(), None).ends_with("resource_scrape_error 1\n"));
        let summary = summary("node", &Usage::default(), &[one_pod()], false);
        assert_eq!(summary["pods"][0]["containers"][0]["rootfs"]["usedBytes"], 7);
        assert_eq!(summary["pods"][0]["startTime"], "1970-01-01T00:00:01Z");
        assert_eq!(summary["node"]["nodeName"], "node");
    }
}
