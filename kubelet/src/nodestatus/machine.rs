//! Facts of the machine, read once.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use common::quantity::Quantity;
use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;

/// What capacity and nodeInfo say.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub cpus: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    pub swap_bytes: i64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    pub arch: &'static str,
}

impl Machine {
    /// Reads /proc, /sys and /etc. What cannot be read is empty.
    pub fn read(root_dir: &Path) -> Self {
        let line = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = |key: &str| {
            let value = meminfo
                .lines()
                .find_map(|l| l.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse::<i64>().ok());
            value.unwrap_or(0) * 1024
        };
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpus = cpuinfo.lines().filter(|l| l.starts_with("processor")).count();
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let pretty = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
        let disk = statvfs(root_dir).map(|s| s.blocks().saturating_mul(s.fragment_size())).unwrap_or(0);
        Self {
            cpus: i64::try_from(cpus.max(1)).unwrap_or(1),
            memory_bytes: kib("MemTotal:"),
            swap_bytes: kib("SwapTotal:"),
            ephemeral_bytes: i64::try_from(disk).unwrap_or(i64::MAX),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default(),
            os_image: pretty.trim_matches('"').to_owned(),
            arch: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
        }
    }

    /// Capacity by resource name.
    pub fn capacity(&self, max_pods: i32) -> BTreeMap<String, String> {
        let kib = |bytes: i64| format!("{}Ki", bytes / 1024);
        BTreeMap::from([
            ("cpu".into(), self.cpus.to_string()),
            ("memory".into(), kib(self.memory_bytes)),
            ("ephemeral-storage".into(), kib(self.ephemeral_bytes)),
            ("hugepages-1Gi".into(), "0".into()),
            ("hugepages-2Mi".into(), "0".into()),
            ("pods".into(), max_pods.to_string()),
        ])
    }
}

/// Capacity without what is reserved and what eviction keeps free.
pub fn allocatable(
    capacity: &BTreeMap<String, String>,
    reserved: &[&BTreeMap<String, String>],
    eviction_hard: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (name, text) in capacity {
        let total = Quantity::parse(text).unwrap_or_default();
        let mut left = total;
        for list in reserved {
            left -= list.get(name).and_then(|q| Quantity::parse(q).ok()).unwrap_or_default();
        }
        let signal = match name.as_str() {
            "memory" => "memory.available",
            "ephemeral-storage" => "nodefs.available",
            _ => "",
        };
        if let Some(threshold) = eviction_hard.get(signal) {
            left -= match threshold.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()) {
                Some(percent) => Quantity::from_units(
                    (i128::from(total.units()) * i128::from(percent) / 100).try_into().unwrap_or(0),
                ),
                None => Quantity::parse(threshold).unwrap_or_default(),
            };
        }
        if left.is_negative() {
            left = Quantity::ZERO;
        }
        let text = match name.as_str() {
            "cpu" if left.millis() % 1000 != 0 => format!("{}m", left.millis()),
            "memory" if left.units() % 1024 == 0 => format!("{}Ki", left.units() / 1024),
            _ => left.units().to_string(),
        };
        out.insert(name.clone(), text);
    }
    out
}

/// How many tasks the kernel allows; None when it does not say.
pub fn pids_max() -> Option<i64> {
    let read = |name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok();
    [read("pid_max"), read("threads-max")].into_iter().flatten().min()
}

/// The address that leads out: what the kernel would send from, else the first of an interface that is up.
pub fn default_ip() -> Option<IpAddr> {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        // Connecting a datagram socket sends nothing; it only asks the kernel for a route.
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    };
    if let Some(ip) = probe().ok().filter(|ip| !ip.is_loopback() && !ip.is_unspecified()) {
        return Some(ip);
    }
    let addresses = nix::ifaddrs::getifaddrs().ok()?;
    addresses
        .filter_map(|a| a.address?.as_sockaddr_in().map(|s| IpAddr::V4(s.ip())))
        .find(|ip| !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_for_pods() {
        let capacity =
            [("cpu", "2"), ("memory", "1048576Ki"), ("pods", "110"), ("ephemeral-storage", "1000Ki")];
        let capacity = capacity.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let reserved = BTreeMap::from([("cpu".to_owned(), "100m".to_owned())]);
        let eviction = [("memory.available", "100Mi"), ("nodefs.available", "10%")];
        let eviction = eviction.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let got = allocatable(&capacity, &[&reserved], &eviction);
        assert_eq!(got["cpu"], "1900m");
        assert_eq!(got["memory"], "946176Ki");
        assert_eq!(got["pods"], "110");
        assert_eq!(got["ephemeral-storage"], "921600");
    }
}
