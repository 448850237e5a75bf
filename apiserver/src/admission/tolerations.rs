//! PodTolerationRestriction: tolerations that a namespace's pods get, and the only ones they may have.
//!
//! Answers to `plugin/pkg/admission/podtolerationrestriction` and `pkg/util/tolerations`.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status};
use serde_json::{Value, json};

use super::configuration::{ConfigurationError, Configurations};
use super::{Attributes, Operation, Plugin, is_pod};
use crate::object::Object;
use crate::registry::pod_template::{gated, qos, tolerations};
use crate::registry::tree::{annotation, field, has, int, items, same, set, struct_mut, text};
use crate::resources::Registry;

const NAME: &str = "PodTolerationRestriction";
const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const WHITELIST: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// The cluster's lists, for namespaces without their own.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    default: Vec<Value>,
    #[serde(default)]
    whitelist: Vec<Value>,
}

pub struct PodTolerationRestriction {
    registry: Arc<Registry>,
    cluster: File,
}

impl PodTolerationRestriction {
    /// Reads the plugin's configuration if it is `enabled`.
    ///
    /// # Errors
    /// When it is of another kind, or a toleration is not valid.
    pub fn new(
        registry: Arc<Registry>,
        all: &Configurations,
        enabled: bool,
    ) -> Result<Self, ConfigurationError> {
        if !enabled {
            return Ok(Self { registry, cluster: File::default() });
        }
        let versions = ["podtolerationrestriction.admission.k8s.io/v1alpha1"];
        let cluster: File = all.of(NAME, "Configuration", &versions)?;
        let mut errors = FieldErrors::new();
        for (key, list) in [("default", &cluster.default), ("whitelist", &cluster.whitelist)] {
            let path = format!("podtolerationrestriction.{key}");
            tolerations::validate(&json!({"tolerations": list}), &path, &mut errors);
            for (i, toleration) in list.iter().enumerate() {
                let operator = text(toleration, "operator");
                if matches!(operator, "Lt" | "Gt") {
                    gated::comparison(toleration, operator, false, &format!("{path}[{i}]"), &mut errors);
                }
            }
        }
        if errors.is_empty() {
            return Ok(Self { registry, cluster });
        }
        let told = errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let reason = format!("invalid config: [{told}]");
        Err(ConfigurationError::Plugin { plugin: NAME.to_owned(), reason })
    }

    /// The list in a namespace's annotation; `None` when it has none. An empty text is an empty list.
    async fn of_namespace(&self, name: &str, key: &str) -> Result<Option<Vec<Value>>, Status> {
        let store = self.registry.store("", "namespaces");
        let namespace = match store.cached("", name) {
            Some(found) => found,
            None => store.get("", name, None).await?,
        };
        match annotation(&namespace.tree(), key) {
            None => Ok(None),
            Some("") => Ok(Some(Vec::new())),
            Some(text) => {
                let list: Vec<Value> =
                    serde_json::from_str(text).map_err(|error| plain(error.to_string()))?;
                Ok(Some(list))
            }
        }
    }

    async fn check(&self, namespace: &str, pod: &Object) -> Result<(), Status> {
        let wanted = items(field(pod, "spec"), "tolerations");
        if wanted.is_empty() {
            return Ok(());
        }
        let own = self.of_namespace(namespace, WHITELIST).await?;
        let (list, scope) = match &own {
            Some(list) => (list, "namespace"),
            None => (&self.cluster.whitelist, "cluster"),
        };
        if list.is_empty() || wanted.iter().all(|t| list.iter().any(|allowed| covers(allowed, t))) {
            return Ok(());
        }
        Err(plain(format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        )))
    }
}

/// What upstream returns as an error of no kind.
fn plain(message: String) -> Status {
    Status::failure(500, "", message)
}

fn concerns(attributes: &Attributes<'_>) -> bool {
    is_pod(attributes) && attributes.subresource.is_empty()
}

#[async_trait]
impl Plugin for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !concerns(attributes) {
            return Ok(());
        }
        let namespace = attributes.namespace.clone();
        let mut more = Vec::new();
        if attributes.operation == Operation::Create {
            let own = self.of_namespace(&namespace, DEFAULTS).await?;
            more = own.unwrap_or_else(|| self.cluster.default.clone());
        }
        let Some(pod) = attributes.object.as_deref_mut() else { return Ok(()) };
        if qos::class_of_record(pod) != "BestEffort" {
            more.push(json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists",
                "effect": "NoSchedule"}));
        }
        if !more.is_empty()
            && let Some(spec) = struct_mut(pod, "spec")
        {
            let merged = merge(items(spec, "tolerations"), &more);
            set(spec, "tolerations", merged);
        }
        self.check(&namespace, pod).await
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        match attributes.object.as_deref().filter(|_| concerns(attributes)) {
            Some(pod) => self.check(&attributes.namespace, pod).await,
            None => Ok(()),
        }
    }
}

/// Both lists as one, without those that another covers.
pub fn merge(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (i, toleration) in all.iter().enumerate() {
        let before = merged.iter().any(|kept| covers(kept, toleration));
        // Of equal ones the first stays.
        let after = || all[i + 1..].iter().any(|t| !same(t, toleration) && covers(t, toleration));
        if !before && !after() {
            merged.push((*toleration).clone());
        }
    }
    merged
}

/// True when `wide` tolerates all that `narrow` does.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if same(wide, narrow) {
        return true;
    }
    let (key, operator, effect) = (text(wide, "key"), text(wide, "operator"), text(wide, "effect"));
    let any_key = key.is_empty() && operator == "Exists";
    if text(narrow, "key") != key && !any_key {
        return false;
    }
    if text(narrow, "effect") != effect && !effect.is_empty() {
        return false;
    }
    let seconds = |t: &Value| int(t, "tolerationSeconds");
    if effect == "NoExecute"
        && has(wide, "tolerationSeconds")
        && seconds(narrow).is_none_or(|n| Some(n) > seconds(wide))
    {
        return false;
    }
    match operator {
        // Upstream takes only a spelled out operator as equal here.
        "" | "Equal" => text(narrow, "operator") == "Equal" && text(narrow, "value") == text(wide, "value"),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Cluster, attributes, context, put};

    fn t(key: &str, operator: &str, value: &str, effect: &str) -> Value {
        json!({"key": key, "operator": operator, "value": value, "effect": effect})
    }

    #[test]
    fn the_wider_covers_the_narrower() {
        let all = json!({"operator": "Exists"});
        let a = t("a", "Equal", "1", "NoSchedule");
        assert!(covers(&all, &a) && !covers(&a, &all));
        assert!(covers(&t("a", "Exists", "", ""), &a));
        assert!(!covers(&t("a", "Equal", "2", "NoSchedule"), &a));
        let for_seconds = |seconds: Option<i64>| {
            let mut t = t("a", "Exists", "", "NoExecute");
            set(&mut t, "tolerationSeconds", seconds.map_or(Value::Null, Value::from));
            t
        };
        assert!(covers(&for_seconds(Some(9)), &for_seconds(Some(5))));
        assert!(!covers(&for_seconds(Some(5)), &for_seconds(Some(9))));
        assert!(!covers(&for_seconds(Some(5)), &for_seconds(None)));
        let twice = [&a, &a].map(Value::clone);
        assert_eq!(merge(&twice, std::slice::from_ref(&all)), std::slice::from_ref(&all));
        assert_eq!(merge(std::slice::from_ref(&all), std::slice::from_ref(&a)), [all]);
    }

    #[tokio::test]
    async fn pods_get_defaults_and_are_held_to_the_whitelist() {
        let cluster = Cluster::start();
        let registry = cluster.server(&[("", "namespaces")]).await;
        let namespace = |name: &str, annotations: Value| {
            json!({"kind": "Namespace", "apiVersion": "v1",
                "metadata": {"name": name, "annotations": annotations}})
        };
        let list = |items: &[Value]| Value::from(json!(items).to_string());
        let own = json!({DEFAULTS: list(&[t("d", "Exists", "", "")]),
            WHITELIST: list(&[t("d", "Exists", "", ""), t("w", "Exists", "", "")])});
        put(&[&registry], "", "namespaces", namespace("n", own)).await;
        put(&[&registry], "", "namespaces", namespace("plain", json!({}))).await;
        let cluster =
            File { default: vec![t("c", "Exists", "", "")], whitelist: vec![t("c", "Exists", "", "")] };
        let plugin = PodTolerationRestriction { registry, cluster };
        let ctx = context();
        let run = async |namespace: &str, spec: Value| {
            let mut pod = json!({"metadata": {"name": "p"}, "spec": spec});
            let mut attributes = attributes(&ctx, ("", "pods"), &mut pod, None);
            attributes.namespace = namespace.to_owned();
            let result = plugin.admit(&mut attributes).await;
            result.map(|()| pod["spec"]["tolerations"].clone()).map_err(|status| status.message)
        };
        assert_eq!(run("n", json!({})).await, Ok(json!([t("d", "Exists", "", "")])));
        assert_eq!(run("plain", json!({})).await, Ok(json!([t("c", "Exists", "", "")])));
        let conflict = |scope| {
            Err(format!(
                "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
            ))
        };
        let wants = |key| json!({"tolerations": [t(key, "Exists", "", "")]});
        assert_eq!(run("n", wants("x")).await, conflict("namespace"));
        assert_eq!(run("plain", wants("w")).await, conflict("cluster"));
        assert!(run("n", wants("w")).await.is_ok());
        // A pod that asks for resources tolerates a node short of memory, and the list must say so.
        let burstable = json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]});
        assert_eq!(run("n", burstable).await, conflict("namespace"));
        assert!(run("gone", json!({})).await.is_err());
    }

    #[test]
    fn a_list_with_a_bad_toleration_is_refused() {
        let bad = json!({"apiVersion": "podtolerationrestriction.admission.k8s.io/v1alpha1",
            "kind": "Configuration", "default": [{"operator": "Equal", "value": "v"}]});
        let all = Configurations::of_plugin(NAME, bad);
        let registry = Arc::new(Registry::new(std::collections::HashMap::new()));
        let told = PodTolerationRestriction::new(registry, &all, true).err().expect("refused").to_string();
        assert!(
            told.starts_with("plugin PodTolerationRestriction: invalid config: [podtolerationrestriction.default[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty"),
            "{told}"
        );
    }
}
