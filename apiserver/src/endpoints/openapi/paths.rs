//! Operations, from a resource's verbs.

use serde_json::{Map, Value, json};

use super::schemas::Used;
use crate::resources::schema::type_name;
use crate::resources::{ResourceDef, SubresourceDef};

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// What the operations of one path have in common.
struct Target<'d> {
    def: &'d ResourceDef,
    group: &'d str,
    version: &'d str,
    kind: &'d str,
    verbs: &'d [String],
}

/// Adds every path of a resource.
pub(super) fn add(paths: &mut Map<String, Value>, used: &mut Used<'_>, def: &ResourceDef) {
    let root = if def.group.is_empty() {
        format!("/api/{}", def.version)
    } else {
        format!("/apis/{}/{}", def.group, def.version)
    };
    let collection = if def.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", def.resource)
    } else {
        format!("{root}/{}", def.resource)
    };
    let target = Target { def, group: &def.group, version: &def.version, kind: &def.kind, verbs: &def.verbs };
    let verbs = |wanted: &[&str]| -> Vec<&str> {
        def.verbs.iter().map(String::as_str).filter(|v| wanted.contains(v)).collect()
    };
    put(paths, used, &target, &collection, &verbs(&["list", "create", "deletecollection"]), false);
    if def.namespaced && def.has_verb("list") {
        put(paths, used, &target, &format!("{root}/{}", def.resource), &["list"], false);
    }
    let item = format!("{collection}/{{name}}");
    put(paths, used, &target, &item, &verbs(&["get", "update", "patch", "delete"]), true);
    for sub in &def.subresources {
        let target = of_subresource(def, sub);
        let verbs: Vec<&str> = sub.verbs.iter().map(String::as_str).collect();
        put(paths, used, &target, &format!("{item}/{}", sub.name), &verbs, true);
    }
}

fn of_subresource<'d>(def: &'d ResourceDef, sub: &'d SubresourceDef) -> Target<'d> {
    Target { def, group: &sub.group, version: &sub.version, kind: &sub.kind, verbs: &sub.verbs }
}

fn put(
    paths: &mut Map<String, Value>,
    used: &mut Used<'_>,
    target: &Target<'_>,
    path: &str,
    verbs: &[&str],
    named: bool,
) {
    if verbs.is_empty() {
        return;
    }
    debug_assert!(verbs.iter().all(|verb| target.verbs.iter().any(|v| v == verb)));
    let mut operations = Map::new();
    for verb in verbs {
        let method = match *verb {
            "get" | "list" => "get",
            "create" => "post",
            "update" => "put",
            "patch" => "patch",
            "delete" | "deletecollection" => "delete",
            _ => continue,
        };
        operations.insert(method.to_owned(), operation(used, target, verb, path));
    }
    let mut parameters = Vec::new();
    if named {
        parameters.push(in_path("name"));
    }
    if path.contains("{namespace}") {
        parameters.push(in_path("namespace"));
    }
    operations.insert("parameters".to_owned(), parameters.into());
    paths.insert(path.to_owned(), operations.into());
}

fn in_path(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
}

fn in_query(name: &str, ty: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}})
}

fn operation(used: &mut Used<'_>, target: &Target<'_>, verb: &str, path: &str) -> Value {
    let own = type_name(target.group, target.version, target.kind);
    let kind = used.by_name(&own);
    let answer = match verb {
        "list" => used.by_name(&type_name(&target.def.group, &target.def.version, &target.def.list_kind)),
        "delete" | "deletecollection" => used.by_name(STATUS),
        _ => kind.clone(),
    };
    let content = |schema: Value| json!({"application/json": {"schema": schema}, "application/yaml": {"schema": schema}});
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({"description": "OK", "content": content(answer.clone())}));
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    if matches!(verb, "create" | "update" | "patch") {
        responses.insert("201".to_owned(), json!({"description": "Created", "content": content(answer)}));
    }
    let (action, parameters): (&str, Vec<Value>) = match verb {
        "list" => ("list", list_parameters()),
        "create" => ("post", write_parameters()),
        "update" => ("put", write_parameters()),
        "patch" => ("patch", [write_parameters(), vec![in_query("force", "boolean")]].concat()),
        "delete" => ("delete", delete_parameters()),
        "deletecollection" => ("deletecollection", [delete_parameters(), list_parameters()].concat()),
        _ => ("get", Vec::new()),
    };
    let mut out = json!({
        "operationId": operation_id(action, path),
        "parameters": parameters,
        "responses": responses,
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": target.group, "version": target.version, "kind": target.kind},
    });
    let body = match verb {
        "create" | "update" => Some(json!({"required": true, "content": {"*/*": {"schema": kind}}})),
        "patch" => {
            let content: Map<String, Value> = PATCH_TYPES
                .iter()
                .map(|t| ((*t).to_owned(), json!({"schema": {"type": "object"}})))
                .collect();
            Some(json!({"required": true, "content": content}))
        }
        "delete" | "deletecollection" => {
            Some(json!({"content": {"*/*": {"schema": used.by_name(DELETE_OPTIONS)}}}))
        }
        _ => None,
    };
    if let Some(body) = body {
        out["requestBody"] = body;
    }
    out
}

/// Unique in a document: the action and the path's words.
fn operation_id(action: &str, path: &str) -> String {
    let mut out = action.to_owned();
    for word in path.split(['/', '.', '-', '{', '}']).filter(|w| !w.is_empty()) {
        let mut chars = word.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(chars.as_str());
    }
    out
}

fn write_parameters() -> Vec<Value> {
    ["dryRun", "fieldManager", "fieldValidation"].map(|name| in_query(name, "string")).to_vec()
}

fn delete_parameters() -> Vec<Value> {
    vec![
        in_query("dryRun", "string"),
        in_query("gracePeriodSeconds", "integer"),
        in_query("orphanDependents", "boolean"),
        in_query("propagationPolicy", "string"),
    ]
}

fn list_parameters() -> Vec<Value> {
    vec![
        in_query("allowWatchBookmarks", "boolean"),
        in_query("continue", "string"),
        in_query("fieldSelector", "string"),
        in_query("labelSelector", "string"),
        in_query("limit", "integer"),
        in_query("resourceVersion", "string"),
        in_query("resourceVersionMatch", "string"),
        in_query("sendInitialEvents", "boolean"),
        in_query("timeoutSeconds", "integer"),
        in_query("watch", "boolean"),
    ]
}
