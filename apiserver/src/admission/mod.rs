//! Admission: plugins that change or refuse a write after authorization, by upstream's names and order.
//!
//! A plugin knows the request and the stores, and neither HTTP nor storage. [`build`] is the one list of them.
//! Answers to `plugin/pkg/admission` and `pkg/kubeapiserver/options/plugins.go`.

mod classes;
mod configuration;
mod declared_features;
mod device_grants;
mod event_rate_limit;
mod grants;
mod limit_ranger;
mod metrics;
mod namespace_lifecycle;
mod nodes;
mod owner_references;
mod placement;
mod pod_security;
mod pods;
mod resource_quota;
mod service_account;
mod simple;
#[cfg(test)]
pub(crate) mod testing;
mod tolerations;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;

use self::configuration::Configurations;
use self::metrics::{Clock, Durations, Step};
use crate::authorization::Authorizer;
use crate::features::Features;
use crate::object::{self, Object};
use crate::request::RequestContext;
use crate::resources::{GroupResource, Registry};

/// What is being done (`admission.Operation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One write as admission sees it (`admission.Attributes`). Objects are in the stored version.
pub struct Attributes<'a> {
    pub ctx: &'a RequestContext,
    pub operation: Operation,
    /// The requested resource (not the stored one).
    pub resource: GroupResource,
    pub version: String,
    pub kind: String,
    pub subresource: String,
    pub namespace: String,
    /// Empty for a create with generateName.
    pub name: String,
    /// The new object; `None` on delete.
    pub object: Option<&'a mut Object>,
    /// The old object; `None` on create.
    pub old_object: Option<&'a Object>,
    pub dry_run: bool,
}

/// A plugin. `admit` may change the object, `validate` may only refuse; both default to nothing.
#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name: `NamespaceLifecycle`.
    fn name(&self) -> &'static str;

    fn handles(&self, operation: Operation) -> bool;

    /// # Errors
    /// A Status that refuses the request (403 for most plugins).
    async fn admit(&self, _attributes: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// # Errors
    /// A Status that refuses the request.
    async fn validate(&self, _attributes: &Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
}

/// The enabled plugins, in upstream's order.
#[derive(Clone, Default)]
pub struct Chain {
    plugins: Arc<[Arc<dyn Plugin>]>,
    durations: Option<Arc<Durations>>,
}

impl Chain {
    pub fn new(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        Self { plugins: plugins.into(), durations: None }
    }

    /// The same chain, measured.
    ///
    /// # Errors
    /// When a name of a metric is taken.
    pub fn measured(self, registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let durations = Durations::new(registry, self.plugins.iter().map(|plugin| plugin.name()))?;
        Ok(Self { durations: Some(Arc::new(durations)), ..self })
    }

    fn clock(&self, step: Step, operation: Operation) -> Clock<'_> {
        Clock::start(self.durations.as_deref(), step, operation)
    }

    /// The plugins that look at such a write, with their places.
    fn handling(&self, operation: Operation) -> impl Iterator<Item = (usize, &Arc<dyn Plugin>)> {
        self.plugins.iter().enumerate().filter(move |(_, plugin)| plugin.handles(operation))
    }

    /// # Errors
    /// The first refusal.
    pub async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let mut clock = self.clock(Step::Admit, attributes.operation);
        let mut result = Ok(());
        for (place, plugin) in self.handling(attributes.operation) {
            result = plugin.admit(attributes).await;
            clock.lap(place, result.is_err());
            if result.is_err() {
                break;
            }
        }
        clock.end(result.is_err());
        result
    }

    /// # Errors
    /// The first refusal.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let mut clock = self.clock(Step::Validate, attributes.operation);
        let mut result = Ok(());
        for (place, plugin) in self.handling(attributes.operation) {
            result = plugin.validate(attributes).await;
            clock.lap(place, result.is_err());
            if result.is_err() {
                break;
            }
        }
        clock.end(result.is_err());
        result
    }
}

/// Why the chain cannot be made. Texts name the flag.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("--{flag}: admission plugin \"{name}\" is unknown")]
    UnknownPlugin { flag: &'static str, name: String },
    #[error("--enable-admission-plugins: admission plugin \"{0}\" is not available in this server")]
    Unavailable(String),
    #[error("--admission-control-config-file: {0}")]
    Configuration(#[from] configuration::ConfigurationError),
}

/// Upstream's plugins, on by default there, that this server accepts in the flags and does not run yet.
const KNOWN_ABSENT: [&str; 7] = [
    "JobValidation",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "PodGroupProtection",
    "PodGroupWorkloadExists",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// Upstream's plugins, off by default there, that this server does not have: who asks for one is told so.
const UNAVAILABLE: [&str; 1] = ["ImagePolicyWebhook"];

/// The chain of `--enable-admission-plugins` and `--disable-admission-plugins`: those on by default and those
/// enabled, without those disabled, in upstream's order. Four guards that are no plugins upstream are always on.
///
/// # Errors
/// When a list names a plugin that does not exist, or the configuration cannot be used.
pub fn build(
    registry: &Arc<Registry>,
    authorizer: &Arc<dyn Authorizer>,
    enabled: &[String],
    disabled: &[String],
    configuration: Option<&Path>,
    features: &Features,
) -> Result<Chain, BuildError> {
    let configurations = configuration.map(Configurations::load).transpose()?.unwrap_or_default();
    let pod_security = pod_security::Configuration::load(&configurations)?;
    let quotas = resource_quota::Configuration::load(&configurations)?;
    let node_selector = placement::PodNodeSelector::new(registry.clone(), &configurations)?;
    let asked = |name: &str| {
        let named = |names: &[String]| names.iter().any(|n| n == name);
        named(enabled) && !named(disabled)
    };
    let tolerations = tolerations::PodTolerationRestriction::new(
        registry.clone(),
        &configurations,
        asked("PodTolerationRestriction"),
    )?;
    let events = event_rate_limit::EventRateLimit::new(&configurations, asked("EventRateLimit"))?;
    let store = || registry.clone();
    let permission = |signing| grants::CertificatePermission { authorizer: authorizer.clone(), signing };
    let topology = features.enabled("PodTopologyLabelsAdmission");
    let declared = features.enabled("NodeDeclaredFeatures");
    let trust_bundles = features.enabled("ClusterTrustBundle");
    // (on by default, plugin), in upstream's order; one whose feature gate is off does nothing
    let all: Vec<(bool, Arc<dyn Plugin>)> = vec![
        (false, Arc::new(simple::AlwaysAdmit)),
        (false, Arc::new(simple::NamespaceAutoProvision { registry: store() })),
        (true, Arc::new(namespace_lifecycle::NamespaceLifecycle::new(store()))),
        (false, Arc::new(simple::NamespaceExists { registry: store() })),
        (false, Arc::new(placement::LimitPodHardAntiAffinityTopology)),
        (true, Arc::new(limit_ranger::LimitRanger::new(store()))),
        (true, Arc::new(service_account::ServiceAccount::new(store()))),
        (false, Arc::new(nodes::NodeRestriction::new(store()))),
        (true, Arc::new(nodes::TaintNodesByCondition)),
        (false, Arc::new(simple::AlwaysPullImages)),
        (true, Arc::new(pod_security::PodSecurity::new(store(), pod_security))),
        (false, Arc::new(node_selector)),
        (true, Arc::new(pods::Priority::new(store()))),
        (true, Arc::new(pods::DefaultTolerationSeconds)),
        (false, Arc::new(tolerations)),
        (false, Arc::new(events)),
        (false, Arc::new(placement::ExtendedResourceToleration)),
        (true, Arc::new(classes::DefaultStorageClass { registry: store() })),
        (true, Arc::new(grants::StorageObjectInUseProtection)),
        (
            false,
            Arc::new(owner_references::OwnerReferencesPermissionEnforcement {
                registry: store(),
                authorizer: authorizer.clone(),
            }),
        ),
        (true, Arc::new(classes::PersistentVolumeClaimResize { registry: store() })),
        (true, Arc::new(pods::RuntimeClass::new(store()))),
        (true, Arc::new(permission(false))),
        (true, Arc::new(permission(true))),
        (
            true,
            Arc::new(grants::ClusterTrustBundleAttest { signers: permission(true), enabled: trust_bundles }),
        ),
        (true, Arc::new(grants::CertificateSubjectRestriction)),
        (true, Arc::new(classes::DefaultIngressClass { registry: store() })),
        (false, Arc::new(simple::DenyServiceExternalIPs)),
        (true, Arc::new(placement::PodTopologyLabels { registry: store(), enabled: topology })),
        (
            true,
            Arc::new(declared_features::NodeDeclaredFeatureValidator {
                registry: store(),
                enabled: declared,
            }),
        ),
        (true, Arc::new(placement::PodResizeValidator { registry: store() })),
        (true, Arc::new(resource_quota::ResourceQuota::new(store(), quotas))),
        (false, Arc::new(simple::AlwaysDeny)),
    ];
    let known = |name: &String| {
        all.iter().any(|(_, p)| p.name() == name)
            || KNOWN_ABSENT.contains(&name.as_str())
            || UNAVAILABLE.contains(&name.as_str())
    };
    if let Some(name) = enabled.iter().find(|name| UNAVAILABLE.contains(&name.as_str())) {
        return Err(BuildError::Unavailable(name.clone()));
    }
    for (flag, names) in [("enable-admission-plugins", enabled), ("disable-admission-plugins", disabled)] {
        if let Some(name) = names.iter().find(|name| !known(name)) {
            return Err(BuildError::UnknownPlugin { flag, name: name.clone() });
        }
    }
    let named = |names: &[String], plugin: &Arc<dyn Plugin>| names.iter().any(|n| n == plugin.name());
    let mut chosen: Vec<Arc<dyn Plugin>> = all
        .iter()
        .filter(|(default, plugin)| (*default || named(enabled, plugin)) && !named(disabled, plugin))
        .map(|(_, plugin)| plugin.clone())
        .collect();
    chosen.push(Arc::new(grants::CertificateRequester));
    chosen.push(Arc::new(grants::RbacEscalation::new(store(), authorizer.clone())));
    chosen.push(Arc::new(device_grants::DeviceGrants::new(store(), authorizer.clone(), features)));
    chosen.push(Arc::new(device_grants::PodCertificateSigning { signers: permission(true) }));
    Ok(Chain::new(chosen))
}

/// True when the write is about pods or one of their subresources.
fn is_pod(attributes: &Attributes<'_>) -> bool {
    attributes.resource.group.is_empty() && attributes.resource.resource == "pods"
}

/// What a refused object is called: one that has no name yet by the prefix of it.
fn shown_name<'a>(attributes: &'a Attributes<'_>) -> &'a str {
    let object = attributes.object.as_deref();
    let of_object = |key: &str| object.map_or("", |object| object::str_at(object, &["metadata", key]));
    [attributes.name.as_str(), of_object("name"), of_object("generateName")]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("Unknown")
}

/// A 403 about this write (`admission.NewForbidden`).
fn refusal(attributes: &Attributes<'_>) -> impl Fn(&str) -> Status + Send + Sync + use<> {
    let GroupResource { group, resource } = attributes.resource.clone();
    let name = shown_name(attributes).to_owned();
    move |why: &str| Status::forbidden(&group, &resource, &name, why)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::authorization::modes::AlwaysAllow;

    /// The names of the plugins that a chain is made of, in their order.
    fn chain(enabled: &[&str], configuration: &str) -> Result<Vec<&'static str>, String> {
        let path = std::env::temp_dir().join(format!("pintle-admission-{}.yaml", uuid::Uuid::new_v4()));
        std::fs::write(&path, configuration).expect("written");
        let registry = Arc::new(Registry::new(HashMap::new()));
        let authorizer: Arc<dyn Authorizer> = Arc::new(AlwaysAllow);
        let enabled: Vec<String> = enabled.iter().map(|name| (*name).to_owned()).collect();
        let file = (!configuration.is_empty()).then_some(path.as_path());
        let built = build(&registry, &authorizer, &enabled, &[], file, &Features::default());
        std::fs::remove_file(&path).expect("removed");
        built
            .map(|chain| chain.plugins.iter().map(|plugin| plugin.name()).collect())
            .map_err(|error| error.to_string())
    }

    const LIMITS: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: EventRateLimit
  configuration:
    apiVersion: eventratelimit.admission.k8s.io/v1alpha1
    kind: Configuration
    limits: [{type: Namespace, qps: 50, burst: 100, cacheSize: 2000}]
- name: PodTolerationRestriction
  configuration:
    apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1
    kind: Configuration
    default: [{key: a, operator: Exists}]
"#;

    #[test]
    fn plugins_run_in_upstreams_order_with_their_configuration() {
        let names = chain(&["EventRateLimit", "PodTolerationRestriction"], LIMITS).expect("a chain");
        let at = |name: &str| names.iter().position(|n| *n == name).expect(name);
        assert!(at("DefaultTolerationSeconds") < at("PodTolerationRestriction"));
        assert!(at("PodTolerationRestriction") < at("EventRateLimit"));
        assert!(at("NodeDeclaredFeatureValidator") < at("PodResizeValidator"));
        assert!(!chain(&[], LIMITS).expect("a chain").contains(&"EventRateLimit"));
    }

    #[test]
    fn what_cannot_be_is_told() {
        let told = chain(&["EventRateLimit"], "").expect_err("it has no limits");
        assert!(told.contains("limits: Invalid value: null: must not be empty"), "{told}");
        let told = chain(&["ImagePolicyWebhook"], "").expect_err("not here");
        assert!(told.contains("not available"), "{told}");
        let told = chain(&["EventRateLimit"], &LIMITS.replace("v1alpha1", "v1")).expect_err("another kind");
        assert!(told.contains("EventRateLimit"), "{told}");
    }
}
