//! The scheduling framework: what a plugin may say at each extension point, and the table of plugins.
//!
//! A plugin is asked once per cycle to prepare (`pre_filter`, `pre_score`) and gives back an object that holds
//! its per-cycle state and answers per node; a plugin with nothing to do for a pod says so and is not asked again.
//! Plugins see a read-only snapshot and perform no I/O. Queueing hints are a function of (pod, change).
//! Answers to: pkg/scheduler/framework, kube-scheduler/framework.

mod diagnosis;
mod profile;
mod registry;

use std::borrow::Cow;
use std::collections::BTreeSet;

pub use diagnosis::{Diagnosis, FitError};
pub use profile::{NamedFilter, Preemption, Prepared, Profile, ProfileError, clone_filters, run_filters};
pub use registry::{MISSING, PLUGINS, PluginDef, Point, Unbuilt, definition, is_missing};

use crate::cache::Snapshot;
use crate::model::{Node, NodeInfo, PodInfo};

/// The best a plugin can say about a node.
pub const SCORE_MAX: i64 = 100;

/// Whether taking pods off a node could help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Unschedulable,
    UnschedulableAndUnresolvable,
}

/// A plugin's "no" to a node (or, from `pre_filter`, to all).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub code: Code,
    pub reasons: Vec<Cow<'static, str>>,
    /// Filled by the framework.
    pub plugin: &'static str,
}

impl Rejection {
    pub fn unschedulable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Code::Unschedulable, reasons: vec![reason.into()], plugin: "" }
    }

    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Code::UnschedulableAndUnresolvable, reasons: vec![reason.into()], plugin: "" }
    }
}

/// What a plugin prepares from.
#[derive(Clone, Copy)]
pub struct Cycle<'a> {
    pub pod: &'a PodInfo,
    pub snapshot: &'a Snapshot,
}

/// A filter plugin's state in one cycle.
pub trait Filter<'a>: Send {
    /// # Errors
    /// When the pod cannot run on the node.
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection>;
    /// As if `pod` ran on `node` too (nominated pods, preemption).
    fn add_pod(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}
    fn remove_pod(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}
    fn boxed_clone(&self) -> Box<dyn Filter<'a> + 'a>;
}

/// A score plugin's state in one cycle.
pub trait Score {
    fn score(&self, node: &NodeInfo) -> i64;
    /// Brings raw scores into 0..=100; `nodes` go with `scores`.
    fn normalize(&self, _nodes: &[&NodeInfo], _scores: &mut [i64]) {}
}

pub enum PreFilter<'a> {
    /// Nothing to filter for this pod.
    Skip,
    Run(Box<dyn Filter<'a> + 'a>),
    /// Only these nodes can match.
    RunOn(Box<dyn Filter<'a> + 'a>, BTreeSet<String>),
    /// No node can match.
    Reject(Rejection),
}

/// Something that happened in the cluster, as queueing hints see it.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    NodeAdd(&'a Node),
    NodeUpdate {
        old: &'a Node,
        new: &'a Node,
    },
    AssignedPodAdd(&'a PodInfo),
    AssignedPodUpdate {
        old: &'a PodInfo,
        new: &'a PodInfo,
    },
    /// Deleted, finished or forgotten after a failed binding; a nominated pod that went away counts too.
    AssignedPodDelete(&'a PodInfo),
    /// A waiting pod changed.
    UnscheduledPodUpdate {
        old: &'a PodInfo,
        new: &'a PodInfo,
    },
    /// A namespace's labels changed: (name, labels before, labels now).
    NamespaceUpdate(&'a str),
    /// Waited too long: concerns every plugin.
    UnschedulableTimeout,
}

impl Change<'_> {
    /// Upstream's name, used in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NodeAdd(_) => "NodeAdd",
            Self::NodeUpdate { .. } => "NodeUpdate",
            Self::AssignedPodAdd(_) => "AssignedPodAdd",
            Self::AssignedPodUpdate { .. } => "AssignedPodUpdate",
            Self::AssignedPodDelete(_) => "AssignedPodDelete",
            Self::UnscheduledPodUpdate { .. } => "UnschedulablePodUpdate",
            Self::NamespaceUpdate(_) => "NamespaceUpdate",
            Self::UnschedulableTimeout => "UnschedulableTimeout",
        }
    }
}

/// Whether a change may make a pod schedulable that a plugin had rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    Skip,
    Queue,
}

impl Hint {
    pub fn queue_if(condition: bool) -> Self {
        if condition { Self::Queue } else { Self::Skip }
    }
}

/// One plugin. Every extension point has a default that does nothing; which points are used is told by the
/// plugin's row in [`PLUGINS`].
pub trait Plugin: Send + Sync {
    /// # Errors
    /// The reason why the pod may not enter the queue yet.
    fn pre_enqueue(&self, _pod: &PodInfo) -> Result<(), String> {
        Ok(())
    }

    fn pre_filter<'a>(&'a self, _cycle: Cycle<'a>) -> PreFilter<'a> {
        PreFilter::Skip
    }

    /// None when the plugin has nothing to score for this pod.
    fn pre_score<'a>(&'a self, _cycle: Cycle<'a>, _feasible: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        None
    }

    /// Asked only for pods that this plugin rejected.
    fn hint(&self, _pod: &PodInfo, _change: &Change<'_>) -> Hint {
        Hint::Skip
    }
}

/// Brings scores into 0..=100 by the highest; `reverse` makes the lowest the best.
pub fn default_normalize(reverse: bool, scores: &mut [i64]) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        if max == 0 {
            *score = if reverse { SCORE_MAX } else { *score };
            continue;
        }
        let scaled = SCORE_MAX * *score / max;
        *score = if reverse { SCORE_MAX - scaled } else { scaled };
    }
}
