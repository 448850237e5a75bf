//! Which ended containers of a pod may run again, as a status tells it.

use common::status::FieldErrors;
use serde_json::Value;

use crate::features::Features;
use crate::object::Object;
use crate::registry::tree::{at, field, has, int, items, text};

/// Containers and init containers that had ended run again only where a policy or rule of theirs says so.
pub fn validate(new: &Object, old: &Object, features: &Features, errors: &mut FieldErrors) {
    let (status, before) = (field(new, "status"), field(old, "status"));
    let restarts = Restarts::of(field(old, "spec"), features);
    for (list, of) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        for (i, then) in ended(before, list) {
            if runs_again(status, list, then) && !restarts.may(of, then) {
                may_not_run(list, i, errors);
            }
        }
    }
}

/// None of the list runs again.
pub fn none(status: &Value, before: &Value, list: &str, errors: &mut FieldErrors) {
    for (i, _) in ended(before, list).filter(|(_, then)| runs_again(status, list, then)) {
        may_not_run(list, i, errors);
    }
}

fn may_not_run(list: &str, i: usize, errors: &mut FieldErrors) {
    let detail = "may not be transitioned to non-terminated state";
    errors.forbidden(format!("status.{list}[{i}].state"), detail);
}

/// The statuses of containers that had ended, with their places.
fn ended<'a>(status: &'a Value, list: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    items(status, list).iter().enumerate().filter(|(_, told)| has(field(told, "state"), "terminated"))
}

fn runs_again(status: &Value, list: &str, then: &Value) -> bool {
    let same = |now: &&Value| text(now, "name") == text(then, "name");
    items(status, list).iter().filter(same).any(|now| !has(field(now, "state"), "terminated"))
}

/// Which ended containers of a pod may run again.
struct Restarts<'a> {
    spec: &'a Value,
    /// Containers have policies and rules of their own.
    by_container: bool,
    /// A rule may restart the whole pod.
    all: bool,
    features: &'a Features,
}

impl<'a> Restarts<'a> {
    fn of(spec: &'a Value, features: &'a Features) -> Self {
        let both = || items(spec, "initContainers").iter().chain(items(spec, "containers"));
        let own = |container: &Value| !matches!(text(container, "restartPolicy"), "" | "Always");
        let used = items(spec, "initContainers")
            .iter()
            .any(|c| own(c) || !items(c, "restartPolicyRules").is_empty())
            || items(spec, "containers").iter().any(|c| has(c, "restartPolicy"));
        let restarts_all = both()
            .flat_map(|c| items(c, "restartPolicyRules"))
            .any(|rule| text(rule, "action") == "RestartAllContainers");
        let by_container = used || features.enabled("ContainerRestartRules");
        Self { spec, by_container, all: by_container && restarts_all, features }
    }

    /// `ContainerShouldRestart`, or the pod's policy alone where containers have none.
    fn may(&self, list: &str, then: &Value) -> bool {
        let policy = text(self.spec, "restartPolicy");
        let code = int(at(then, &["state", "terminated"]), "exitCode").unwrap_or(0);
        let by = |policy: &str| match policy {
            "Never" => false,
            "OnFailure" => code != 0,
            _ => true,
        };
        let container = items(self.spec, list).iter().find(|c| text(c, "name") == text(then, "name"));
        if self.all {
            return true;
        }
        if !self.by_container {
            let sidecar =
                list == "initContainers" && container.is_some_and(|c| text(c, "restartPolicy") == "Always");
            return sidecar || by(policy);
        }
        let Some(container) = container else { return false };
        if !has(container, "restartPolicy") {
            return by(policy);
        }
        match items(container, "restartPolicyRules").iter().find(|rule| matches(rule, code)) {
            Some(rule) if text(rule, "action") == "Restart" => true,
            Some(rule)
                if text(rule, "action") == "RestartAllContainers"
                    && self.features.enabled("RestartAllContainersOnContainerExits") =>
            {
                true
            }
            _ => by(text(container, "restartPolicy")),
        }
    }
}

fn matches(rule: &Value, code: i64) -> bool {
    let codes = field(rule, "exitCodes");
    let named = items(codes, "values").iter().any(|value| value.as_i64() == Some(code));
    match text(codes, "operator") {
        "In" => named,
        "NotIn" => !named,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A container that ended with `code` is said to run, in a pod whose spec has `more`.
    fn restarted(features: Features, list: &str, more: Value, code: i64) -> bool {
        let mut old = super::super::tests::pod();
        for (key, value) in more.as_object().expect("fields") {
            old["spec"][key] = value.clone();
        }
        old["status"][list] = json!([{"name": "c", "state": {"terminated": {"exitCode": code}}}]);
        let mut new = old.clone();
        new["status"][list] = json!([{"name": "c", "state": {"running": {}}}]);
        let mut errors = FieldErrors::new();
        validate(&new, &old, &features, &mut errors);
        let (status, before) = (&new["status"], &old["status"]);
        none(status, before, "ephemeralContainerStatuses", &mut errors);
        let told: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        let expected =
            format!("status.{list}[0].state: Forbidden: may not be transitioned to non-terminated state");
        assert!(told.is_empty() || told == [expected], "{told:?}");
        told.is_empty()
    }

    #[test]
    fn what_ended_runs_again_where_its_policy_says_so() {
        let run = |spec: Value, code| restarted(Features::default(), "containerStatuses", spec, code);
        assert!(run(json!({"restartPolicy": "Always"}), 0));
        assert!(!run(json!({"restartPolicy": "Never"}), 1));
        assert!(run(json!({"restartPolicy": "OnFailure"}), 1));
        assert!(!run(json!({"restartPolicy": "OnFailure"}), 0));
        let own = |policy: &str, rules: Value| {
            json!({"restartPolicy": "Never",
                "containers": [{"name": "c", "restartPolicy": policy, "restartPolicyRules": rules}]})
        };
        assert!(run(own("OnFailure", json!([])), 1));
        assert!(!run(own("Never", json!([])), 1));
        let rule =
            |action: &str| json!([{"action": action, "exitCodes": {"operator": "In", "values": [42]}}]);
        assert!(run(own("Never", rule("Restart")), 42));
        assert!(!run(own("Never", rule("Restart")), 41));
        assert!(run(own("Never", rule("RestartAllContainers")), 1), "any container's rule restarts all");
        let off = || Features::default().with("ContainerRestartRules", false);
        let old_pods = |list: &str, spec, code| restarted(off(), list, spec, code);
        assert!(!old_pods("containerStatuses", json!({"restartPolicy": "Never"}), 1));
        let sidecar = json!({"restartPolicy": "Never",
            "initContainers": [{"name": "c", "restartPolicy": "Always"}]});
        assert!(old_pods("initContainerStatuses", sidecar.clone(), 1));
        assert!(restarted(Features::default(), "initContainerStatuses", sidecar, 1));
        assert!(!restarted(
            Features::default(),
            "ephemeralContainerStatuses",
            json!({"restartPolicy": "Always"}),
            1
        ));
    }
}
