//! Operations and paths of a document, in either dialect.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::parameters::Parameter;
use super::schemas::{Dialect, group_version_kind};
use crate::endpoints::negotiation;

/// What an object is answered as.
pub(super) const OBJECT: &[&str] = negotiation::SUPPORTED;
/// What a stream of events is answered as, beside [`OBJECT`].
pub(super) const EVENTS: &[&str] = &["application/json", "application/json;stream=watch", "application/yaml"];
/// Whatever comes.
pub(super) const ANY: &[&str] = &["*/*"];
/// A body or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Type(&'a str),
    Text,
}

impl Content<'_> {
    fn schema(self, dialect: Dialect) -> Value {
        match self {
            Self::Type(name) => dialect.reference(name),
            Self::Text => json!({"type": "string"}),
        }
    }
}

/// The body of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestBody<'a> {
    pub ty: &'a str,
    pub required: bool,
    pub consumes: &'static [&'static str],
}

/// One method of a path.
#[derive(Debug, Clone)]
pub(super) struct Operation<'a> {
    pub method: &'static str,
    pub id: String,
    pub description: String,
    pub tag: String,
    /// `x-kubernetes-action`, and the kind it acts on.
    pub action: Option<&'static str>,
    pub kind: Option<(String, String, String)>,
    pub body: Option<RequestBody<'a>>,
    pub parameters: Vec<Parameter>,
    pub answer: Content<'a>,
    /// The codes of success.
    pub codes: &'static [u16],
    pub produces: &'static [&'static str],
}

/// A path with its operations.
pub(super) struct PathItem<'a> {
    pub path: String,
    pub operations: Vec<Operation<'a>>,
}

impl<'a> PathItem<'a> {
    /// Adds the types that bodies and answers name.
    pub(super) fn types(&self, out: &mut BTreeSet<&'a str>) {
        for operation in &self.operations {
            out.extend(operation.body.map(|b| b.ty));
            if let Content::Type(name) = operation.answer {
                out.insert(name);
            }
        }
    }

    /// What all operations share is said once, of the path.
    pub(super) fn render(&self, dialect: Dialect) -> Value {
        let mut shared = self.operations.first().map(|o| o.parameters.clone()).unwrap_or_default();
        shared.retain(|p| self.operations.iter().all(|o| o.parameters.contains(p)));
        let mut out = Map::new();
        for operation in &self.operations {
            out.insert(operation.method.to_owned(), operation.render(dialect, &shared));
        }
        if !shared.is_empty() {
            out.insert("parameters".to_owned(), shared.iter().map(|p| p.render(dialect)).collect());
        }
        out.into()
    }
}

impl Operation<'_> {
    fn render(&self, dialect: Dialect, shared: &[Parameter]) -> Value {
        let mut out = json!({"description": self.description, "operationId": self.id, "tags": [self.tag]});
        if let Some(action) = self.action {
            out["x-kubernetes-action"] = action.into();
        }
        if let Some((group, version, kind)) = &self.kind {
            out["x-kubernetes-group-version-kind"] = group_version_kind(group, version, kind);
        }
        let mut parameters: Vec<Value> = Vec::new();
        match (dialect, self.body) {
            (Dialect::V2, Some(body)) => {
                let mut parameter =
                    json!({"in": "body", "name": "body", "schema": dialect.reference(body.ty)});
                if body.required {
                    parameter["required"] = true.into();
                }
                parameters.push(parameter);
            }
            (Dialect::V3, Some(body)) => {
                let schema = dialect.reference(body.ty);
                let mut request = json!({"content": content(body.consumes, &schema)});
                if body.required {
                    request["required"] = true.into();
                }
                out["requestBody"] = request;
            }
            (_, None) => {}
        }
        parameters.extend(self.parameters.iter().filter(|p| !shared.contains(p)).map(|p| p.render(dialect)));
        if !parameters.is_empty() {
            out["parameters"] = parameters.into();
        }
        if dialect == Dialect::V2 {
            out["consumes"] = json!(self.body.map_or(ANY, |b| b.consumes));
            out["produces"] = json!(self.produces);
            out["schemes"] = json!(["https"]);
        }
        out["responses"] = self.responses(dialect);
        out
    }

    fn responses(&self, dialect: Dialect) -> Value {
        let mut out = Map::new();
        let schema = self.answer.schema(dialect);
        for code in self.codes {
            let text = match code {
                201 => "Created",
                202 => "Accepted",
                _ => "OK",
            };
            let answer = match dialect {
                Dialect::V2 => json!({"description": text, "schema": schema}),
                Dialect::V3 => json!({"description": text, "content": content(self.produces, &schema)}),
            };
            out.insert(code.to_string(), answer);
        }
        out.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        out.into()
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    types.iter().map(|t| ((*t).to_owned(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
}
