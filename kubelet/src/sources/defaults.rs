//! Defaults for pods that no API server has defaulted.

use k8s_openapi::api::core::v1::{Container, Pod, Probe};

use crate::kuberuntime::images::default_policy;

/// Fills in what the API server would.
pub fn apply(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    fn set<T>(field: &mut Option<T>, value: T) {
        field.get_or_insert(value);
    }
    set(&mut spec.restart_policy, "Always".into());
    set(&mut spec.dns_policy, "ClusterFirst".into());
    set(&mut spec.termination_grace_period_seconds, 30);
    set(&mut spec.enable_service_links, true);
    set(&mut spec.scheduler_name, "default-scheduler".into());
    set(&mut spec.security_context, Default::default());
    let host_network = spec.host_network == Some(true);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        apply_container(container, host_network);
    }
}

fn apply_container(container: &mut Container, host_network: bool) {
    let image = container.image.as_deref().unwrap_or("");
    container.image_pull_policy.get_or_insert_with(|| default_policy(image).to_owned());
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
    container.termination_message_policy.get_or_insert_with(|| "File".into());
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".into());
        if host_network {
            port.host_port.get_or_insert(port.container_port);
        }
    }
    if let Some(resources) = &mut container.resources
        && let Some(limits) = &resources.limits
    {
        let requests = resources.requests.get_or_insert_default();
        for (name, amount) in limits {
            requests.entry(name.clone()).or_insert_with(|| amount.clone());
        }
    }
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(apply_probe);
}

fn apply_probe(probe: &mut Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
    if let Some(get) = &mut probe.http_get {
        get.path.get_or_insert_with(|| "/".into());
        get.scheme.get_or_insert_with(|| "HTTP".into());
    }
}
