//! `pods/ephemeralcontainers`: only that list may change, and only grow.

use common::status::FieldErrors;

use super::{annotations, difference, only_spec, rules_of_spec};
use crate::features::Features;
use crate::object::Object;
use crate::registry::gated::Gated;
use crate::registry::pod_template::annotations::MIRROR;
use crate::registry::rules::ViewStrategy;
use crate::registry::tree::{annotation, at, field, items, same, set, struct_mut, text};

pub fn ephemeral_containers(gated: Gated) -> ViewStrategy {
    ViewStrategy { rules: super::RULES, gated, prepare, validate, resets: &[] }
}

fn prepare(new: &mut Object, old: &Object, _: &Features) {
    let wanted = at(new, &["spec", "ephemeralContainers"]).clone();
    only_spec(new, old);
    if let Some(spec) = struct_mut(new, "spec") {
        set(spec, "ephemeralContainers", wanted);
    }
}

fn validate(new: &Object, old: &Object, features: &Features, errors: &mut FieldErrors) {
    if annotation(old, MIRROR).is_some() {
        return errors.forbidden("", "static pods do not support ephemeral containers");
    }
    rules_of_spec(new, Some(old), features, errors);
    annotations::changes(new, old, errors);
    let now = items(field(new, "spec"), "ephemeralContainers");
    for before in items(field(old, "spec"), "ephemeralContainers") {
        let name = text(before, "name");
        match now.iter().find(|c| text(c, "name") == name) {
            None => errors.forbidden(
                "spec.ephemeralContainers",
                format!("existing ephemeral containers \"{name}\" may not be removed\n"),
            ),
            Some(after) if !same(after, before) => errors.forbidden(
                "spec.ephemeralContainers",
                format!(
                    "existing ephemeral containers \"{name}\" may not be changed\n{}",
                    difference(before, after)
                ),
            ),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::resources::Strategy;

    fn check(old: &[&str], new: &[&str], metadata: Value, expected: &str) {
        let pod = |list: &[&str]| {
            let all: Vec<Value> = list
                .iter()
                .map(|name| {
                    json!({"name": name, "image": "x", "terminationMessagePolicy": "File",
                    "imagePullPolicy": "Always"})
                })
                .collect();
            let mut pod = super::super::tests::pod();
            pod["metadata"]["annotations"] = metadata.clone();
            pod["spec"]["ephemeralContainers"] = Value::from(all);
            pod
        };
        let (old, mut new) = (pod(old), pod(new));
        new["spec"]["nodeName"] = json!("elsewhere");
        let strategy = ephemeral_containers(Gated::defaults());
        strategy.prepare_for_update(&mut new, &old);
        assert_eq!(new["spec"]["nodeName"], "n", "nothing else changes");
        let found = strategy.validate_update(&new, &old);
        assert_eq!(found.0.first().map(ToString::to_string).unwrap_or_default(), expected);
    }

    #[test]
    fn the_list_only_grows() {
        check(&[], &["a"], json!({}), "");
        check(
            &["a"],
            &["b"],
            json!({}),
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"a\" may not be removed\n",
        );
        check(
            &[],
            &["a"],
            json!({MIRROR: "x"}),
            ": Forbidden: static pods do not support ephemeral containers",
        );
    }
}
