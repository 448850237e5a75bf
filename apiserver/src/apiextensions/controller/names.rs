//! Which names a definition gets. Pure.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::apiextensions::definition::{Approval, approval, condition, is_protected, says, set_condition};
use crate::cacher::CachedObject;
use crate::object::Object;
use crate::registry::tree::{at, field, set, strings, struct_mut, text};

/// What a definition may be called by whoever uses it.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Names {
    plural: String,
    singular: String,
    short_names: Vec<String>,
    kind: String,
    list_kind: String,
    /// Whether it waits for one that another has.
    #[serde(skip)]
    pub waits: bool,
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
    conditions: Vec<SlimCondition>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SlimCondition {
    r#type: String,
    status: String,
}

impl Names {
    /// Those that a definition was given. Its schemas are skipped, not read.
    pub(super) fn accepted(definition: &CachedObject) -> Self {
        let Slim { status } = serde_json::from_slice(&definition.bytes).unwrap_or_default();
        let waits = status.conditions.iter().any(|c| c.r#type == "NamesAccepted" && c.status == "False");
        Self { waits, ..status.accepted_names }
    }

    /// Those of a definition as it is to be written.
    pub(super) fn decided(crd: &Object) -> Self {
        let names = at(crd, &["status", "acceptedNames"]);
        let owned = |key: &str| text(names, key).to_owned();
        Self {
            plural: owned("plural"),
            singular: owned("singular"),
            short_names: strings(names, "shortNames").into_iter().map(str::to_owned).collect(),
            kind: owned("kind"),
            list_kind: owned("listKind"),
            waits: !says(crd, "NamesAccepted"),
        }
    }
}

/// The names that the other definitions of a group have.
#[derive(Debug, Default)]
pub(super) struct Used<'a>(Vec<&'a Names>);

impl<'a> Used<'a> {
    pub(super) fn new(others: impl Iterator<Item = &'a Names>) -> Self {
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

/// Sets the accepted names and all conditions that follow from what the definition is. Returns whether anything
/// changed.
///
/// Established is part of it: whoever writes the definition must serve it first.
pub(super) fn decide(crd: &mut Object, used: &Used<'_>) -> bool {
    let policy = policy(crd);
    let names = accept(crd, used);
    let established = establish(crd);
    policy || names || established
}

fn accept(crd: &mut Object, used: &Used<'_>) -> bool {
    let wanted = at(crd, &["spec", "names"]).clone();
    let accepted = at(crd, &["status", "acceptedNames"]).clone();
    if wanted == accepted && condition(crd, "NamesAccepted").is_some() {
        return false;
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
    let mut changed = false;
    if new != accepted
        && let Some(status) = struct_mut(crd, "status")
    {
        set(status, "acceptedNames", new);
        changed = true;
    }
    changed
        | match &problem {
            None => set_condition(crd, "NamesAccepted", true, "NoConflicts", "no conflicts found"),
            Some((reason, why)) => set_condition(crd, "NamesAccepted", false, reason, why),
        }
}

/// Once established is established for good.
fn establish(crd: &mut Object) -> bool {
    if says(crd, "Established") {
        return false;
    }
    if says(crd, "NamesAccepted") {
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

/// Whether the names are served: accepted now, or established before.
pub(super) fn is_served(crd: &Value) -> bool {
    ["NamesAccepted", "Established"].iter().any(|kind| says(crd, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let other = Names { short_names: vec!["f".to_owned()], ..Names::default() };
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
        let other = Names { short_names: vec!["g".to_owned()], ..Names::default() };
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
}
