//! The kubelet: runs pods on one node through a CRI runtime.
//!
//! The way of a pod: a source (`sources`: API server, manifest folder) hands pods to the pod manager (`pod`);
//! one worker per UID (`pod_workers`) decides what to start and stop (`kuberuntime`, pure plan first) and does
//! it through `cri`. Facts come back only by `pleg` and `prober`; `status` turns them into `PodStatus` and
//! writes them to the API. Nothing else writes pod status, nothing else talks to the runtime.

pub mod certificate;
pub mod cri;
pub mod fieldpath;
pub mod server;
pub mod streaming;
pub mod volumes;
