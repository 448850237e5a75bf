//! Annotations of pods that may not change, and those that must say what a field says.

use common::status::FieldErrors;
use serde_json::{Value, json};

use crate::object::Object;
use crate::registry::pod_template::annotations::{
    APP_ARMOR, CONTAINERS, MIRROR, SECCOMP, SECCOMP_POD, containers,
};
use crate::registry::tree::{at, field, has, items_mut, same, set, struct_mut, text};

/// An update keeps a mirror pod a mirror pod, and profiles as they are.
pub fn changes(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let path = ["metadata", "annotations"];
    let (now, then) = (at(new, &path), at(old, &path));
    for (key, value) in then.as_object().into_iter().flatten() {
        if now.get(key) == Some(value) {
            continue;
        }
        let here = format!("metadata.annotations[{key}]");
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&here, "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&here, "may not remove or update mirror pod annotation");
        }
    }
    let added = now.as_object().into_iter().flatten().filter(|(key, _)| !has(then, key));
    for (key, _) in added {
        let here = format!("metadata.annotations[{key}]");
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&here, "may not add AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&here, "may not add mirror pod annotation");
        }
    }
    crate::registry::pod_template::annotations::validate(
        now,
        field(new, "spec"),
        "metadata.annotations",
        errors,
    );
}

/// Gives containers of a new pod the AppArmor profile that an old client wrote as an annotation.
pub fn profiles_from_annotations(pod: &mut Object) {
    if at(pod, &["spec", "os", "name"]) == "windows" {
        return;
    }
    let annotations = at(pod, &["metadata", "annotations"]).clone();
    let whole = at(pod, &["spec", "securityContext", "appArmorProfile"]).clone();
    let Some(spec) = struct_mut(pod, "spec") else { return };
    for list in CONTAINERS {
        for container in items_mut(spec, list) {
            let key = format!("{APP_ARMOR}{}", text(container, "name"));
            let said = annotations.get(key).and_then(Value::as_str).and_then(profile);
            let own = field(field(container, "securityContext"), "appArmorProfile");
            // The pod's own profile is the container's already.
            let Some(said) = said.filter(|said| own.is_null() && !same(said, &whole)) else { continue };
            if let Some(context) = struct_mut(container, "securityContext") {
                set(context, "appArmorProfile", said);
            }
        }
    }
}

/// A profile as a field; `None` for a text that stands for none.
fn profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        other => {
            let name = other.strip_prefix("localhost/").filter(|name| !name.trim().is_empty())?;
            Some(json!({"type": "Localhost", "localhostProfile": name}))
        }
    }
}

/// A new pod's annotations and fields about profiles must agree.
pub fn agree(pod: &Object, errors: &mut FieldErrors) {
    let annotations = at(pod, &["metadata", "annotations"]);
    let spec = field(pod, "spec");
    let whole = field(spec, "securityContext");
    if has(annotations, SECCOMP_POD) {
        let said = text(annotations, SECCOMP_POD);
        same_profile("seccomp", said, field(whole, "seccompProfile"), "spec.securityContext", errors);
    }
    let windows = at(spec, &["os", "name"]) == "windows";
    for (container, path) in containers(spec, "spec") {
        let context = field(container, "securityContext");
        let path = format!("{path}.securityContext");
        let said = annotations.get(format!("{SECCOMP}{}", text(container, "name"))).and_then(Value::as_str);
        if let Some(said) = said {
            same_profile("seccomp", said, field(context, "seccompProfile"), &path, errors);
        }
        let said = annotations.get(format!("{APP_ARMOR}{}", text(container, "name"))).and_then(Value::as_str);
        if let Some(said) = said.filter(|_| !windows) {
            let own = field(context, "appArmorProfile");
            let profile = if own.is_null() { field(whole, "appArmorProfile") } else { own };
            same_profile("apparmor", said, profile, &path, errors);
        }
    }
}

fn same_profile(what: &str, said: &str, profile: &Value, path: &str, errors: &mut FieldErrors) {
    let path = format!("{path}.{}", if what == "seccomp" { "seccompProfile" } else { "appArmorProfile" });
    let local = said.strip_prefix("localhost/");
    let fits = match text(profile, "type") {
        "Unconfined" => said == "unconfined",
        "RuntimeDefault" => said == "runtime/default" || (what == "seccomp" && said == "docker/default"),
        "Localhost" if local.is_some_and(|name| name != text(profile, "localhostProfile")) => {
            let detail = format!("{what} profile in annotation and field must match");
            return errors.forbidden(format!("{path}.localhostProfile"), detail);
        }
        "Localhost" => local.is_some(),
        _ => true,
    };
    if !fits {
        errors.forbidden(format!("{path}.type"), format!("{what} type in annotation and field must match"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotation: (&str, &str), context: Value) -> Object {
        json!({"metadata": {"annotations": {annotation.0: annotation.1}},
            "spec": {"containers": [{"name": "c", "securityContext": context}]}})
    }

    #[test]
    fn an_annotation_becomes_the_field_and_may_not_contradict_it() {
        let key = format!("{APP_ARMOR}c");
        let mut of_old_client = pod((&key, "localhost/p"), Value::Null);
        profiles_from_annotations(&mut of_old_client);
        assert_eq!(
            of_old_client["spec"]["containers"][0]["securityContext"]["appArmorProfile"],
            json!({"type": "Localhost", "localhostProfile": "p"})
        );
        let check = |annotation: (&str, &str), context: Value, expected: &[&str]| {
            let mut errors = FieldErrors::new();
            agree(&pod(annotation, context), &mut errors);
            assert_eq!(errors.0.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check((&key, "unconfined"), json!({"appArmorProfile": {"type": "Unconfined"}}), &[]);
        check(
            (&key, "unconfined"),
            json!({"appArmorProfile": {"type": "RuntimeDefault"}}),
            &[
                "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match",
            ],
        );
        let seccomp = format!("{SECCOMP}c");
        let local = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "q"}});
        check(
            (&seccomp, "localhost/p"),
            local,
            &[
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Forbidden: seccomp profile in annotation and field must match",
            ],
        );
    }

    #[test]
    fn mirror_pods_stay_mirror_pods() {
        let (mirror, plain) = (pod((MIRROR, "x"), Value::Null), pod(("other", "x"), Value::Null));
        let found = |new: &Object, old: &Object| {
            let mut errors = FieldErrors::new();
            changes(new, old, &mut errors);
            errors.0.first().map(|e| e.detail.clone()).unwrap_or_default()
        };
        assert_eq!(found(&plain, &mirror), "may not remove or update mirror pod annotation");
        assert_eq!(found(&mirror, &plain), "may not add mirror pod annotation");
        assert_eq!(found(&plain, &plain), "");
    }
}
