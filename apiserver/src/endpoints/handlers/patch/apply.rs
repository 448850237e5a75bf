//! Server-side apply as a source of an update: reads the configuration and lays it over the object.

use common::status::Status;
use serde_json::Value;

use super::super::super::decode::{decode, line_of_duplicate};
use super::super::super::metadata;
use super::super::super::negotiation::Encoding;
use super::super::super::query::{FieldValidation, WriteOptions};
use super::super::super::read::checked;
use super::super::super::scope::Scope;
use super::super::super::write::check_name;
use super::super::place;
use crate::fieldmanager::Applied;
use crate::object::{Object, uid};

/// A configuration that was read.
pub(in super::super::super) struct Apply {
    config: Value,
    /// Each as a message tells it.
    duplicates: Vec<String>,
}

impl Apply {
    /// # Errors
    /// 400 for what is no map in YAML or JSON.
    pub(super) fn read(body: &[u8]) -> Result<Self, Status> {
        let wrong = |why: &str| Status::bad_request(format!("error decoding YAML: {why}"));
        // JSON is YAML too, and read faster as what it is.
        let encoding = match body.iter().find(|b| !b.is_ascii_whitespace()) {
            Some(b'{') => Encoding::Json,
            _ => Encoding::Yaml,
        };
        let decoded = match decode(body, encoding) {
            Err(_) if encoding == Encoding::Json => decode(body, Encoding::Yaml),
            decoded => decoded,
        };
        let decoded = decoded.map_err(|why| wrong(&why))?;
        if !decoded.tree.is_object() {
            return Err(wrong(
                "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal into Go value of type map[string]interface {}",
            ));
        }
        let mut line = if decoded.duplicates.is_empty() { None } else { line_of_duplicate(body) };
        let duplicates = decoded.duplicates.iter().map(|path| {
            let key = path.rsplit('.').next().unwrap_or(path);
            let line = line.take().map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("{line}key {key:?} already set in map")
        });
        let duplicates = duplicates.collect();
        Ok(Self { config: decoded.tree, duplicates })
    }

    /// The new state in the stored version with defaults and owners. `live` is in the stored version too;
    /// `None` when the object does not exist yet.
    ///
    /// # Errors
    /// 409 on conflicts; 400 and 500 as upstream for configurations that do not fit.
    pub(in super::super::super) fn onto(
        &self,
        scope: &Scope<'_>,
        live: Option<&Object>,
        options: &WriteOptions,
    ) -> Result<Object, Status> {
        let now = metadata::now();
        let applied = scope.ownership(|fields| {
            fields.apply(live, &self.config, &options.field_manager, options.force, &now)
        })?;
        self.report(scope, options)?;
        let mut object = match applied {
            Applied::Unchanged(object) => return Ok(object),
            Applied::New(object) => object,
        };
        checked(scope, &mut object).map_err(|why| {
            let def = &scope.def;
            let kind = format!("{}, Kind={}", def.api_version(), def.kind);
            Status::failure(
                500,
                "",
                format!("failed to convert new object ({kind}) to proper version: {why}"),
            )
        })?;
        if live.is_none() && !uid(&object).is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                uid(&object)
            );
            return Err(Status::conflict(&scope.def.group, &scope.def.resource, &scope.name, why));
        }
        place(scope, &mut object)?;
        check_name(scope, &object)?;
        let mut object = scope.stored_form(object);
        scope.def.strategy.default(&mut object);
        Ok(object)
    }

    fn report(&self, scope: &Scope<'_>, options: &WriteOptions) -> Result<(), Status> {
        if self.duplicates.is_empty() {
            return Ok(());
        }
        let text = format!(
            "error converting YAML to JSON: yaml: unmarshal errors:\n  {}",
            self.duplicates.join("\n  ")
        );
        match options.field_validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => scope.ctx.warn(text),
            FieldValidation::Strict => {
                return Err(Status::bad_request(format!("error strict decoding YAML: {text}")));
            }
        }
        Ok(())
    }
}
