//! TokenReview, SelfSubjectReview, the SubjectAccessReviews and SelfSubjectRulesReview: questions, never
//! stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status};
use serde_json::{Value, json};

use super::{answer, read};
use crate::authorization::{self, Attributes};
use crate::object::{Object, str_at};
use crate::registry::deps::Deps;
use crate::registry::tree::{field, has, set, strings, text};
use crate::request::{Response, UserInfo};
use crate::resources::{Subresource, SubresourceRequest};

#[derive(Clone, Copy)]
enum Question {
    Token,
    SelfSubject,
    SubjectAccess,
    SelfSubjectAccess,
    LocalSubjectAccess,
    SelfSubjectRules,
}

pub struct Review {
    deps: Arc<Deps>,
    question: Question,
}

/// Group, resource and handler of each.
pub fn all(deps: &Arc<Deps>) -> Vec<(&'static str, &'static str, Arc<dyn Subresource>)> {
    [
        ("authentication.k8s.io", "tokenreviews", Question::Token),
        ("authentication.k8s.io", "selfsubjectreviews", Question::SelfSubject),
        ("authorization.k8s.io", "subjectaccessreviews", Question::SubjectAccess),
        ("authorization.k8s.io", "selfsubjectaccessreviews", Question::SelfSubjectAccess),
        ("authorization.k8s.io", "localsubjectaccessreviews", Question::LocalSubjectAccess),
        ("authorization.k8s.io", "selfsubjectrulesreviews", Question::SelfSubjectRules),
    ]
    .into_iter()
    .map(|(group, resource, question)| {
        let review: Arc<dyn Subresource> = Arc::new(Review { deps: deps.clone(), question });
        (group, resource, review)
    })
    .collect()
}

fn user_json(user: &UserInfo) -> Value {
    let mut out = json!({"username": user.name});
    if !user.uid.is_empty() {
        set(&mut out, "uid", user.uid.as_str());
    }
    if !user.groups.is_empty() {
        set(&mut out, "groups", json!(user.groups));
    }
    if !user.extra.is_empty() {
        set(&mut out, "extra", json!(user.extra));
    }
    out
}

fn named_user(spec: &Value) -> UserInfo {
    let extra: BTreeMap<String, Vec<String>> = field(spec, "extra")
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| {
            let values = strings(field(spec, "extra"), k).into_iter().map(str::to_owned).collect();
            (k.to_lowercase(), values)
        })
        .collect();
    UserInfo {
        name: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups: strings(spec, "groups").into_iter().map(str::to_owned).collect(),
        extra,
    }
}

/// What an access review asks.
fn attributes(spec: &Value, user: UserInfo) -> Attributes {
    let of = |owner: &Value, key: &str| text(owner, key).to_owned();
    let resource = field(spec, "resourceAttributes");
    if resource.is_object() {
        return Attributes {
            user,
            verb: of(resource, "verb"),
            is_resource: true,
            namespace: of(resource, "namespace"),
            group: of(resource, "group"),
            version: of(resource, "version"),
            resource: of(resource, "resource"),
            subresource: of(resource, "subresource"),
            name: of(resource, "name"),
            field_selector: of(field(resource, "fieldSelector"), "rawSelector"),
            label_selector: of(field(resource, "labelSelector"), "rawSelector"),
            ..Attributes::default()
        };
    }
    let path = field(spec, "nonResourceAttributes");
    Attributes { user, verb: of(path, "verb"), path: of(path, "path"), ..Attributes::default() }
}

fn validate(spec: &Value, subject: bool) -> FieldErrors {
    let mut errors = FieldErrors::new();
    match (has(spec, "resourceAttributes"), has(spec, "nonResourceAttributes")) {
        (true, true) => errors.invalid(
            "spec.nonResourceAttributes",
            field(spec, "nonResourceAttributes"),
            "cannot be specified in combination with resourceAttributes",
        ),
        (false, false) => errors.invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
    if subject && text(spec, "user").is_empty() && strings(spec, "groups").is_empty() {
        errors.invalid("spec.user", "", "at least one of user or group must be specified");
    }
    errors
}

impl Review {
    async fn access(
        &self,
        kind: &str,
        review: &mut Object,
        user: UserInfo,
        subject: bool,
    ) -> Result<(), Status> {
        let spec = field(review, "spec").clone();
        let errors = validate(&spec, subject);
        if !errors.is_empty() {
            return Err(Status::invalid("authorization.k8s.io", kind, "", &errors));
        }
        let verdict = self.deps.authorizer.authorize(&attributes(&spec, user)).await;
        let mut status = json!({"allowed": verdict.allowed()});
        if verdict.decision == authorization::Decision::Deny {
            set(&mut status, "denied", true);
        }
        if !verdict.reason.is_empty() {
            set(&mut status, "reason", verdict.reason);
        }
        set(review, "status", status);
        Ok(())
    }

    async fn token(&self, review: &mut Object) -> Result<(), Status> {
        let spec = field(review, "spec").clone();
        let token = text(&spec, "token");
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let asked: Vec<String> = strings(&spec, "audiences").into_iter().map(str::to_owned).collect();
        let status = match self.deps.authenticator.authenticate_token(token, &asked).await {
            Ok(Some(found)) => {
                let mut status = json!({"authenticated": true, "user": user_json(&found.user)});
                let audiences = if found.audiences.is_empty() { asked } else { found.audiences };
                if !audiences.is_empty() {
                    set(&mut status, "audiences", json!(audiences));
                }
                status
            }
            Ok(None) => json!({"user": {}}),
            Err(error) => json!({"user": {}, "error": error.to_string()}),
        };
        set(review, "status", status);
        Ok(())
    }

    fn rules(&self, review: &mut Object, user: &UserInfo) -> Result<(), Status> {
        let namespace = str_at(review, &["spec", "namespace"]).to_owned();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let found = self.deps.authorizer.rules_for(user, &namespace);
        let (paths, resources): (Vec<_>, Vec<_>) =
            found.rules.iter().partition(|r| !r.non_resource_urls.is_empty());
        let mut status = json!({"resourceRules": resources, "nonResourceRules": paths,
            "incomplete": found.incomplete});
        if !found.error.is_empty() {
            set(&mut status, "evaluationError", found.error);
        }
        set(review, "status", status);
        Ok(())
    }
}

#[async_trait]
impl Subresource for Review {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let ctx = request.request.ctx.clone();
        let mut review = read(&request.request.parts.headers, request.request.body).await?;
        let kind = request.def.kind.clone();
        set(&mut review, "kind", kind.as_str());
        set(&mut review, "apiVersion", request.def.api_version());
        crate::object::metadata_mut(&mut review);
        match self.question {
            Question::Token => self.token(&mut review).await?,
            Question::SelfSubject => {
                set(&mut review, "status", json!({"userInfo": user_json(&ctx.user)}));
            }
            Question::SelfSubjectAccess => {
                self.access(&kind, &mut review, ctx.user.clone(), false).await?;
            }
            Question::SubjectAccess => {
                let user = named_user(field(&review, "spec"));
                self.access(&kind, &mut review, user, true).await?;
            }
            Question::LocalSubjectAccess => {
                let asked = str_at(&review, &["spec", "resourceAttributes", "namespace"]);
                if asked != ctx.info.namespace {
                    return Err(Status::bad_request(format!(
                        "spec.resourceAttributes.namespace must match namespace: {}",
                        ctx.info.namespace
                    )));
                }
                let user = named_user(field(&review, "spec"));
                self.access(&kind, &mut review, user, true).await?;
            }
            Question::SelfSubjectRules => self.rules(&mut review, &ctx.user)?,
        }
        Ok(answer(201, &review))
    }
}
