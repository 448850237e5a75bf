//! `DeleteOptions`, from the body or the query.

use common::status::{FieldErrors, Status};
use http::HeaderMap;
use serde_json::Value;

use super::super::super::decode::decode;
use super::super::super::query::{Query, check_dry_run, invalid_options};
use super::super::super::{negotiation, typed};
use crate::cacher::Preconditions;
use crate::object::str_at;
use crate::resources::schema::Schema;

const TYPE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// What a client may ask of a delete.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    pub grace_seconds: Option<i64>,
    pub propagation: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub preconditions: Preconditions,
    pub dry_run: bool,
}

impl DeleteOptions {
    /// From the body when there is one, else from the query. `schema` has the built-in types.
    ///
    /// # Errors
    /// 400 for what cannot be read, 415 for a body of another media type, 422 for values that do not exist or
    /// do not go together.
    pub fn read(schema: &Schema, headers: &HeaderMap, body: &[u8], query: &str) -> Result<Self, Status> {
        let mut dry_run = Vec::new();
        let mut options = if body.is_empty() {
            Self::from_query(&Query::parse(query), &mut dry_run)?
        } else {
            let encoding = negotiation::input(headers)?;
            let mut tree = decode(body, encoding).map_err(Status::bad_request)?.tree;
            if !matches!(str_at(&tree, &["kind"]), "" | "DeleteOptions") {
                return Err(Status::bad_request("decoded object cannot be converted to DeleteOptions"));
            }
            let id =
                schema.id(TYPE).ok_or_else(|| Status::internal(format!("no type {TYPE} in the schema")))?;
            typed::check(schema, id, &mut tree).map_err(|error| Status::bad_request(error.to_string()))?;
            Self::from_tree(&tree, &mut dry_run)
        };
        options.validate(&dry_run)?;
        Ok(options)
    }

    fn from_query(query: &Query<'_>, dry_run: &mut Vec<String>) -> Result<Self, Status> {
        let text = |key: &str| (!query.get(key).is_empty()).then(|| query.get(key).to_owned());
        dry_run.extend(query.all("dryRun").map(str::to_owned));
        Ok(Self {
            grace_seconds: query.integer("gracePeriodSeconds")?,
            propagation: query.has("propagationPolicy").then(|| query.get("propagationPolicy").to_owned()),
            orphan_dependents: query.has("orphanDependents").then(|| query.flag("orphanDependents")),
            preconditions: Preconditions { uid: text("uid"), resource_version: text("resourceVersion") },
            dry_run: false,
        })
    }

    /// From a tree of the right type.
    fn from_tree(tree: &Value, dry_run: &mut Vec<String>) -> Self {
        let text = |pointer: &str| tree.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let values = tree.get("dryRun").and_then(Value::as_array).into_iter().flatten();
        dry_run.extend(values.filter_map(Value::as_str).map(str::to_owned));
        Self {
            grace_seconds: tree.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: text("/propagationPolicy"),
            orphan_dependents: tree.get("orphanDependents").and_then(Value::as_bool),
            preconditions: Preconditions {
                uid: text("/preconditions/uid"),
                resource_version: text("/preconditions/resourceVersion"),
            },
            dry_run: false,
        }
    }

    fn validate(&mut self, dry_run: &[String]) -> Result<(), Status> {
        let mut errors = FieldErrors::new();
        if let Some(policy) = &self.propagation {
            if self.orphan_dependents.is_some() {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.invalid("propagationPolicy", policy, why);
            }
            if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                errors.not_supported("propagationPolicy", policy, &known);
            }
        }
        let dry_run: Vec<&str> = dry_run.iter().map(String::as_str).collect();
        self.dry_run = check_dry_run(&dry_run, &mut errors);
        invalid_options("DeleteOptions", &errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, query: &str) -> Result<DeleteOptions, (u16, String)> {
        let options = DeleteOptions::read(&Schema::builtin(), &HeaderMap::new(), body.as_bytes(), query);
        options.map_err(|status| (status.code, status.message))
    }

    #[test]
    fn the_body_goes_before_the_query() {
        let options =
            read(r#"{"gracePeriodSeconds": 5, "dryRun": ["All"]}"#, "gracePeriodSeconds=9").expect("valid");
        assert_eq!((options.grace_seconds, options.dry_run), (Some(5), true));
        let options =
            read("", "gracePeriodSeconds=0&orphanDependents=false&uid=u&resourceVersion=7").expect("valid");
        assert_eq!((options.grace_seconds, options.orphan_dependents), (Some(0), Some(false)));
        assert_eq!(options.preconditions.uid.as_deref(), Some("u"));
        assert_eq!(options.preconditions.resource_version.as_deref(), Some("7"));
        let group = r#"{"kind": "DeleteOptions", "apiVersion": "apps/v1", "propagationPolicy": "Orphan"}"#;
        assert_eq!(read(group, "").expect("valid").propagation.as_deref(), Some("Orphan"));
    }

    #[test]
    fn what_is_wrong_is_refused_and_never_ignored() {
        for (body, query, code, message) in [
            (
                r#"{"dryRun": "All"}"#,
                "",
                400,
                "json: cannot unmarshal string into Go struct field DeleteOptions.dryRun of type []string",
            ),
            (
                r#"{"gracePeriodSeconds": "5"}"#,
                "",
                400,
                "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64",
            ),
            (r#"{"kind": "Pod"}"#, "", 400, "decoded object cannot be converted to DeleteOptions"),
            ("", "gracePeriodSeconds=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
            (
                "",
                "dryRun=Some",
                422,
                "DeleteOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"",
            ),
            (
                r#"{"propagationPolicy": "Background", "orphanDependents": true}"#,
                "",
                422,
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"Background\": orphanDependents and deletionPropagation cannot be both set",
            ),
            (
                r#"{"propagationPolicy": "Sideways"}"#,
                "",
                422,
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Sideways\": supported values: \"Background\", \"Foreground\", \"Orphan\", \"nil\"",
            ),
        ] {
            assert_eq!(read(body, query).expect_err("refused"), (code, message.to_owned()), "{body}{query}");
        }
    }
}
