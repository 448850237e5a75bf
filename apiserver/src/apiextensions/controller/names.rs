//! Which names a definition gets. Pure.

use serde::Deserialize;
use serde_json::json;

use crate::apiextensions::definition::{condition, says, set_condition};
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

    #[cfg(test)]
    pub(super) fn with_short_name(name: &str) -> Self {
        Self { short_names: vec![name.to_owned()], ..Self::default() }
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

/// Sets the accepted names and the condition that says so. Returns whether anything changed.
pub(super) fn accept(crd: &mut Object, used: &Used<'_>) -> bool {
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
