//! `serviceaccounts/token`: issues a token, bound to what the request names.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status};
use serde_json::{Value, json};

use super::{admit, answer, create_options, read};
use crate::authentication::service_account::{
    Bindings, Claims, EXPIRATION_EXTENSION_SECONDS, ObjectRef, WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS,
};
use crate::endpoints::Expected;
use crate::object::{self, Object, str_at};
use crate::registry::deps::Deps;
use crate::registry::tree::{default_to, field, has, int, set, strings, struct_mut, text};
use crate::request::Response;
use crate::resources::{Subresource, SubresourceRequest};

const GROUP: &str = "authentication.k8s.io";
const SECONDS_MIN: i64 = 10 * 60;
const SECONDS_MAX: i64 = 1 << 32;
const SECONDS_DEFAULT: i64 = 60 * 60;

pub struct Token {
    deps: Arc<Deps>,
}

fn reference(object: &Object) -> ObjectRef {
    ObjectRef::new(object::name(object), object::uid(object))
}

fn validate(request: &Object) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let seconds = int(field(request, "spec"), "expirationSeconds").unwrap_or(SECONDS_DEFAULT);
    if seconds < SECONDS_MIN {
        errors.invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > SECONDS_MAX {
        errors.invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        );
    }
    errors
}

impl Token {
    pub fn new(deps: Arc<Deps>) -> Self {
        Self { deps }
    }

    /// What the token is bound to; true when to a pod.
    async fn bind(&self, account: &Object, wanted: &Value, bindings: &mut Bindings) -> Result<bool, Status> {
        let (kind, name) = (text(wanted, "kind"), text(wanted, "name"));
        let namespace = object::namespace(account);
        let (group, version) =
            text(wanted, "apiVersion").split_once('/').unwrap_or(("", text(wanted, "apiVersion")));
        let get = async |resource: &str, namespace: &str, name: &str| -> Result<Object, Status> {
            Ok(self.deps.registry.store("", resource).get(namespace, name, None).await?.tree())
        };
        let found = match (group, kind) {
            ("", "Pod") => {
                let pod = get("pods", namespace, name).await?;
                if str_at(&pod, &["spec", "serviceAccountName"]) != object::name(account) {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                        object::name(account)
                    )));
                }
                let node = str_at(&pod, &["spec", "nodeName"]).to_owned();
                if !node.is_empty() {
                    bindings.node = Some(match get("nodes", "", &node).await {
                        Ok(node) => reference(&node),
                        Err(status) if status.code == 404 => ObjectRef::new(&node, ""),
                        Err(status) => return Err(Status::internal(status)),
                    });
                }
                bindings.pod = Some(reference(&pod));
                pod
            }
            ("", "Node") => {
                let node = get("nodes", "", name).await?;
                bindings.node = Some(reference(&node));
                node
            }
            ("", "Secret") => {
                let secret = get("secrets", namespace, name).await?;
                bindings.secret = Some(reference(&secret));
                secret
            }
            _ => {
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                )));
            }
        };
        let uid = text(wanted, "uid");
        if !uid.is_empty() && uid != object::uid(&found) {
            return Err(Status::conflict(
                "",
                kind,
                name,
                format!(
                    "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
                ),
            ));
        }
        Ok(kind == "Pod")
    }
}

#[async_trait]
impl Subresource for Token {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let ctx = request.request.ctx.clone();
        let info = &ctx.info;
        let tokens = &self.deps.tokens;
        let signer = tokens.signer.as_ref().ok_or_else(Status::path_not_found)?;
        let options = create_options(&ctx)?;
        let expected = Expected { kind: "TokenRequest", api_versions: &["authentication.k8s.io/v1"] };
        let type_name = "io.k8s.api.authentication.v1.TokenRequest";
        let mut body = read(&self.deps, request.request, type_name, expected, &options).await?;
        let account = self
            .deps
            .registry
            .store("", "serviceaccounts")
            .get(&info.namespace, &info.name, None)
            .await?
            .tree();
        for (key, own) in [("name", &info.name), ("namespace", &info.namespace)] {
            let given = str_at(&body, &["metadata", key]);
            if !given.is_empty() && given != own {
                let mut errors = FieldErrors::new();
                let what = if key == "name" { "name" } else { "namespace" };
                errors.invalid(
                    format!("metadata.{key}"),
                    given,
                    format!("must match the service account {what} if specified"),
                );
                return Err(Status::invalid(GROUP, "TokenRequest", &info.name, &errors));
            }
        }
        let uid = object::uid(&body).to_owned();
        if !uid.is_empty() && uid != object::uid(&account) {
            const GATE: &str = "TokenRequestServiceAccountUIDValidation";
            let own = object::uid(&account);
            let why = format!(
                "the UID in the token request ({uid}) does not match the UID of the service account ({own})"
            );
            if self.deps.features.enabled(GATE) {
                return Err(Status::conflict(GROUP, "TokenRequest", &info.name, why));
            }
            ctx.warn(format!(
                "{why} but {GATE} is not enabled. In the future, this will return a conflict error"
            ));
        }
        let now = jiff::Timestamp::now();
        if let Some(spec) = struct_mut(&mut body, "spec") {
            if strings(spec, "audiences").is_empty() {
                set(spec, "audiences", json!(tokens.audiences));
            }
            default_to(spec, "expirationSeconds", SECONDS_DEFAULT);
        }
        set(&mut body, "kind", "TokenRequest");
        set(&mut body, "apiVersion", "authentication.k8s.io/v1");
        let stamp = |at: jiff::Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let metadata = object::metadata_mut(&mut body);
        metadata.insert("name".into(), json!(info.name));
        metadata.insert("namespace".into(), json!(info.namespace));
        metadata.insert("uid".into(), json!(object::uid(&account)));
        metadata.insert("creationTimestamp".into(), json!(stamp(now)));
        let errors = validate(&body);
        if !errors.is_empty() {
            return Err(Status::invalid(GROUP, "TokenRequest", "", &errors));
        }
        admit(&request.admission, &ctx, "TokenRequest", "v1", &mut body, options.dry_run).await?;
        let mut bindings = Bindings {
            namespace: info.namespace.clone(),
            service_account: reference(&account),
            ..Bindings::default()
        };
        let wanted = field(field(&body, "spec"), "boundObjectRef").clone();
        let to_pod = has(field(&body, "spec"), "boundObjectRef")
            && self.bind(&account, &wanted, &mut bindings).await?;
        let mut seconds = int(field(&body, "spec"), "expirationSeconds").unwrap_or(SECONDS_DEFAULT);
        if let Some(max) = tokens.expiration_seconds_max.filter(|max| *max > 0 && seconds > *max) {
            ctx.warn(format!("requested expiration of {seconds} seconds shortened to {max} seconds"));
            seconds = max;
        }
        let audiences: Vec<String> =
            strings(field(&body, "spec"), "audiences").into_iter().map(str::to_owned).collect();
        let own_audience = audiences.iter().all(|a| tokens.audiences.contains(a));
        let extended =
            tokens.extend && to_pod && seconds == WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS && own_audience;
        let (life, warn_after) =
            if extended { (EXPIRATION_EXTENSION_SECONDS, seconds) } else { (seconds, 0) };
        let claims = Claims::new(bindings, audiences, now, life, warn_after);
        let token = signer
            .sign(&claims)
            .ok_or_else(|| Status::internal("failed to generate token: no randomness"))?;
        if let Some(spec) = struct_mut(&mut body, "spec") {
            set(spec, "expirationSeconds", seconds);
        }
        let expires = now.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(now);
        set(&mut body, "status", json!({"token": token, "expirationTimestamp": stamp(expires)}));
        Ok(answer(201, &body))
    }
}
