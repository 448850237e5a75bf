//! NamespaceLifecycle: nothing is made in a namespace that is not there or is going; some namespaces stay.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::{Status, StatusCause};

use super::{Attributes, Operation, Plugin};
use crate::object::str_at;
use crate::resources::Registry;

/// Namespaces that may not be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle {
    registry: Arc<Registry>,
}

impl NamespaceLifecycle {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

fn terminating(attributes: &Attributes<'_>) -> Status {
    let namespace = &attributes.namespace;
    Status::forbidden(
        &attributes.resource.group,
        &attributes.resource.resource,
        super::shown_name(attributes),
        format!("unable to create new content in namespace {namespace} because it is being terminated"),
    )
    .because(vec![StatusCause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    }])
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let about_namespaces =
            attributes.resource.group.is_empty() && attributes.resource.resource == "namespaces";
        if about_namespaces {
            let immortal = IMMORTAL.contains(&attributes.name.as_str());
            if attributes.operation == Operation::Delete && immortal && attributes.subresource.is_empty() {
                return Err(Status::forbidden(
                    "",
                    "namespaces",
                    &attributes.name,
                    "this namespace may not be deleted",
                ));
            }
            return Ok(());
        }
        if attributes.namespace.is_empty() || attributes.operation == Operation::Delete {
            return Ok(());
        }
        if attributes.resource.group == "authorization.k8s.io" {
            return Ok(());
        }
        let store = self.registry.store("", "namespaces");
        let namespace = match store.cached("", &attributes.namespace) {
            Some(found) => found,
            // the cache may lag behind a namespace made just now
            None => store.get("", &attributes.namespace, None).await?,
        };
        if attributes.operation != Operation::Create {
            return Ok(());
        }
        if namespace.mentions("\"phase\":\"Terminating\"")
            && str_at(&namespace.tree(), &["status", "phase"]) == "Terminating"
        {
            return Err(terminating(attributes));
        }
        Ok(())
    }
}
