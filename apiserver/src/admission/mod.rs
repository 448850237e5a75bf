//! Admission: plugins that change or refuse a write after authorization, by upstream's names and order.
//!
//! A plugin knows the request and the stores, and neither HTTP nor storage. [`build`] is the one list of them.
//! Answers to `plugin/pkg/admission` and `pkg/kubeapiserver/options/plugins.go`.

mod configuration;
mod grants;
mod namespace_lifecycle;
mod nodes;
mod pod_security;
mod pods;
mod service_account;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;

use self::configuration::Configurations;
use crate::authorization::Authorizer;
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
}

impl Chain {
    pub fn new(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        Self { plugins: plugins.into() }
    }

    /// # Errors
    /// The first refusal.
    pub async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let operation = attributes.operation;
        for plugin in self.plugins.iter().filter(|p| p.handles(operation)) {
            plugin.admit(attributes).await?;
        }
        Ok(())
    }

    /// # Errors
    /// The first refusal.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        for plugin in self.plugins.iter().filter(|p| p.handles(attributes.operation)) {
            plugin.validate(attributes).await?;
        }
        Ok(())
    }
}

/// Why the chain cannot be made. Texts name the flag.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("--{flag}: admission plugin \"{name}\" is unknown")]
    UnknownPlugin { flag: &'static str, name: String },
    #[error("--admission-control-config-file: {0}")]
    Configuration(#[from] configuration::ConfigurationError),
}

/// Upstream's plugins that this server accepts in the flags and does not run yet.
const KNOWN_ABSENT: [&str; 16] = [
    "AlwaysPullImages",
    "ClusterTrustBundleAttest",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "LimitRanger",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NodeDeclaredFeatureValidator",
    "PersistentVolumeClaimResize",
    "PodGroupWorkloadExists",
    "PodResizeValidator",
    "PodTopologyLabels",
    "OwnerReferencesPermissionEnforcement",
    "ResourceQuota",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// The chain of `--enable-admission-plugins` and `--disable-admission-plugins`: those on by default and those
/// enabled, without those disabled, in upstream's order. Two guards that are no plugins upstream are always on.
///
/// # Errors
/// When a list names a plugin that does not exist, or the configuration cannot be used.
pub fn build(
    registry: &Arc<Registry>,
    authorizer: &Arc<dyn Authorizer>,
    enabled: &[String],
    disabled: &[String],
    configuration: Option<&Path>,
) -> Result<Chain, BuildError> {
    let configurations = configuration.map(Configurations::load).transpose()?.unwrap_or_default();
    let pod_security = pod_security::Configuration::load(&configurations)?;
    let store = || registry.clone();
    let permission = |signing| grants::CertificatePermission { authorizer: authorizer.clone(), signing };
    // (on by default, plugin); NodeRestriction is the one that must be asked for
    let all: Vec<(bool, Arc<dyn Plugin>)> = vec![
        (true, Arc::new(namespace_lifecycle::NamespaceLifecycle::new(store()))),
        (true, Arc::new(service_account::ServiceAccount::new(store()))),
        (false, Arc::new(nodes::NodeRestriction::new(store()))),
        (true, Arc::new(nodes::TaintNodesByCondition)),
        (true, Arc::new(pod_security::PodSecurity::new(store(), pod_security))),
        (true, Arc::new(pods::Priority::new(store()))),
        (true, Arc::new(pods::DefaultTolerationSeconds)),
        (true, Arc::new(grants::StorageObjectInUseProtection)),
        (true, Arc::new(pods::RuntimeClass::new(store()))),
        (true, Arc::new(permission(false))),
        (true, Arc::new(permission(true))),
        (true, Arc::new(grants::CertificateSubjectRestriction)),
    ];
    let known =
        |name: &String| all.iter().any(|(_, p)| p.name() == name) || KNOWN_ABSENT.contains(&name.as_str());
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
    Ok(Chain::new(chosen))
}

/// True when the write is about pods or one of their subresources.
fn is_pod(attributes: &Attributes<'_>) -> bool {
    attributes.resource.group.is_empty() && attributes.resource.resource == "pods"
}

/// A 403 about this write (`admission.NewForbidden`).
fn refusal(attributes: &Attributes<'_>) -> impl Fn(&str) -> Status + Send + Sync + use<> {
    let GroupResource { group, resource } = attributes.resource.clone();
    let own = attributes.object.as_deref().map(object::name).unwrap_or_default();
    let name = if attributes.name.is_empty() { own.to_owned() } else { attributes.name.clone() };
    move |why: &str| Status::forbidden(&group, &resource, &name, why)
}
