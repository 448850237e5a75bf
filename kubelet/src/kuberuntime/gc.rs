//! Removes dead containers and sandboxes: one dead attempt per container stays while its pod lives.

use std::collections::{HashMap, HashSet};
use std::fs;

use super::{ContainerState, Runtime};
use crate::cri::{CriError, v1};

/// Dead attempts kept per container of a living pod.
const DEAD_PER_CONTAINER: usize = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Dead {
    id: String,
    uid: String,
    name: String,
    created_at: i64,
    attempt: u32,
}

/// Which of the dead to remove: all of pods that are gone, all but the newest of each container otherwise.
fn plan(mut dead: Vec<Dead>, keep: &HashSet<String>) -> Vec<Dead> {
    dead.sort_by_key(|d| std::cmp::Reverse((d.created_at, d.attempt)));
    let mut seen: HashMap<(String, String), usize> = HashMap::new();
    dead.retain(|d| {
        if !keep.contains(&d.uid) {
            return true;
        }
        let kept = seen.entry((d.uid.clone(), d.name.clone())).or_default();
        *kept += 1;
        *kept > DEAD_PER_CONTAINER
    });
    dead
}

impl Runtime {
    /// One round. `keep` are UIDs of pods the node still knows.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub async fn collect_garbage(&self, keep: &HashSet<String>) -> Result<(), CriError> {
        let containers = self.cri.list_containers(v1::ListContainersRequest::default()).await?.containers;
        let mut busy = HashSet::new();
        let mut dead = Vec::new();
        for c in containers {
            busy.insert(c.pod_sandbox_id.clone());
            if ContainerState::from_cri(c.state) == ContainerState::Exited {
                let meta = c.metadata.unwrap_or_default();
                let uid = c.labels.get(super::labels::POD_UID).cloned().unwrap_or_default();
                dead.push(Dead {
                    id: c.id,
                    uid,
                    name: meta.name,
                    created_at: c.created_at,
                    attempt: meta.attempt,
                });
            }
        }
        for gone in plan(dead, keep) {
            self.remove_container(&gone.id).await?;
        }
        let mut sandboxes = self.cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.items;
        sandboxes.sort_by_key(|s| std::cmp::Reverse(s.created_at));
        let mut newest = HashSet::new();
        for s in sandboxes {
            let uid = s.labels.get(super::labels::POD_UID).cloned().unwrap_or_default();
            let first = newest.insert(uid.clone());
            let ready = s.state == v1::PodSandboxState::SandboxReady as i32;
            if ready || busy.contains(&s.id) || (first && keep.contains(&uid)) {
                continue;
            }
            self.cri.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: s.id }).await?;
        }
        Ok(())
    }

    /// Removes one dead container and its log.
    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let log = self.cri.container_status(request).await.ok().and_then(|r| r.status).map(|s| s.log_path);
        match self.cri.remove_container(v1::RemoveContainerRequest { container_id: id.to_owned() }).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        if let Some(path) = log.filter(|p| !p.is_empty()) {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    /// Removes all sandboxes and containers of a pod that has ended, its logs and its folder's files. Volumes
    /// must be torn down before.
    pub async fn remove_pod(&self, uid: &str) -> Result<(), CriError> {
        let pod = super::status::read_pod(&self.cri, uid).await?;
        for container in &pod.containers {
            if container.state != ContainerState::Running {
                self.remove_container(&container.id).await?;
            }
        }
        for sandbox in &pod.sandboxes {
            let stop = v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
            self.cri.stop_pod_sandbox(stop).await?;
            let remove = v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
            self.cri.remove_pod_sandbox(remove).await?;
        }
        Ok(())
    }

    /// Removes log folders and links of pods that nothing knows any more.
    pub fn collect_logs(&self, keep: &HashSet<String>) {
        let entries = fs::read_dir(&self.options.pod_logs_dir).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let uid = name.rsplit('_').next().unwrap_or("");
            if name.matches('_').count() == 2 && !keep.contains(uid) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let links = fs::read_dir(&self.options.container_logs_dir).into_iter().flatten().flatten();
        for link in links {
            // A link whose file is gone.
            if link.path().extension().is_some_and(|e| e == "log") && fs::metadata(link.path()).is_err() {
                let _ = fs::remove_file(link.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_dead_stays_while_the_pod_lives() {
        let dead = |uid: &str, name: &str, at: i64| Dead {
            id: format!("{uid}{name}{at}"),
            uid: uid.into(),
            name: name.into(),
            created_at: at,
            attempt: 0,
        };
        let keep = HashSet::from(["a".to_owned()]);
        let got =
            plan(vec![dead("a", "x", 1), dead("a", "x", 2), dead("a", "y", 1), dead("b", "x", 9)], &keep);
        let ids: Vec<_> = got.iter().map(|d| d.id.as_str()).collect();
        assert_eq!(ids, ["bx9", "ax1"]);
    }
}
