//! The groups of the Kubernetes community, which ask for an approval of what is added to them.

use crate::object::Object;
use crate::registry::tree;

const ANNOTATION: &str = "api-approved.kubernetes.io";

/// What the annotation says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approval {
    Approved,
    Bypassed,
    Invalid,
    Missing,
}

/// `*.k8s.io`, `*.kubernetes.io`.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

/// The state and its words.
pub fn approval(crd: &Object) -> (Approval, String) {
    let said = tree::at(crd, &["metadata", "annotations", ANNOTATION]).as_str().unwrap_or("");
    if said.is_empty() {
        return (
            Approval::Missing,
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111"
                .to_owned(),
        );
    }
    if said.starts_with("unapproved") {
        return (Approval::Bypassed, format!("not approved: \"{said}\""));
    }
    let host = said.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or(""));
    if host.is_some_and(|host| !host.is_empty()) {
        return (Approval::Approved, format!("approved in {said}"));
    }
    (
        Approval::Invalid,
        "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
            .to_owned(),
    )
}

/// Where the annotation is.
pub(super) fn path() -> String {
    format!("metadata.annotations[{ANNOTATION}]")
}

/// What it says, as it is shown.
pub(super) fn value(crd: &Object) -> String {
    tree::at(crd, &["metadata", "annotations", ANNOTATION]).as_str().unwrap_or("").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_community_groups_ask() {
        assert!(is_protected("sample.k8s.io") && is_protected("kubernetes.io"));
        assert!(!is_protected("notk8s.io") && !is_protected("example.com"));
        let said = |text: &str| approval(&json!({"metadata": {"annotations": {ANNOTATION: text}}})).0;
        assert_eq!(said("https://github.com/kubernetes/x/1"), Approval::Approved);
        assert_eq!(said("unapproved, testing"), Approval::Bypassed);
        assert_eq!(said("x"), Approval::Invalid);
        assert_eq!(said(""), Approval::Missing);
    }
}
