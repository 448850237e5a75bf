//! What the kubelet knows of its pods apart from their containers: identity, kind of source, mirrors.
//!
//! Answers to upstream's `pkg/kubelet/pod` and the annotations of `pkg/kubelet/types`. It holds desired pods
//! only; it must not know what runs.

mod manager;
mod view;

pub use manager::PodManager;
pub use view::{
    CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE, ContainerKind, annotation, container_reference,
    containers, format_pod, full_name, is_critical, is_host_network, is_mirror, is_restartable_init,
    is_static, is_terminal_phase, name, namespace, phase, qos_class, reference, spec, uid,
};
