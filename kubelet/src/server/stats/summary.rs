//! `/stats/summary`.

use std::fs;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{PodUsage, Usage, field, rfc3339, without_null};

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

#[cfg(test)]
mod tests {
    use super::super::tests::one_pod;
    use super::*;

    #[test]
    fn a_summary_holds_every_container() {
        let summary = summary("node", &Usage::default(), &[one_pod()], false);
        assert_eq!(summary["pods"][0]["containers"][0]["rootfs"]["usedBytes"], 7);
        assert_eq!(summary["pods"][0]["startTime"], "1970-01-01T00:00:01Z");
        assert_eq!(summary["node"]["nodeName"], "node");
    }
}
