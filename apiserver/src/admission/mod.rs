//! Admission: plugins that change or refuse a write after authorization, by upstream's names and order.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;

use crate::object::Object;
use crate::request::RequestContext;
use crate::resources::GroupResource;

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
