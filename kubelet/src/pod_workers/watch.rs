//! When to look at a pod's runtime before the next relist: containers that are expected to end, and soon.
//!
//! What follows an init container or a job's container must not wait for the relist's second. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::kuberuntime::RuntimePod;
use crate::pod::{self, ContainerKind};

/// The least between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(30);
/// What has run this long is left to the relist.
const AGE_MAX: Duration = Duration::from_secs(2);

/// How long to wait before the next look: half of what the youngest such container has run, so that noticing an
/// end takes at most half as long again as the container did. `None` when there is nothing to look for.
pub(super) fn next_look(pod: &Pod, runtime: &RuntimePod, now: Timestamp) -> Option<Duration> {
    let ends = pod::spec(pod).restart_policy.as_deref().is_some_and(|p| p != "Always");
    pod::containers(pod)
        .into_iter()
        .filter(|(kind, container)| match kind {
            ContainerKind::Init => !pod::is_restartable_init(container),
            ContainerKind::App => ends,
            ContainerKind::Ephemeral => false,
        })
        .filter_map(|(_, container)| runtime.running().find(|c| c.name == container.name)?.started_at)
        .map(|started| Duration::try_from(now.duration_since(started)).unwrap_or_default())
        .filter(|age| *age < AGE_MAX)
        .min()
        .map(|age| (age / 2).max(PAUSE_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kuberuntime::labels::ContainerLabels;
    use crate::kuberuntime::{ContainerState, RuntimeContainer};
    use serde_json::json;

    fn running(name: &str, started_at: Timestamp) -> RuntimeContainer {
        RuntimeContainer {
            id: name.into(),
            name: name.into(),
            state: ContainerState::Running,
            created_at: None,
            started_at: Some(started_at),
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            log_path: String::new(),
            labels: ContainerLabels::default(),
            mounts: Vec::new(),
            user: None,
        }
    }

    #[test]
    fn looks_at_what_ends_while_it_is_young() {
        let pod = |policy: &str| -> Pod {
            serde_json::from_value(json!({"spec": {"restartPolicy": policy,
                "initContainers": [{"name": "i"}, {"name": "side", "restartPolicy": "Always"}],
                "containers": [{"name": "c"}]}}))
            .unwrap()
        };
        let start = Timestamp::UNIX_EPOCH;
        let after = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        for (policy, name, ms, want) in [
            ("Always", "i", 1, Some(30)),
            ("Always", "i", 400, Some(200)),
            ("Always", "i", 2000, None),
            ("Always", "side", 100, None),
            ("Always", "c", 100, None),
            ("Never", "c", 100, Some(50)),
        ] {
            let runtime = RuntimePod { containers: vec![running(name, start)], ..RuntimePod::default() };
            let got = next_look(&pod(policy), &runtime, after(ms));
            assert_eq!(got, want.map(Duration::from_millis), "{policy} {name} {ms}");
        }
    }
}
