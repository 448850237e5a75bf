//! Which names a definition gets. Pure.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::apiextensions::definition::{Approval, approval, condition, is_protected, is_true, set_condition};
use crate::cacher::CachedObject;
use crate::object::Object;
use crate::registry::tree::{at, field, set, strings, struct_mut, text};

/// What a definition may be called by whoever uses it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Names {
    plural: String,
    singular: String,
    short_names: Vec<String>,
    kind: String,
    list_kind: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Slim {
    status: SlimStatus,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SlimStatus {
    accepted_names: Names,
}

impl Names {
    /// Those that a definition was given. Its schemas are skipped, not read.
    pub(super) fn accepted(definition: &CachedObject) -> Self {
        serde_json::from_slice::<Slim>(&definition.bytes)
            .map(|slim| slim.status.accepted_names)
            .unwrap_or_default()
    }
}

/// The names that the other definitions of a group have.
#[derive(Debug, Default)]
pub(super) struct Used(Vec<Arc<Names>>);

impl Used {
    pub(super) fn new(others: impl Iterator<Item = Arc<Names>>) -> Self {
        Self(others.collect())
    }

    fn resource(&self, name: &str) -> bool {
        let is =
            |n: &Names| n.plural == name || n.singular == name || n.short_names.iter().any(|s| s == name);
        self.0.iter().any(|names| is(names))
    }

    fn kind(&self, name: &str) -> bool {
        self.0.iter().any(|names| names.kind == name || names.list_kind == name)
    }
}

fn conflict(wanted: &str, accepted: &str, used: impl Fn(&str) -> bool) -> Option<String> {
    (wanted != accepted && used(wanted)).then(|| format!("\"{wanted}\" is already in use"))
}

/// Sets the accepted names and what follows from them. Returns whether anything changed.
pub(super) fn decide(crd: &mut Object, used: &Used) -> bool {
    let wanted = at(crd, &["spec", "names"]).clone();
    let accepted = at(crd, &["status", "acceptedNames"]).clone();
    let mut changed = policy(crd);
    if wanted == accepted && condition(crd, "NamesAccepted").is_some() {
        return changed;
    }
    let mut new = accepted.clone();
    if !new.is_object() {
        new = json!({});
    }
    let mut problem: Option<(&str, String)> = None;
    let names = [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
        ("kind", "KindConflict"),
        ("listKind", "ListKindConflict"),
    ];
    for (key, reason) in names {
        let taken = |name: &str| if key.ends_with("ind") { used.kind(name) } else { used.resource(name) };
        match conflict(text(&wanted, key), text(&accepted, key), taken) {
            Some(why) => problem = Some((reason, why)),
            None => set(&mut new, key, field(&wanted, key).clone()),
        }
    }
    let own = strings(&accepted, "shortNames");
    let taken: Vec<String> = strings(&wanted, "shortNames")
        .into_iter()
        .filter(|name| !own.contains(name))
        .filter_map(|name| conflict(name, "", |name| used.resource(name)))
        .collect();
    if taken.is_empty() {
        set(&mut new, "shortNames", field(&wanted, "shortNames").clone());
    } else {
        let why = if taken.len() == 1 { taken[0].clone() } else { format!("[{}]", taken.join(", ")) };
        problem = Some(("ShortNamesConflict", why));
    }
    set(&mut new, "categories", field(&wanted, "categories").clone());
    if new != accepted
        && let Some(status) = struct_mut(crd, "status")
    {
        set(status, "acceptedNames", new);
        changed = true;
    }
    changed |= match &problem {
        None => set_condition(crd, "NamesAccepted", true, "NoConflicts", "no conflicts found"),
        Some((reason, why)) => set_condition(crd, "NamesAccepted", false, reason, why),
    };
    if !condition(crd, "Established").is_some_and(is_true) {
        changed |= match problem {
            None => {
                set_condition(crd, "Established", false, "Installing", "the initial names have been accepted")
            }
            Some(_) if condition(crd, "Established").is_none() => {
                set_condition(crd, "Established", false, "NotAccepted", "not all names are accepted")
            }
            Some(_) => false,
        };
    }
    if let Some(generation) = at(crd, &["metadata", "generation"]).as_i64()
        && changed
        && let Some(status) = struct_mut(crd, "status")
    {
        set(status, "observedGeneration", generation);
    }
    changed
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

/// Whether the names are served: accepted now, or established before.
pub(super) fn is_served(crd: &Value) -> bool {
    ["NamesAccepted", "Established"].iter().any(|kind| condition(crd, kind).is_some_and(is_true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiextensions::definition::says;

    fn crd() -> Object {
        json!({"metadata": {"name": "foos.example.com", "generation": 1}, "spec": {"group": "example.com",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList", "shortNames": ["f"]}}})
    }

    #[test]
    fn free_names_are_accepted_once() {
        let mut crd = crd();
        assert!(decide(&mut crd, &Used::default()));
        assert!(says(&crd, "NamesAccepted") && is_served(&crd));
        assert_eq!(crd["status"]["acceptedNames"], crd["spec"]["names"]);
        assert!(!decide(&mut crd, &Used::default()));
    }

    #[test]
    fn a_taken_name_is_told() {
        let mut crd = crd();
        let other = Names { short_names: vec!["f".to_owned()], kind: "Foo".to_owned(), ..Names::default() };
        let used = Used::new([Arc::new(other)].into_iter());
        assert!(decide(&mut crd, &used));
        let told = condition(&crd, "NamesAccepted").expect("told");
        assert_eq!(
            (told["status"].as_str(), told["reason"].as_str()),
            (Some("False"), Some("ShortNamesConflict"))
        );
        assert_eq!(told["message"], "\"f\" is already in use");
        assert!(!is_served(&crd));
    }
}
