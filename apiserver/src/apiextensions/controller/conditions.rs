//! What is said of a definition. Pure.

use serde_json::Value;

use super::names::{self, Used};
use crate::apiextensions::definition::{
    Approval, approval, condition, is_protected, non_structural, remove_condition, says, set_condition,
    wrong_bundle,
};
use crate::object::Object;
use crate::registry::tree::at;

/// Sets the accepted names and all conditions that follow from what the definition is. Returns whether anything
/// changed.
///
/// Established is part of it: whoever writes the definition must serve it first.
pub(super) fn decide(crd: &mut Object, used: &Used<'_>) -> bool {
    let policy = policy(crd);
    let structure = structure(crd);
    let names = names::accept(crd, used);
    let established = establish(crd);
    policy || structure || names || established
}

/// Once established is established for good.
fn establish(crd: &mut Object) -> bool {
    if says(crd, "Established") {
        return false;
    }
    if says(crd, "NamesAccepted") {
        if wrong_bundle(at(crd, &["spec", "conversion"])).is_some() {
            let why = "The conversion webhook CABundle is invalid";
            return set_condition(crd, "Established", false, "InvalidCABundle", why);
        }
        let accepted = "the initial names have been accepted";
        return set_condition(crd, "Established", true, "InitialNamesAccepted", accepted);
    }
    if condition(crd, "Established").is_some() {
        return false;
    }
    set_condition(crd, "Established", false, "NotAccepted", "not all names are accepted")
}

/// Groups of the Kubernetes community ask for an approval.
fn policy(crd: &mut Object) -> bool {
    if !is_protected(at(crd, &["spec", "group"]).as_str().unwrap_or("")) {
        return false;
    }
    let (state, why) = approval(crd);
    let (on, reason) = match state {
        Approval::Approved => (true, "ApprovedAnnotation"),
        Approval::Bypassed => (false, "UnapprovedAnnotation"),
        Approval::Invalid => (false, "InvalidAnnotation"),
        Approval::Missing => (false, "MissingAnnotation"),
    };
    set_condition(crd, "KubernetesAPIApprovalPolicyConformant", on, reason, &why)
}

/// Schemas of old that are not structural.
fn structure(crd: &mut Object) -> bool {
    const NON_STRUCTURAL: &str = "NonStructuralSchema";
    match non_structural(crd) {
        Some(why) => set_condition(crd, NON_STRUCTURAL, true, "Violations", &why),
        None => remove_condition(crd, NON_STRUCTURAL),
    }
}

/// Whether the names are served: accepted now, or established before.
pub(super) fn is_served(crd: &Value) -> bool {
    ["NamesAccepted", "Established"].iter().any(|kind| says(crd, kind))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::names::Names;
    use super::*;
    use crate::registry::tree::text;

    fn crd() -> Object {
        json!({"metadata": {"name": "foos.example.com", "generation": 1}, "spec": {"group": "example.com",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList", "shortNames": ["f"]}}})
    }

    fn told(crd: &Object, kind: &str) -> (String, String, String) {
        let found = condition(crd, kind).expect("told");
        let part = |key: &str| text(found, key).to_owned();
        (part("status"), part("reason"), part("message"))
    }

    fn words(status: &str, reason: &str, message: &str) -> (String, String, String) {
        (status.to_owned(), reason.to_owned(), message.to_owned())
    }

    #[test]
    fn free_names_are_accepted_and_established_at_once() {
        let mut crd = crd();
        assert!(decide(&mut crd, &Used::default()));
        assert!(says(&crd, "NamesAccepted") && is_served(&crd));
        assert_eq!(
            told(&crd, "Established"),
            words("True", "InitialNamesAccepted", "the initial names have been accepted")
        );
        assert_eq!(crd["status"]["acceptedNames"], crd["spec"]["names"]);
        assert!(!Names::decided(&crd).waits);
        assert!(!decide(&mut crd, &Used::default()));
    }

    #[test]
    fn a_taken_name_is_told_until_it_is_free() {
        let mut crd = crd();
        let other = Names::with_short_name("f");
        assert!(decide(&mut crd, &Used::new([&other].into_iter())));
        assert_eq!(
            told(&crd, "NamesAccepted"),
            words("False", "ShortNamesConflict", "\"f\" is already in use")
        );
        assert_eq!(told(&crd, "Established"), words("False", "NotAccepted", "not all names are accepted"));
        assert!(!is_served(&crd) && Names::decided(&crd).waits);
        assert!(decide(&mut crd, &Used::default()));
        assert!(says(&crd, "NamesAccepted") && says(&crd, "Established"));
    }

    #[test]
    fn what_is_established_stays_so() {
        let mut crd = crd();
        decide(&mut crd, &Used::default());
        crd["spec"]["names"]["shortNames"] = json!(["g"]);
        let other = Names::with_short_name("g");
        assert!(decide(&mut crd, &Used::new([&other].into_iter())));
        assert!(!says(&crd, "NamesAccepted") && says(&crd, "Established"));
        assert_eq!(crd["status"]["acceptedNames"]["shortNames"], json!(["f"]));
    }

    /// Left by a server that wrote the one before the other.
    #[test]
    fn accepted_names_are_established_later_too() {
        let mut crd = crd();
        decide(&mut crd, &Used::default());
        set_condition(&mut crd, "Established", false, "Installing", "the initial names have been accepted");
        assert!(decide(&mut crd, &Used::default()));
        assert!(says(&crd, "Established"));
    }

    #[test]
    fn what_is_not_structural_is_told_while_it_is_so() {
        let mut crd = crd();
        crd["spec"]["preserveUnknownFields"] = true.into();
        assert!(decide(&mut crd, &Used::default()));
        let why = "spec.preserveUnknownFields: Invalid value: true: must be false";
        assert_eq!(told(&crd, "NonStructuralSchema"), words("True", "Violations", why));
        assert!(!decide(&mut crd, &Used::default()));
        crd["spec"]["preserveUnknownFields"] = false.into();
        assert!(decide(&mut crd, &Used::default()));
        assert!(condition(&crd, "NonStructuralSchema").is_none());
    }

    #[test]
    fn certificates_that_are_none_keep_a_definition_from_being_established() {
        let mut crd = crd();
        crd["spec"]["conversion"] =
            json!({"strategy": "Webhook", "webhook": {"clientConfig": {"caBundle": "eA=="}}});
        assert!(decide(&mut crd, &Used::default()));
        assert_eq!(
            told(&crd, "Established"),
            words("False", "InvalidCABundle", "The conversion webhook CABundle is invalid")
        );
        crd["spec"]["conversion"] = json!({"strategy": "None"});
        assert!(decide(&mut crd, &Used::default()));
        assert!(says(&crd, "Established"));
    }
}
