//! Requests and limits as the kernel's numbers.

use std::collections::BTreeMap;

use common::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::cri::v1::LinuxContainerResources;
use crate::pod;

const SHARES_PER_CPU: i64 = 1024;
pub const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
/// The kernel refuses smaller quotas.
const QUOTA_US_MIN: i64 = 1000;
/// Pods that the node cannot live without are at or above it.
const NODE_CRITICAL_PRIORITY: i32 = 2_000_001_000;
const OOM_GUARANTEED: i64 = -997;
const OOM_BEST_EFFORT: i64 = 1000;

/// What the node adds to the plan.
#[derive(Debug, Clone, Copy)]
pub struct CpuPolicy {
    pub quota_enabled: bool,
    pub period_us: i64,
}

/// One resource of a list, zero when not there.
pub fn amount(list: Option<&BTreeMap<String, ApiQuantity>>, name: &str) -> Quantity {
    list.and_then(|l| l.get(name)).and_then(|q| Quantity::parse(&q.0).ok()).unwrap_or_default()
}

/// `cpu.shares` for thousandths of a core.
pub fn cpu_shares(millis: i64) -> i64 {
    if millis <= 0 {
        SHARES_MIN
    } else {
        (millis.saturating_mul(SHARES_PER_CPU) / 1000).clamp(SHARES_MIN, SHARES_MAX)
    }
}

/// CFS quota for thousandths of a core; 0 is none.
pub fn cpu_quota(millis: i64, period_us: i64) -> i64 {
    if millis <= 0 { 0 } else { (millis.saturating_mul(period_us) / 1000).max(QUOTA_US_MIN) }
}

/// Resources of a container for the runtime.
pub fn linux(
    pod: &Pod,
    container: &Container,
    memory_capacity: i64,
    cpu: CpuPolicy,
) -> LinuxContainerResources {
    let resources = container.resources.as_ref();
    let (requests, limits) =
        (resources.and_then(|r| r.requests.as_ref()), resources.and_then(|r| r.limits.as_ref()));
    let cpu_limit = amount(limits, "cpu").millis();
    let cpu_request = match amount(requests, "cpu") {
        // Without a request the limit is the request.
        q if q.is_zero() && !requests.is_some_and(|r| r.contains_key("cpu")) => cpu_limit,
        q => q.millis(),
    };
    LinuxContainerResources {
        cpu_shares: cpu_shares(cpu_request),
        cpu_period: if cpu.quota_enabled && cpu_limit > 0 { cpu.period_us } else { 0 },
        cpu_quota: if cpu.quota_enabled { cpu_quota(cpu_limit, cpu.period_us) } else { 0 },
        memory_limit_in_bytes: amount(limits, "memory").units(),
        oom_score_adj: oom_score_adj(pod, container, memory_capacity),
        ..LinuxContainerResources::default()
    }
}

/// Who dies first when memory runs out.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    if pod::spec(pod).priority.is_some_and(|p| p >= NODE_CRITICAL_PRIORITY) {
        return OOM_GUARANTEED;
    }
    match pod::qos_class(pod) {
        "Guaranteed" => OOM_GUARANTEED,
        "BestEffort" => OOM_BEST_EFFORT,
        _ => {
            let request =
                amount(container.resources.as_ref().and_then(|r| r.requests.as_ref()), "memory").units();
            let score = 1000
                - i64::try_from(i128::from(request) * 1000 / i128::from(memory_capacity.max(1)))
                    .unwrap_or(1000);
            // Above every guaranteed pod, below every best-effort one.
            score.clamp(1000 + OOM_GUARANTEED, OOM_BEST_EFFORT - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers() {
        let check = |resources: serde_json::Value, shares: i64, quota: i64, memory: i64, oom: i64| {
            let pod: Pod = serde_json::from_value(
                json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}),
            )
            .unwrap();
            let policy = CpuPolicy { quota_enabled: true, period_us: 100_000 };
            let got = linux(&pod, &pod.spec.as_ref().unwrap().containers[0], 1000 << 20, policy);
            assert_eq!(
                (got.cpu_shares, got.cpu_quota, got.memory_limit_in_bytes, got.oom_score_adj),
                (shares, quota, memory, oom)
            );
        };
        check(json!({}), 2, 0, 0, 1000);
        check(json!({"limits": {"cpu": "500m", "memory": "1Mi"}}), 512, 50_000, 1 << 20, -997);
        check(json!({"requests": {"memory": "500Mi"}, "limits": {"cpu": "1m"}}), 2, 1000, 0, 500);
        check(json!({"requests": {"cpu": "100m"}}), 102, 0, 0, 999);
    }
}
