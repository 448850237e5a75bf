//! Pure: what is left of a namespace, as its conditions say it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::views::Condition;

/// What one pass over a namespace found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Group versions whose resources are unknown.
    pub undiscovered: Vec<String>,
    /// Deletes that failed.
    pub failed: Vec<String>,
    /// Objects left, per resource.
    pub remaining: BTreeMap<String, usize>,
    /// Objects left, per finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// How long the slowest of them may take.
    pub estimate_seconds: i64,
}

impl Findings {
    pub fn is_empty(&self) -> bool {
        self.undiscovered.is_empty() && self.failed.is_empty() && self.remaining.is_empty()
    }
}

struct Kind {
    type_: &'static str,
    ok: (&'static str, &'static str),
    reason: &'static str,
}

const KINDS: [Kind; 5] = [
    Kind {
        type_: "NamespaceDeletionDiscoveryFailure",
        ok: ("ResourcesDiscovered", "All resources successfully discovered"),
        reason: "DiscoveryFailed",
    },
    Kind {
        type_: "NamespaceDeletionGroupVersionParsingFailure",
        ok: ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        reason: "GroupVersionParsingFailed",
    },
    Kind {
        type_: "NamespaceDeletionContentFailure",
        ok: ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        reason: "ContentDeletionFailed",
    },
    Kind {
        type_: "NamespaceContentRemaining",
        ok: ("ContentRemoved", "All content successfully removed"),
        reason: "SomeResourcesRemain",
    },
    Kind {
        type_: "NamespaceFinalizersRemaining",
        ok: ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        reason: "SomeFinalizersRemain",
    },
];

fn message(type_: &str, findings: &Findings) -> Option<String> {
    match type_ {
        "NamespaceDeletionDiscoveryFailure" if !findings.undiscovered.is_empty() => Some(format!(
            "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
            findings.undiscovered.len(),
            findings.undiscovered.join(", ")
        )),
        "NamespaceDeletionContentFailure" if !findings.failed.is_empty() => Some(format!(
            "Failed to delete all resource types, {} remaining: {}",
            findings.failed.len(),
            findings.failed.join(", ")
        )),
        "NamespaceContentRemaining" if !findings.remaining.is_empty() => {
            let each: Vec<String> = findings
                .remaining
                .iter()
                .map(|(resource, count)| format!("{resource}. has {count} resource instances"))
                .collect();
            Some(format!("Some resources are remaining: {}", each.join(", ")))
        }
        "NamespaceFinalizersRemaining" if !findings.finalizers.is_empty() => {
            let each: Vec<String> = findings
                .finalizers
                .iter()
                .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
                .collect();
            Some(format!("Some content in the namespace has finalizers remaining: {}", each.join(", ")))
        }
        _ => None,
    }
}

/// `current` with the five conditions set; what did not change keeps its time.
pub fn merged(current: &[Condition], findings: &Findings, now: Timestamp) -> Vec<Condition> {
    let mut conditions = current.to_vec();
    for kind in KINDS {
        let (status, reason, message) = match message(kind.type_, findings) {
            Some(message) => ("True", kind.reason, message),
            None => ("False", kind.ok.0, kind.ok.1.to_owned()),
        };
        let old = conditions.iter_mut().find(|c| c.type_ == kind.type_);
        match old {
            Some(old) if old.status == status && old.reason == reason => old.message = message,
            old => {
                let new = Condition {
                    type_: kind.type_.into(),
                    status: status.into(),
                    last_heartbeat_time: None,
                    last_transition_time: Some(Time(now)),
                    reason: reason.into(),
                    message,
                };
                match old {
                    Some(old) => *old = new,
                    None => conditions.push(new),
                }
            }
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_told_and_kept() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let mut findings = Findings::default();
        findings.remaining.insert("pods".into(), 2);
        findings.finalizers.insert("x/y".into(), 1);
        let first = merged(&[], &findings, now);
        let shown: Vec<_> = first.iter().map(|c| (c.status.as_str(), c.message.as_str())).collect();
        assert_eq!(shown[0], ("False", "All resources successfully discovered"));
        assert_eq!(shown[3], ("True", "Some resources are remaining: pods. has 2 resource instances"));
        assert_eq!(
            shown[4],
            ("True", "Some content in the namespace has finalizers remaining: x/y in 1 resource instances")
        );
        let later = now + jiff::SignedDuration::from_secs(60);
        assert_eq!(merged(&first, &findings, later), first);
    }
}
