//! Why a pod fits nowhere, worded as upstream words it in events and conditions.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Code, Rejection};

/// What was learned about each node that was looked at.
#[derive(Debug, Clone, Default)]
pub struct Diagnosis {
    /// By node name.
    pub nodes: BTreeMap<String, Rejection>,
    /// Nodes not in `nodes`: what holds for all of them.
    pub absent: Option<Rejection>,
    pub pre_filter_message: String,
    pub post_filter_message: String,
    /// Plugins that said no: whose hints bring the pod back.
    pub unschedulable_plugins: BTreeSet<&'static str>,
}

impl Diagnosis {
    pub fn reject(&mut self, node: &str, rejection: Rejection) {
        self.unschedulable_plugins.insert(rejection.plugin);
        self.nodes.insert(node.to_owned(), rejection);
    }

    pub fn code(&self, node: &str) -> Code {
        self.nodes
            .get(node)
            .or(self.absent.as_ref())
            .map_or(Code::UnschedulableAndUnresolvable, |rejection| rejection.code)
    }
}

/// No node fits.
#[derive(Debug, Clone)]
pub struct FitError {
    pub all_nodes: usize,
    pub diagnosis: Diagnosis,
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &self.diagnosis;
        write!(f, "0/{} nodes are available:", self.all_nodes)?;
        if d.pre_filter_message.is_empty() {
            let mut reasons: BTreeMap<&Cow<'static, str>, usize> = BTreeMap::new();
            for reason in d.nodes.values().flat_map(|r| &r.reasons) {
                *reasons.entry(reason).or_default() += 1;
            }
            let unseen = self.all_nodes.saturating_sub(d.nodes.len());
            if unseen > 0 {
                for reason in d.absent.iter().flat_map(|r| &r.reasons) {
                    *reasons.entry(reason).or_default() += unseen;
                }
            }
            let mut lines: Vec<String> = reasons.iter().map(|(r, n)| format!("{n} {r}")).collect();
            lines.sort();
            if !lines.is_empty() {
                write!(f, " {}.", lines.join(", "))?;
            }
        } else {
            write!(f, " {}.", d.pre_filter_message)?;
        }
        if !d.post_filter_message.is_empty() {
            write!(f, " {}", d.post_filter_message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_sorted_as_text() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.reject("a", Rejection::unresolvable("node(s) had untolerated taint(s)"));
        diagnosis.reject("b", Rejection::unschedulable("Insufficient cpu"));
        diagnosis.reject("c", Rejection::unschedulable("Insufficient cpu"));
        diagnosis.post_filter_message = "preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod.".into();
        let error = FitError { all_nodes: 3, diagnosis };
        assert_eq!(
            error.to_string(),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
        );
    }

    #[test]
    fn a_pre_filter_message_replaces_node_reasons() {
        let diagnosis = Diagnosis {
            pre_filter_message: "pod affinity terms conflict".into(),
            absent: Some(Rejection::unresolvable("pod affinity terms conflict")),
            ..Diagnosis::default()
        };
        let error = FitError { all_nodes: 2, diagnosis };
        assert_eq!(error.to_string(), "0/2 nodes are available: pod affinity terms conflict.");
    }

    #[test]
    fn unseen_nodes_share_one_reason() {
        let mut diagnosis = Diagnosis {
            absent: Some(Rejection::unresolvable("node(s) didn't satisfy plugin(s) [NodeAffinity]")),
            ..Diagnosis::default()
        };
        diagnosis.reject("a", Rejection::unschedulable("Too many pods"));
        let error = FitError { all_nodes: 3, diagnosis };
        assert_eq!(
            error.to_string(),
            "0/3 nodes are available: 1 Too many pods, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
        );
    }
}
