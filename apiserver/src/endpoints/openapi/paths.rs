//! The paths that the table's resources are served at: per resource, verb and subresource.
//!
//! Upstream: `apiserver/pkg/endpoints/installer.go`.

use std::sync::Arc;

use super::custom::CustomTypes;
use super::facts::Facts;
use super::operations::{ANY, Content, EVENTS, OBJECT, Operation, PathItem, RequestBody};
use super::parameters::{self, Parameter, Parameters};
use crate::endpoints::handlers::patch;
use crate::resources::{ResourceDef, SubresourceDef, SubresourceHandler};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";

/// The documents of the issuer of service account tokens.
pub(super) const WELL_KNOWN: &str = ".well-known/openid-configuration";
pub(super) const KEYS: &str = "openid/v1/jwks";

/// What may be done through a proxy.
const PROXY_METHODS: &[&str] = &["delete", "get", "head", "options", "patch", "post", "put"];

/// Makes paths.
pub(super) struct Paths<'a> {
    pub facts: &'a Facts,
    pub custom: &'a CustomTypes,
    pub parameters: Parameters<'a>,
}

/// A group version as operations call it.
struct Names {
    /// `AppsV1`.
    title: String,
    /// `apps_v1`.
    tag: String,
    /// `/apis/apps/v1`.
    prefix: String,
}

impl Names {
    fn new(group: &str, version: &str) -> Self {
        let words = group_words(group);
        let prefix = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        if version.is_empty() {
            return Self { title: title_all(&words), tag: lower_first(&title_all(&words)), prefix };
        }
        Self {
            title: format!("{}{}", title_all(&words), title(version)),
            tag: format!("{}_{version}", lower_first(&title_all(&words))),
            prefix: format!("{prefix}/{version}"),
        }
    }
}

/// Where objects of a resource are.
struct Place<'n, 'a> {
    names: &'n Names,
    def: &'n ResourceDef,
    /// The type of the resource's kind.
    ty: &'a str,
    list: Option<&'a str>,
}

impl<'a> Place<'_, 'a> {
    fn scope(&self) -> &'static str {
        if self.def.namespaced { "Namespaced" } else { "" }
    }

    fn collection(&self, watch: bool) -> String {
        let watch = if watch { "/watch" } else { "" };
        let namespace = if self.def.namespaced { "/namespaces/{namespace}" } else { "" };
        format!("{}{watch}{namespace}/{}", self.names.prefix, self.def.resource)
    }

    fn scope_parameters(&self, named: Option<&str>) -> Vec<Parameter> {
        let mut out = Vec::new();
        if let Some(kind) = named {
            out.push(Parameter::path("name", format!("name of the {kind}")));
        }
        if self.def.namespaced {
            out.push(parameters::namespace());
        }
        out
    }

    fn operation(&self, method: &'static str, id: String, description: String) -> Operation<'a> {
        let def = self.def;
        Operation {
            method,
            id,
            description,
            tag: self.names.tag.clone(),
            action: Some(method),
            kind: Some((def.group.clone(), def.version.clone(), def.kind.clone())),
            body: None,
            parameters: Vec::new(),
            answer: Content::Type(self.ty),
            codes: &[200],
            produces: OBJECT,
        }
    }
}

impl<'a> Paths<'a> {
    /// The type that a kind is published as.
    fn name_of(&self, group: &str, version: &str, kind: &str) -> Option<&'a str> {
        let builtin = self.facts.name_of(group, version, kind);
        builtin.or_else(|| self.custom.name_of(group, version, kind))
    }

    /// The paths of a group version with these rows.
    pub(super) fn of_version(
        &self,
        group: &str,
        version: &str,
        defs: &[Arc<ResourceDef>],
    ) -> Vec<PathItem<'a>> {
        let mut out = vec![self.of_discovery(group, version)];
        out.extend(defs.iter().flat_map(|def| self.of_resource(def)));
        out
    }

    /// The path that says what a group version serves.
    pub(super) fn of_discovery(&self, group: &str, version: &str) -> PathItem<'a> {
        let names = Names::new(group, version);
        let (path, id) = (format!("{}/", names.prefix), format!("get{}APIResources", names.title));
        self.discovery(&path, id, "get available resources", &names.tag, "APIResourceList")
    }

    /// The paths of a row.
    pub(super) fn of_resource(&self, def: &ResourceDef) -> Vec<PathItem<'a>> {
        let mut out = Vec::new();
        let Some(ty) = self.name_of(&def.group, &def.version, &def.kind) else { return out };
        let list = self.name_of(&def.group, &def.version, &def.list_kind);
        let names = Names::new(&def.group, &def.version);
        let place = Place { names: &names, def, ty, list };
        self.collection(&place, &mut out);
        self.item(&place, &mut out);
        if def.has_verb("watch") && def.custom.is_none() {
            self.watches(&place, &mut out);
        }
        for sub in &def.subresources {
            self.subresource(&place, sub, &mut out);
        }
        out.retain(|item| !item.operations.is_empty());
        out
    }

    /// The path of a group's own document.
    pub(super) fn of_group(&self, group: &str) -> PathItem<'a> {
        let names = Names::new(group, "");
        let (id, text, answer) = if group.is_empty() {
            ("getCoreAPIVersions".to_owned(), "get available API versions", "APIVersions")
        } else {
            (format!("get{}APIGroup", names.title), "get information of a group", "APIGroup")
        };
        self.discovery(&format!("{}/", names.prefix), id, text, &names.tag, answer)
    }

    /// `/apis/`.
    pub(super) fn groups(&self) -> PathItem<'a> {
        let id = "getAPIVersions".to_owned();
        self.discovery("/apis/", id, "get available API versions", "apis", "APIGroupList")
    }

    /// `/version/`.
    pub(super) fn version(&self) -> PathItem<'a> {
        let text = "get the version information for this server";
        let mut item = self.discovery("/version/", "getCodeVersion".to_owned(), text, "version", "");
        for operation in &mut item.operations {
            operation.answer = Content::Type("io.k8s.apimachinery.pkg.version.Info");
            operation.produces = &["application/json"];
        }
        item
    }

    /// What `path` of the issuer of service account tokens answers: a document of its own kind.
    pub(super) fn issuer(&self, path: &str) -> PathItem<'a> {
        let (id, text, tag, produces): (_, _, _, &'static [&'static str]) = match path {
            WELL_KNOWN => (
                "getServiceAccountIssuerOpenIDConfiguration",
                "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
                "WellKnown",
                &["application/json"],
            ),
            _ => (
                "getServiceAccountIssuerOpenIDKeyset",
                "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
                "openid",
                &["application/jwk-set+json"],
            ),
        };
        let mut item = self.discovery(&format!("/{path}/"), id.to_owned(), text, tag, "");
        for operation in &mut item.operations {
            operation.answer = Content::Text;
            operation.produces = produces;
        }
        item
    }

    fn discovery(&self, path: &str, id: String, text: &str, tag: &str, answer: &str) -> PathItem<'a> {
        let name = format!("{META}.{answer}");
        let answer = self.facts.known(&name).map_or(Content::Text, Content::Type);
        let operation = Operation {
            method: "get",
            id,
            description: text.to_owned(),
            tag: tag.to_owned(),
            action: None,
            kind: None,
            body: None,
            parameters: Vec::new(),
            answer,
            codes: &[200],
            produces: OBJECT,
        };
        PathItem { path: path.to_owned(), operations: vec![operation] }
    }

    fn collection(&self, place: &Place<'_, 'a>, out: &mut Vec<PathItem<'a>>) {
        let Place { names, def, ty, list } = *place;
        let (title, kind, scope) = (&names.title, &def.kind, place.scope());
        let mut operations = Vec::new();
        let common = || {
            let mut all = place.scope_parameters(None);
            all.push(parameters::pretty());
            all
        };
        let list_text = || {
            if def.has_verb("watch") {
                format!("list or watch objects of kind {kind}")
            } else {
                format!("list objects of kind {kind}")
            }
        };
        if def.has_verb("list")
            && let Some(list) = list
        {
            let mut op = place.operation("get", format!("list{title}{scope}{kind}"), list_text());
            op.action = Some("list");
            op.answer = Content::Type(list);
            op.produces = if def.has_verb("watch") { EVENTS } else { OBJECT };
            op.parameters = common();
            op.parameters.extend(self.parameters.list());
            if def.namespaced {
                let mut all = op.clone();
                all.id = format!("list{title}{kind}ForAllNamespaces");
                all.parameters.retain(|p| !p.in_path);
                let path = format!("{}/{}", names.prefix, def.resource);
                out.push(PathItem { path, operations: vec![all] });
            }
            operations.push(op);
        }
        if def.has_verb("create") {
            let mut op = place.operation(
                "post",
                format!("create{title}{scope}{kind}"),
                format!("create {}", one(kind)),
            );
            op.body = Some(RequestBody { ty, required: true, consumes: ANY });
            op.parameters = common();
            op.parameters.extend(parameters::write());
            op.codes = &[200, 201, 202];
            operations.push(op);
        }
        if def.has_verb("deletecollection") {
            let id = format!("delete{title}Collection{scope}{kind}");
            let mut op = place.operation("delete", id, format!("delete collection of {kind}"));
            op.action = Some("deletecollection");
            op.body = Some(RequestBody { ty: DELETE_OPTIONS, required: false, consumes: ANY });
            op.answer = Content::Type(STATUS);
            op.parameters = common();
            op.parameters.extend(self.parameters.delete_collection());
            operations.push(op);
        }
        out.push(PathItem { path: place.collection(false), operations });
    }

    fn item(&self, place: &Place<'_, 'a>, out: &mut Vec<PathItem<'a>>) {
        let Place { names, def, ty, .. } = *place;
        let (title, kind, scope) = (&names.title, &def.kind, place.scope());
        let mut common = place.scope_parameters(Some(kind));
        common.push(parameters::pretty());
        let mut operations = views(place, ty, &def.verbs, &format!("{title}{scope}{kind}"), None);
        if def.has_verb("delete") {
            let text = format!("delete {}", one(kind));
            let mut op = place.operation("delete", format!("delete{title}{scope}{kind}"), text);
            op.body = Some(RequestBody { ty: DELETE_OPTIONS, required: false, consumes: ANY });
            op.answer = Content::Type(if def.returns_deleted { ty } else { STATUS });
            op.codes = &[200, 202];
            op.parameters = self.parameters.delete();
            operations.push(op);
        }
        for op in &mut operations {
            op.parameters.splice(0..0, common.iter().cloned());
        }
        out.push(PathItem { path: format!("{}/{{name}}", place.collection(false)), operations });
    }

    /// The older form of a watch, by path.
    fn watches(&self, place: &Place<'_, 'a>, out: &mut Vec<PathItem<'a>>) {
        let Place { names, def, .. } = *place;
        let (title, kind, scope) = (&names.title, &def.kind, place.scope());
        let mut watch = |id: String, path: String, parameters: Vec<Parameter>, single: bool| {
            let text = if single {
                format!(
                    "watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter."
                )
            } else {
                format!(
                    "watch individual changes to a list of {kind}. deprecated: use the 'watch' parameter with a list operation instead."
                )
            };
            let mut op = place.operation("get", id, text);
            op.action = Some(if single { "watch" } else { "watchlist" });
            op.answer = Content::Type(WATCH_EVENT);
            op.produces = EVENTS;
            op.parameters = parameters;
            op.parameters.push(parameters::pretty());
            op.parameters.extend(self.parameters.list());
            out.push(PathItem { path, operations: vec![op] });
        };
        let collection = place.collection(true);
        watch(
            format!("watch{title}{scope}{kind}List"),
            collection.clone(),
            place.scope_parameters(None),
            false,
        );
        let item = format!("{collection}/{{name}}");
        watch(format!("watch{title}{scope}{kind}"), item, place.scope_parameters(Some(kind)), true);
        if def.namespaced {
            let path = format!("{}/watch/{}", names.prefix, def.resource);
            watch(format!("watch{title}{kind}ListForAllNamespaces"), path, Vec::new(), false);
        }
    }

    fn subresource(&self, place: &Place<'_, 'a>, sub: &SubresourceDef, out: &mut Vec<PathItem<'a>>) {
        let Place { names, def, .. } = *place;
        let whole = format!("{}{}{}{}", names.title, place.scope(), def.kind, title(&sub.name));
        let path = format!("{}/{{name}}/{}", place.collection(false), sub.name);
        if sub.kind.ends_with("Options") {
            connections(place, sub, &whole, &path, out);
            return;
        }
        let Some(ty) = self.name_of(&sub.group, &sub.version, &sub.kind) else { return };
        let mut operations = views(place, ty, &sub.verbs, &whole, Some(&sub.name));
        if sub.verbs.iter().any(|v| v == "create") {
            let text = format!("create {} of {}", sub.name, one(&def.kind));
            let mut op = place.operation("post", format!("create{whole}"), text);
            op.body = Some(RequestBody { ty, required: true, consumes: ANY });
            op.answer = Content::Type(ty);
            op.parameters = parameters::write();
            op.codes = &[200, 201, 202];
            operations.push(op);
        }
        let log = sub.name == "log" && matches!(sub.handler, SubresourceHandler::Custom(_));
        for op in &mut operations {
            op.kind = Some((sub.group.clone(), sub.version.clone(), sub.kind.clone()));
            let mut common = place.scope_parameters(Some(&sub.kind));
            common.push(parameters::pretty());
            if log {
                common.extend(parameters::options("PodLogOptions"));
                op.answer = Content::Text;
                op.produces = &["text/plain"];
            }
            op.parameters.splice(0..0, common);
        }
        out.push(PathItem { path, operations });
    }
}

/// get, update and patch of an object or a view of it.
fn views<'a>(
    place: &Place<'_, 'a>,
    ty: &'a str,
    verbs: &[String],
    whole: &str,
    sub: Option<&str>,
) -> Vec<Operation<'a>> {
    let kind = &place.def.kind;
    let has = |verb: &str| verbs.iter().any(|v| v == verb);
    let what = match sub {
        Some(sub) => format!("{sub} of the specified {kind}"),
        None => format!("the specified {kind}"),
    };
    let mut out = Vec::new();
    if has("get") {
        out.push(place.operation("get", format!("read{whole}"), format!("read {what}")));
    }
    if has("update") {
        let mut op = place.operation("put", format!("replace{whole}"), format!("replace {what}"));
        op.body = Some(RequestBody { ty, required: true, consumes: ANY });
        op.parameters = parameters::write();
        op.codes = &[200, 201];
        out.push(op);
    }
    if has("patch") {
        let mut op = place.operation("patch", format!("patch{whole}"), format!("partially update {what}"));
        op.body = Some(RequestBody { ty: PATCH, required: true, consumes: patch::supported(place.def) });
        op.parameters = parameters::patch();
        op.codes = &[200, 201];
        out.push(op);
    }
    for op in &mut out {
        op.answer = Content::Type(ty);
    }
    out
}

/// Streams to a pod, a service or a node.
fn connections<'a>(
    place: &Place<'_, 'a>,
    sub: &SubresourceDef,
    whole: &str,
    path: &str,
    out: &mut Vec<PathItem<'a>>,
) {
    let names = place.names;
    let proxy = sub.name == "proxy";
    let methods = if proxy { PROXY_METHODS } else { &["get", "post"] };
    let tail = whole.strip_prefix(&names.title).unwrap_or(whole);
    let item = |suffix: &str| -> Vec<Operation<'a>> {
        methods
            .iter()
            .map(|method| {
                let id = format!("connect{}{}{tail}{suffix}", names.title, title(method));
                let verb = method.to_ascii_uppercase();
                let text = format!("connect {verb} requests to {} of {}", sub.name, place.def.kind);
                let mut op = place.operation(method, id, text);
                op.action = Some("connect");
                op.kind = Some((sub.group.clone(), sub.version.clone(), sub.kind.clone()));
                op.answer = Content::Text;
                op.produces = ANY;
                op.parameters = place.scope_parameters(Some(&sub.kind));
                if !suffix.is_empty() {
                    op.parameters.push(Parameter::path("path", "path to the resource"));
                }
                op.parameters.extend(parameters::options(&sub.kind));
                op
            })
            .collect()
    };
    out.push(PathItem { path: path.to_owned(), operations: item("") });
    if proxy {
        out.push(PathItem { path: format!("{path}/{{path}}"), operations: item("WithPath") });
    }
}

/// `rbac.authorization.k8s.io` is `rbac authorization`.
fn group_words(group: &str) -> Vec<&str> {
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    if group.is_empty() { vec!["core"] } else { group.split('.').collect() }
}

fn title_all(words: &[&str]) -> String {
    words.iter().map(|w| title(w)).collect()
}

fn title(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_ascii_uppercase().to_string() + chars.as_str())
}

fn lower_first(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_ascii_lowercase().to_string() + chars.as_str())
}

/// `a Pod`, `an Ingress`; `Endpoints` are several already.
fn one(kind: &str) -> String {
    let article = match kind.chars().next() {
        Some('A' | 'E' | 'I' | 'O' | 'U') => "an",
        _ => "a",
    };
    if kind == "Endpoints" { kind.to_owned() } else { format!("{article} {kind}") }
}
