//! The kubelet: runs pods on one node through a CRI runtime.
//!
//! The way of a pod: a source (`sources`: API server, manifest folder) hands pods to the pod manager (`pod`);
//! one worker per UID (`pod_workers`) decides what to start and stop (`kuberuntime`, pure plan first) and does
//! it through `cri`. Facts come back only by `pleg` and `prober`; `status` turns them into `PodStatus` and
//! writes them to the API. Nothing else writes pod status, nothing else talks to the runtime.

pub mod access;
pub mod certificate;
pub mod cm;
pub mod config;
pub mod cri;
pub mod daemon;
pub mod fieldpath;
pub mod flags;
pub mod kuberuntime;
pub mod lifecycle;
pub mod metrics;
pub mod network;
pub mod nodestatus;
pub mod pleg;
pub mod pod;
pub mod pod_workers;
pub mod prober;
pub mod server;
pub mod sources;
pub mod status;
pub mod streaming;
pub mod sync_loop;
pub mod volumes;
