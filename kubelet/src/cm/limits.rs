//! What a cgroup may use, and the same said to the kernel (v1 and v2 files) and to systemd (unit properties).
//!
//! Pure. Answers to `ResourceConfigForPod` and `toResources` upstream, and to the conversions below them.

use std::collections::BTreeMap;

use common::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use zbus::zvariant::Value;

use crate::kuberuntime::resources::{amount, cpu_quota, cpu_shares};
use crate::pod;

/// Systemd rounds quotas up to whole per cents of a core.
const PERCENT_US: u64 = 10_000;
const SECOND_US: u64 = 1_000_000;
const SHARES_MAX: i64 = 262_144;
const WEIGHT_MAX: i64 = 10_000;

/// Limits of one cgroup; what is None is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// `cpu.shares`, 2 to 262144, on v2 too.
    pub shares: Option<i64>,
    /// Microseconds of a period; -1 is no limit.
    pub quota: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
    pub pids: Option<i64>,
    /// `0-3,8`.
    pub cpus: Option<String>,
}

/// A property of a systemd unit.
pub type Property = (&'static str, Value<'static>);

/// One file of a cgroup: v1's hierarchy, its name, and what to write.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    pub controller: &'static str,
    pub file: &'static str,
    pub value: String,
}

/// `cpu.weight` (1 to 10000) for `cpu.shares` (2 to 262144).
fn weight(shares: i64) -> i64 {
    if shares >= SHARES_MAX { WEIGHT_MAX } else { 1 + ((shares.max(2) - 2) * 9999) / 262_142 }
}

impl Limits {
    /// With the quota that systemd will make of it, so that the file and the unit say the same.
    pub fn rounded_for_systemd(mut self, period_us: i64) -> Self {
        if let Some(quota) = self.quota.filter(|q| *q > 0) {
            let period = u64::try_from(period_us).unwrap_or(1).max(1);
            let per_second = per_second_us(quota, period);
            self.quota =
                i64::try_from(u128::from(per_second) * u128::from(period) / u128::from(SECOND_US)).ok();
        }
        self
    }

    /// The files to write, in order.
    pub fn files(&self, v2: bool, period_us: i64) -> Vec<Setting> {
        let mut out = Vec::new();
        let mut set = |controller, file, value: String| out.push(Setting { controller, file, value });
        if v2 {
            if let Some(shares) = self.shares {
                set("cpu", "cpu.weight", weight(shares).to_string());
            }
            if let Some(quota) = self.quota {
                let quota = if quota > 0 { quota.to_string() } else { "max".into() };
                set("cpu", "cpu.max", format!("{quota} {period_us}"));
            }
            if let Some(memory) = self.memory {
                set("memory", "memory.max", memory.to_string());
            }
            if let Some(cpus) = &self.cpus {
                set("cpuset", "cpuset.cpus", cpus.clone());
            }
        } else {
            if let Some(shares) = self.shares {
                set("cpu", "cpu.shares", shares.to_string());
            }
            if let Some(quota) = self.quota {
                set("cpu", "cpu.cfs_period_us", period_us.to_string());
                set("cpu", "cpu.cfs_quota_us", quota.to_string());
            }
            if let Some(memory) = self.memory {
                set("memory", "memory.limit_in_bytes", memory.to_string());
            }
        }
        if let Some(pids) = self.pids {
            set("pids", "pids.max", pids.to_string());
        }
        out
    }

    /// The same as properties of a slice.
    pub fn properties(&self, v2: bool, period_us: i64) -> Vec<Property> {
        let number = |n: i64| Value::from(u64::try_from(n).unwrap_or(u64::MAX));
        let mut out: Vec<Property> = Vec::new();
        if let Some(memory) = self.memory {
            out.push((if v2 { "MemoryMax" } else { "MemoryLimit" }, number(memory)));
        }
        if let Some(shares) = self.shares {
            out.push(if v2 { ("CPUWeight", number(weight(shares))) } else { ("CPUShares", number(shares)) });
        }
        if let Some(quota) = self.quota {
            let period = u64::try_from(period_us).unwrap_or(1).max(1);
            out.push(("CPUQuotaPeriodUSec", Value::from(period)));
            out.push((
                "CPUQuotaPerSecUSec",
                Value::from(if quota > 0 { per_second_us(quota, period) } else { u64::MAX }),
            ));
        }
        if let Some(pids) = self.pids {
            out.push(("TasksMax", number(pids)));
        }
        if let Some(bits) = self.cpus.as_deref().filter(|_| v2).and_then(cpu_bits) {
            out.push(("AllowedCPUs", Value::from(bits)));
        }
        out
    }
}

/// Microseconds of CPU per second, in whole per cents.
fn per_second_us(quota: i64, period: u64) -> u64 {
    let quota = u128::from(u64::try_from(quota).unwrap_or(0));
    let exact = u64::try_from(quota * u128::from(SECOND_US) / u128::from(period)).unwrap_or(u64::MAX);
    exact.div_ceil(PERCENT_US).saturating_mul(PERCENT_US)
}

/// A list of CPUs as systemd takes it: a bit for each, lowest byte first. None when it names none.
fn cpu_bits(list: &str) -> Option<Vec<u8>> {
    /// Beyond what kernels are built for.
    const CPUS_MAX: usize = 8192;
    let mut bits = Vec::new();
    for range in list.trim().split(',').filter(|r| !r.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        for cpu in first..=last {
            if bits.len() <= cpu / 8 {
                bits.resize(cpu / 8 + 1, 0_u8);
            }
            bits[cpu / 8] |= 1 << (cpu % 8);
        }
    }
    (!bits.is_empty()).then_some(bits)
}

/// The node's: everything that pods together may use. `allocatable` is capacity without what is reserved;
/// eviction thresholds do not count, or eviction would never come before the kernel's killer.
pub fn of_node(allocatable: &BTreeMap<String, String>, pids: Option<i64>, cpus: Option<String>) -> Limits {
    let of = |name: &str| allocatable.get(name).and_then(|q| Quantity::parse(q).ok());
    Limits {
        shares: of("cpu").map(|q| cpu_shares(q.millis())),
        quota: None,
        memory: of("memory").map(Quantity::units),
        pids,
        cpus,
    }
}

/// A pod's: sums of its containers, or what the pod itself asks for; a limit only when all have one.
pub fn of_pod(pod: &Pod, period_us: i64, enforce_quota: bool, pids: Option<i64>) -> Limits {
    let (cpu_limit, memory_limit) =
        (limit(pod, "cpu", Quantity::millis), limit(pod, "memory", Quantity::units));
    let quota = |millis: i64| if enforce_quota { cpu_quota(millis, period_us) } else { -1 };
    let mut out = Limits { shares: Some(cpu_shares(cpu_request(pod))), pids, ..Limits::default() };
    if pod::qos_class(pod) == "BestEffort" {
        out.shares = Some(cpu_shares(0));
        return out;
    }
    out.quota = cpu_limit.map(quota);
    out.memory = memory_limit;
    out
}

/// Thousandths of a core that a pod asks for.
pub fn cpu_request(pod: &Pod) -> i64 {
    let asked = |r: Option<&ResourceRequirements>| {
        let requests = r.and_then(|r| r.requests.as_ref());
        match requests.is_some_and(|r| r.contains_key("cpu")) {
            true => amount(requests, "cpu").millis(),
            // Without a request the limit is the request.
            false => amount(r.and_then(|r| r.limits.as_ref()), "cpu").millis(),
        }
    };
    let spec = pod::spec(pod);
    let own = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).filter(|r| r.contains_key("cpu"));
    let sum = match own {
        Some(own) => amount(Some(own), "cpu").millis(),
        None => total(pod, |c| asked(c.resources.as_ref())),
    };
    sum + amount(spec.overhead.as_ref(), "cpu").millis()
}

/// A pod's limit of one resource; None when some container has none and the pod does not either.
fn limit(pod: &Pod, name: &str, unit: fn(Quantity) -> i64) -> Option<i64> {
    let spec = pod::spec(pod);
    let of = |c: &Container| unit(amount(c.resources.as_ref().and_then(|r| r.limits.as_ref()), name));
    let own = unit(amount(spec.resources.as_ref().and_then(|r| r.limits.as_ref()), name));
    let sum = if own > 0 {
        own
    } else {
        let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
        if all.any(|c| of(c) == 0) {
            return None;
        }
        total(pod, of)
    };
    Some(sum + unit(amount(spec.overhead.as_ref(), name)))
}

/// What containers need together: those that stay, or the neediest moment of initialization.
fn total(pod: &Pod, of: impl Fn(&Container) -> i64) -> i64 {
    let spec = pod::spec(pod);
    let (mut sidecars, mut peak) = (0_i64, 0_i64);
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        if pod::is_restartable_init(container) {
            sidecars = sidecars.saturating_add(own);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.saturating_add(own));
        }
    }
    spec.containers.iter().map(&of).fold(sidecars, i64::saturating_add).max(peak)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn container(requests: serde_json::Value, limits: serde_json::Value) -> serde_json::Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn of_a_pod() {
        let both = json!({"cpu": "500m", "memory": "64Mi"});
        let guaranteed = pod(json!({"containers": [container(both.clone(), both)]}));
        assert_eq!(
            of_pod(&guaranteed, 100_000, true, Some(99)),
            Limits {
                shares: Some(512),
                quota: Some(50_000),
                memory: Some(64 << 20),
                pids: Some(99),
                cpus: None
            }
        );
        assert_eq!(of_pod(&guaranteed, 100_000, false, None).quota, Some(-1));
        let burstable = pod(json!({"containers": [
            container(json!({}), json!({"cpu": "500m", "memory": "1Mi"})),
            container(json!({"cpu": "100m"}), json!({"cpu": "500m"}))]}));
        assert_eq!(
            of_pod(&burstable, 100_000, true, None),
            Limits { shares: Some(614), quota: Some(100_000), ..Limits::default() }
        );
        let none = pod(json!({"containers": [{"name": "c"}]}));
        assert_eq!(of_pod(&none, 100_000, true, None), Limits { shares: Some(2), ..Limits::default() });
    }

    #[test]
    fn initialization_and_sidecars_count() {
        let cpu = |n: &str| json!({"name": "c", "resources": {"requests": {"cpu": n}}});
        let mut sidecar = cpu("100m");
        sidecar["restartPolicy"] = "Always".into();
        let spec =
            json!({"initContainers": [cpu("300m"), sidecar, cpu("700m")], "containers": [cpu("200m")]});
        assert_eq!(cpu_request(&pod(spec)), 800);
        let own = json!({"containers": [cpu("200m")], "resources": {"requests": {"cpu": "1"}},
            "overhead": {"cpu": "10m"}});
        assert_eq!(cpu_request(&pod(own)), 1010);
    }

    #[test]
    fn files_and_properties_say_the_same() {
        let limits = Limits {
            shares: Some(1024),
            quota: Some(12_345),
            memory: Some(4096),
            pids: Some(7),
            cpus: Some("0-1,9".into()),
        };
        let limits = limits.rounded_for_systemd(100_000);
        let files: Vec<_> = limits.files(true, 100_000).into_iter().map(|s| (s.file, s.value)).collect();
        let expected = [
            ("cpu.weight", "39"),
            ("cpu.max", "13000 100000"),
            ("memory.max", "4096"),
            ("cpuset.cpus", "0-1,9"),
            ("pids.max", "7"),
        ];
        assert_eq!(files, expected.map(|(f, v)| (f, v.to_owned())));
        assert_eq!(
            limits.properties(true, 100_000),
            vec![
                ("MemoryMax", Value::from(4096_u64)),
                ("CPUWeight", Value::from(39_u64)),
                ("CPUQuotaPeriodUSec", Value::from(100_000_u64)),
                ("CPUQuotaPerSecUSec", Value::from(130_000_u64)),
                ("TasksMax", Value::from(7_u64)),
                ("AllowedCPUs", Value::from(vec![3_u8, 2])),
            ]
        );
        let unlimited = Limits { quota: Some(-1), ..Limits::default() };
        assert_eq!(unlimited.files(true, 100_000)[0].value, "max 100000");
        assert_eq!(unlimited.files(false, 100_000)[1].value, "-1");
        assert_eq!(unlimited.properties(false, 100_000)[1].1, Value::from(u64::MAX));
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_bits("0"), Some(vec![1]));
        assert_eq!(cpu_bits("8\n"), Some(vec![0, 1]));
        assert_eq!([cpu_bits(""), cpu_bits("3-1"), cpu_bits("0-99999")], [None, None, None]);
    }

    #[test]
    fn of_a_node() {
        let allocatable = BTreeMap::from([("cpu".into(), "1500m".into()), ("memory".into(), "1Ki".into())]);
        let limits = of_node(&allocatable, Some(3), None);
        assert_eq!((limits.shares, limits.memory, limits.pids), (Some(1536), Some(1024), Some(3)));
    }
}
