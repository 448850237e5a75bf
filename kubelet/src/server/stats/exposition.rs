//! The pages of metrics about usage, as text.

use super::{ContainerUsage, PodUsage, Usage};

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
    use super::super::tests::one_pod;
    use super::*;

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
    }
}
