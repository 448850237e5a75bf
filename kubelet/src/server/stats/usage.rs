//! What the runtime and the kernel say that is used.

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use super::{ContainerUsage, PodUsage, Rates, Usage, field, rfc3339, without_null};
use crate::cri::{Cri, CriError, v1};

const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

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

#[cfg(test)]
mod tests {
    use super::super::tests::one_pod;
    use super::*;

    #[test]
    fn a_pod_counts_once() {
        let (mut old, new) = (one_pod(), one_pod());
        old.start_nanos = 5;
        let kept = newest_of_each(vec![old, new]);
        assert_eq!(kept.iter().map(|p| p.start_nanos).collect::<Vec<_>>(), [1_000_000_000]);
    }
}
