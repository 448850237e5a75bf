//! What a request is about, resolved once: the resource's definition, its store, its names.

use std::sync::Arc;

use common::status::Status;

use super::query::WriteOptions;
use super::{Server, typed};
use crate::authorization::Attributes;
use crate::cacher::{ObjectStore, Preconditions};
use crate::fieldmanager::{FieldManager, Version, manager_name};
use crate::filters::respond::forbidden;
use crate::object::{Object, name, resource_version, uid};
use crate::request::{ApiRequest, RequestContext};
use crate::resources::schema::{Schema, TypeId, type_name};
use crate::resources::{ResourceDef, Strategy, SubresourceDef, SubresourceHandler, Table};

/// A request on one resource.
pub(super) struct Scope<'a> {
    pub server: &'a Server,
    pub ctx: Arc<RequestContext>,
    pub def: Arc<ResourceDef>,
    pub verb: String,
    pub namespace: String,
    pub name: String,
    subresource: Option<usize>,
}

impl<'a> Scope<'a> {
    /// # Errors
    /// 404 for a path that no resource serves, 405 for a verb without the name it needs.
    pub(super) fn resolve(server: &'a Server, table: &Table, request: &ApiRequest) -> Result<Self, Status> {
        let info = &request.ctx.info;
        let def = table.get(&info.group, &info.version, &info.resource).ok_or_else(Status::path_not_found)?;
        let subresource = match info.subresource.as_str() {
            "" => None,
            name => Some(
                def.subresources.iter().position(|s| s.name == name).ok_or_else(Status::path_not_found)?,
            ),
        };
        let scope = Self {
            server,
            ctx: request.ctx.clone(),
            def: def.clone(),
            verb: info.verb.clone(),
            namespace: if def.namespaced { info.namespace.clone() } else { String::new() },
            name: info.name.clone(),
            subresource,
        };
        let of_one = matches!(scope.verb.as_str(), "get" | "update" | "patch" | "delete");
        if of_one && scope.name.is_empty() {
            return Err(scope.method_not_allowed());
        }
        if !def.namespaced && !info.namespace.is_empty() && info.resource != "namespaces" {
            return Err(Status::path_not_found());
        }
        if def.namespaced && scope.namespace.is_empty() {
            match scope.verb.as_str() {
                "create" | "deletecollection" => return Err(scope.method_not_allowed()),
                _ if of_one => return Err(Status::path_not_found()),
                _ => {}
            }
        }
        Ok(scope)
    }

    pub(super) fn subresource(&self) -> Option<&SubresourceDef> {
        self.subresource.map(|i| &self.def.subresources[i])
    }

    /// The rules of this endpoint: the subresource's where there is one.
    pub(super) fn strategy(&self) -> &dyn Strategy {
        match self.subresource().map(|s| &s.handler) {
            Some(SubresourceHandler::Object(strategy)) => strategy.as_ref(),
            Some(SubresourceHandler::Custom(_)) | None => self.def.strategy.as_ref(),
        }
    }

    /// # Errors
    /// 404 for a kind that is not stored.
    pub(super) fn store(&self) -> Result<&Arc<dyn ObjectStore>, Status> {
        if let Some(custom) = &self.def.custom {
            return Ok(custom.store());
        }
        self.server.registry.get(&self.def.stored_as).ok_or_else(Status::path_not_found)
    }

    /// The types of the requested kind: the built-in ones, or those made of a custom resource's schema.
    ///
    /// # Errors
    /// 500 when a row of the table has no type.
    pub(super) fn types(&self) -> Result<(&Schema, TypeId), Status> {
        if let Some(custom) = &self.def.custom {
            let types = custom.types();
            return Ok((&types.schema, types.root));
        }
        let schema = &self.server.schema;
        let id = schema.id(&self.def.schema);
        let id = id.ok_or_else(|| Status::internal(format!("no type {} in the schema", self.def.schema)))?;
        Ok((schema, id))
    }

    /// Writes out what a built-in kind in its stored version always says, even when it says nothing.
    pub(super) fn fill(&self, object: &mut Object) {
        if self.def.custom.is_some() {
            return;
        }
        let (schema, def) = (&self.server.schema, &self.def);
        let id = match def.conversion {
            None => schema.id(&def.schema),
            Some(_) => schema.id(&type_name(&def.stored_as.group, &def.stored_version, &def.kind)),
        };
        if let (Some(id), Some(map)) = (id, object.as_object_mut()) {
            typed::fill(schema, id, map);
        }
    }

    /// Works with the ownership of fields as this endpoint sees it.
    pub(super) fn ownership<R>(&self, work: impl FnOnce(&FieldManager<'_>) -> R) -> R {
        let builtin = &self.server.schema;
        let versions = |api_version: &str| {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let table = self.server.tables.load();
            match table.get(group, version, &self.def.resource) {
                Some(def) if def.stored_as == self.def.stored_as => {
                    Some(Version::new(def.clone(), builtin.clone()))
                }
                Some(_) => None,
                // A version that is switched off: a custom resource's still has its types.
                None => {
                    let custom = self.def.custom.as_ref().filter(|_| group == self.def.group)?;
                    Some(Version::of_custom(Arc::new(custom.sibling(version)?), builtin.clone()))
                }
            }
        };
        let subresource = self.subresource().map_or("", |s| s.name.as_str());
        let version = Version::new(self.def.clone(), builtin.clone());
        work(&FieldManager::new(version, &versions, subresource, self.strategy().reset_fields()))
    }

    /// The manager's name: the one given, or the client's.
    pub(super) fn manager(&self, options: &WriteOptions) -> String {
        manager_name(&options.field_manager, &self.ctx.user_agent)
    }

    /// # Errors
    /// 403 unless the user may create this object: for other verbs that come to create it.
    pub(super) async fn may_create(&self) -> Result<(), Status> {
        let Some(authorizer) = &self.ctx.authorizer else { return Ok(()) };
        let mut attributes = Attributes::of(&self.ctx.info, &self.ctx.user);
        "create".clone_into(&mut attributes.verb);
        let verdict = authorizer.authorize(&attributes).await;
        if verdict.allowed() { Ok(()) } else { Err(forbidden(&attributes, &verdict.reason)) }
    }

    pub(super) fn stored_form(&self, object: Object) -> Object {
        match &self.def.conversion {
            Some(conversion) => conversion.to_stored(object),
            None => object,
        }
    }

    pub(super) fn served_form(&self, object: Object) -> Object {
        match &self.def.conversion {
            Some(conversion) => conversion.from_stored(object),
            None => object,
        }
    }

    /// 405: the server does not allow this method on the requested resource.
    pub(super) fn method_not_allowed(&self) -> Status {
        let verb = match self.verb.as_str() {
            "create" => "POST",
            "update" => "PUT",
            "patch" => "PATCH",
            "delete" | "deletecollection" => "DELETE",
            _ => "GET",
        };
        tracing::debug!(resource = %self.def.resource, verb, "method not allowed");
        Status::failure(
            405,
            common::status::reason::METHOD_NOT_ALLOWED,
            "the server does not allow this method on the requested resource",
        )
        .about("", "", "")
    }

    /// The preconditions, for dry runs, which no store checks.
    pub(super) fn check(&self, preconditions: &Preconditions, object: &Object) -> Result<(), Status> {
        let found = [
            ("UID", &preconditions.uid, uid(object)),
            ("ResourceVersion", &preconditions.resource_version, resource_version(object)),
        ];
        for (what, wanted, found) in found {
            if let Some(wanted) = wanted
                && wanted != found
            {
                let key = format!(
                    "/registry/{}/{}{}{}",
                    self.def.storage_prefix,
                    self.namespace,
                    if self.namespace.is_empty() { "" } else { "/" },
                    name(object)
                );
                let why = format!(
                    "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, \
                     AdditionalErrorMsg: Precondition failed: {what} in precondition: {wanted}, \
                     {what} in object meta: {found}"
                );
                return Err(Status::conflict(&self.def.group, &self.def.resource, name(object), why));
            }
        }
        Ok(())
    }

    /// A store's error in the words of this version: the store knows only the stored resource's names.
    pub(super) fn renamed(&self, mut status: Status) -> Status {
        let (stored, served) = (&self.def.stored_as, &self.def);
        if (&stored.group, &stored.resource) == (&served.group, &served.resource) {
            return status;
        }
        let from = common::status::qualified(&stored.group, &stored.resource);
        let to = common::status::qualified(&served.group, &served.resource);
        status.message = status.message.replacen(&format!("{from} \""), &format!("{to} \""), 1);
        if let Some(details) = &mut status.details
            && details.group == stored.group
            && details.kind == stored.resource
        {
            details.group.clone_from(&served.group);
            details.kind.clone_from(&served.resource);
        }
        status
    }

    pub(super) fn not_found(&self) -> Status {
        Status::not_found(&self.def.group, &self.def.resource, &self.name)
    }
}
