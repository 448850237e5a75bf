//! Cgroup names under the two drivers.

use std::path::PathBuf;

/// `cgroupDriver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

impl Driver {
    /// The runtime's `cgroup_parent`: a path, or with systemd the last slice's name.
    pub fn parent(self, root: &str, components: &[String]) -> String {
        match self {
            Self::Cgroupfs => format!("/{}", cgroup_path(self, root, components).display()),
            Self::Systemd => slice(&all(root, components)),
        }
    }
}

/// `status.qosClass`.
pub const CLASSES: [&str; 3] = ["Guaranteed", "Burstable", "BestEffort"];

/// Components of a class's cgroup; guaranteed pods stand directly below `kubepods`, which is the node's.
pub fn class_components(qos: &str) -> Vec<String> {
    let mut out = vec!["kubepods".to_owned()];
    match qos {
        "Burstable" => out.push("burstable".into()),
        "BestEffort" => out.push("besteffort".into()),
        _ => {}
    }
    out
}

/// Components of a pod's cgroup.
pub fn pod_components(qos: &str, uid: &str) -> Vec<String> {
    let mut out = class_components(qos);
    out.push(format!("pod{uid}"));
    out
}

/// The names of a slice and of the slice it stands in, `-.slice` at the top.
pub fn slice_and_parent(root: &str, components: &[String]) -> (String, String) {
    let all = all(root, components);
    let parent = match all.len() {
        0 | 1 => "-.slice".to_owned(),
        n => slice(&all[..n - 1]),
    };
    (slice(&all), parent)
}

/// The path below the hierarchy's mount.
pub fn cgroup_path(driver: Driver, root: &str, components: &[String]) -> PathBuf {
    let all = all(root, components);
    match driver {
        Driver::Cgroupfs => all.iter().collect(),
        Driver::Systemd => (1..=all.len()).map(|n| slice(&all[..n])).collect(),
    }
}

/// The UID in the name of a pod's cgroup, either driver's.
pub fn pod_uid(name: &str) -> Option<String> {
    let name = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit('-').next()?.replace('_', "-"),
        None => name.to_owned(),
    };
    name.strip_prefix("pod").filter(|uid| uid.len() >= 32).map(str::to_owned)
}

fn all(root: &str, components: &[String]) -> Vec<String> {
    let root = root.split('/').filter(|p| !p.is_empty()).map(str::to_owned);
    root.chain(components.iter().cloned()).collect()
}

/// A dash separates slices, so one inside a name becomes an underscore.
fn slice(components: &[String]) -> String {
    let escaped: Vec<String> = components.iter().map(|c| c.replace('-', "_")).collect();
    format!("{}.slice", escaped.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_drivers() {
        let uid = "0a1b2c3d-0000-1111-2222-333344445555";
        let c = pod_components("Burstable", uid);
        assert_eq!(Driver::Cgroupfs.parent("/", &c), format!("/kubepods/burstable/pod{uid}"));
        let slice = "kubepods-burstable-pod0a1b2c3d_0000_1111_2222_333344445555.slice";
        assert_eq!(Driver::Systemd.parent("", &c), slice);
        assert_eq!(
            cgroup_path(Driver::Systemd, "", &c),
            PathBuf::from(format!("kubepods.slice/kubepods-burstable.slice/{slice}"))
        );
        assert_eq!(pod_uid(slice).as_deref(), Some(uid));
        assert_eq!(pod_uid(&format!("pod{uid}")).as_deref(), Some(uid));
        assert_eq!(pod_uid("burstable"), None);
        let (own, parent) = slice_and_parent("", &c);
        assert_eq!((own.as_str(), parent.as_str()), (slice, "kubepods-burstable.slice"));
        assert_eq!(slice_and_parent("/", &class_components("Guaranteed")).1, "-.slice");
    }
}
