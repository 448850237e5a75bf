//! TokenReview, SelfSubjectReview, the SubjectAccessReviews and SelfSubjectRulesReview: questions, never
//! stored.

mod access;

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use serde_json::{Value, json};

use super::{admit, answer, create_options, read};
use crate::authorization;
use crate::endpoints::Expected;
use crate::object::{self, Object, str_at};
use crate::registry::deps::Deps;
use crate::registry::tree::{field, set, strings, text};
use crate::request::{Response, UserInfo};
use crate::resources::{Subresource, SubresourceRequest};
use access::About;

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

impl Review {
    async fn access(&self, review: &mut Object, user: UserInfo) {
        let (attributes, error) = access::attributes(field(review, "spec"), user);
        let verdict = self.deps.authorizer.authorize(&attributes).await;
        let mut status = json!({"allowed": verdict.allowed()});
        if verdict.decision == authorization::Decision::Deny {
            set(&mut status, "denied", true);
        }
        for (key, text) in [("reason", verdict.reason), ("evaluationError", error)] {
            if !text.is_empty() {
                set(&mut status, key, text);
            }
        }
        set(review, "status", status);
    }

    /// What is wrong with a question before anybody is asked.
    fn check(&self, kind: &str, review: &Object, namespace: &str) -> Result<(), Status> {
        let about = match self.question {
            Question::Token if str_at(review, &["spec", "token"]).is_empty() => {
                return Err(Status::bad_request("token is required for TokenReview in authentication"));
            }
            Question::SelfSubjectRules if str_at(review, &["spec", "namespace"]).is_empty() => {
                return Err(Status::bad_request("no namespace on request"));
            }
            Question::Token | Question::SelfSubject | Question::SelfSubjectRules => return Ok(()),
            Question::SelfSubjectAccess => About::Oneself,
            Question::SubjectAccess => About::Subject,
            Question::LocalSubjectAccess => About::SubjectHere,
        };
        let errors = access::validate(review, about);
        if !errors.is_empty() {
            return Err(Status::invalid("authorization.k8s.io", kind, "", &errors));
        }
        if about == About::SubjectHere && str_at(review, &["metadata", "namespace"]) != namespace {
            return Err(Status::bad_request(format!(
                "spec.resourceAttributes.namespace must match namespace: {namespace}"
            )));
        }
        Ok(())
    }

    async fn token(&self, review: &mut Object) {
        let spec = field(review, "spec").clone();
        let token = text(&spec, "token");
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
            Ok(None) => json!({"user": {}, "error": "invalid bearer token"}),
            Err(error) => json!({"user": {}, "error": error.to_string()}),
        };
        set(review, "status", status);
    }

    /// The answer repeats nothing of the question.
    fn rules(&self, review: &mut Object, user: &UserInfo) {
        let namespace = str_at(review, &["spec", "namespace"]).to_owned();
        let found = self.deps.authorizer.rules_for(user, &namespace);
        let (paths, resources): (Vec<_>, Vec<_>) =
            found.rules.iter().partition(|r| !r.non_resource_urls.is_empty());
        let mut status = json!({"resourceRules": resources, "nonResourceRules": paths,
            "incomplete": found.incomplete});
        if !found.error.is_empty() {
            set(&mut status, "evaluationError", found.error);
        }
        *object::metadata_mut(review) = serde_json::Map::new();
        set(review, "spec", json!({}));
        set(review, "status", status);
    }
}

#[async_trait]
impl Subresource for Review {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let ctx = request.request.ctx.clone();
        let options = create_options(&ctx)?;
        let (kind, api_version) = (request.def.kind.clone(), request.def.api_version());
        let expected = Expected { kind: &kind, api_versions: &[&api_version] };
        let mut review = read(&self.deps, request.request, &request.def.schema, expected, &options).await?;
        object::metadata_mut(&mut review);
        let namespace = ctx.info.namespace.as_str();
        if !namespace.is_empty() && !object::map_at_mut(&mut review, &["metadata"]).contains_key("namespace")
        {
            object::metadata_mut(&mut review).insert("namespace".into(), namespace.into());
        }
        self.check(&kind, &review, namespace)?;
        let version = request.def.version.clone();
        admit(&request.admission, &ctx, &kind, &version, &mut review, options.dry_run).await?;
        match self.question {
            Question::Token => self.token(&mut review).await,
            Question::SelfSubject => {
                let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                set(&mut review, "metadata", json!({"creationTimestamp": now}));
                set(&mut review, "status", json!({"userInfo": user_json(&ctx.user)}));
            }
            Question::SelfSubjectAccess => self.access(&mut review, ctx.user.clone()).await,
            Question::SubjectAccess | Question::LocalSubjectAccess => {
                let user = access::subject(field(&review, "spec"));
                self.access(&mut review, user).await;
            }
            Question::SelfSubjectRules => self.rules(&mut review, &ctx.user),
        }
        Ok(answer(201, &review))
    }
}
