//! `authorizer.group('apps').resource('deployments').check('get').allowed()`.
//!
//! A chain of calls collects what is asked; `check` asks. Who decides is behind [`Authorizer`], so that expressions
//! can be compiled and tried without the server's own.

use std::fmt;
use std::rc::Rc;

use super::{fail, none};
use crate::cel::machine::Result;
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "path: kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.PathCheck",
    "group: kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.GroupCheck",
    "serviceAccount: kubernetes.authorization.Authorizer.(string, string) -> kubernetes.authorization.Authorizer",
    "resource: kubernetes.authorization.GroupCheck.(string) -> kubernetes.authorization.ResourceCheck",
    "subresource: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
    "namespace: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
    "name: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
    "fieldSelector: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
    "labelSelector: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
    "check: kubernetes.authorization.PathCheck.(string) -> kubernetes.authorization.Decision",
    "check: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.Decision",
    "errored: kubernetes.authorization.Decision.() -> bool",
    "error: kubernetes.authorization.Decision.() -> string",
    "allowed: kubernetes.authorization.Decision.() -> bool",
    "reason: kubernetes.authorization.Decision.() -> string",
];

/// The type of the variable `authorizer`.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// The type of the variable `authorizer.requestResource`.
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";

/// Steps of one decision: 350,000 of upstream's units, of which a call may have a million.
const CHECK_STEPS: usize = 350_000;

/// Who decides.
pub trait Authorizer {
    /// Whether what is asked may be done: by the request's user, or by `question.service_account`.
    fn decide(&self, question: &Question) -> Decision;
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    pub verb: String,
    /// Namespace and name, when it is not the user of the request.
    pub service_account: Option<(String, String)>,
    pub target: Target,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Path(String),
    Resource(Box<Resource>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
}

impl Default for Target {
    fn default() -> Self {
        Self::Resource(Box::default())
    }
}

/// What was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// Why there was no decision.
    pub error: Option<String>,
}

/// How far a chain of calls got.
#[derive(Clone)]
pub struct Asked {
    stage: Stage,
    authorizer: Rc<dyn Authorizer>,
    question: Question,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
    Decided(Decision),
}

impl Asked {
    /// The variable `authorizer`.
    pub fn nothing(authorizer: Rc<dyn Authorizer>) -> Self {
        Self { stage: Stage::Authorizer, authorizer, question: Question::default() }
    }

    /// The variable `authorizer.requestResource`.
    pub fn resource(authorizer: Rc<dyn Authorizer>, resource: Resource) -> Self {
        let question = Question { target: Target::Resource(Box::new(resource)), ..Question::default() };
        Self { stage: Stage::Resource, authorizer, question }
    }

    pub(in crate::cel) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => AUTHORIZER,
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => RESOURCE_CHECK,
            Stage::Decided(_) => "kubernetes.authorization.Decision",
        }
    }

    pub(in crate::cel) fn same(&self, other: &Self) -> bool {
        self.stage == other.stage && self.question == other.question
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("stage", &self.stage).field("question", &self.question).finish()
    }
}

/// What a decision costs.
pub(in crate::cel) fn steps(name: &str, on: &Val<'_>) -> usize {
    if name == "check" && matches!(on, Val::Authorization(_)) { CHECK_STEPS } else { 0 }
}

pub(super) fn method<'a>(name: &str, asked: &Asked, args: &[Val<'a>]) -> Result<'a> {
    let mut next = asked.clone();
    let mut texts = Vec::with_capacity(args.len());
    for arg in args {
        let Val::Str(text) = arg else { return none() };
        texts.push(text.to_string());
    }
    match (&asked.stage, name, texts.as_slice()) {
        (Stage::Authorizer, "path", [path]) => {
            if path.is_empty() {
                return fail("path must not be empty");
            }
            next.stage = Stage::Path;
            next.question.target = Target::Path(path.clone());
        }
        (Stage::Authorizer, "serviceAccount", [namespace, name]) => {
            next.question.service_account = Some((namespace.clone(), name.clone()));
        }
        (Stage::Authorizer, "group", [group]) => {
            next.stage = Stage::Group;
            next.question.target =
                Target::Resource(Box::new(Resource { group: group.clone(), ..Resource::default() }));
        }
        (Stage::Path | Stage::Resource, "check", [verb]) => {
            next.question.verb.clone_from(verb);
            next.stage = Stage::Decided(next.authorizer.decide(&next.question));
        }
        (Stage::Decided(decision), name, []) => {
            return Ok(match name {
                "allowed" => Val::Bool(decision.allowed),
                "reason" => Val::str(&decision.reason),
                "errored" => Val::Bool(decision.error.is_some()),
                "error" => Val::str(decision.error.as_deref().unwrap_or("")),
                _ => return none(),
            });
        }
        (stage, name, [value]) => {
            let Target::Resource(resource) = &mut next.question.target else { return none() };
            match (stage, name) {
                (Stage::Group, "resource") => {
                    if value.is_empty() {
                        return fail("resource must not be empty");
                    }
                    resource.resource.clone_from(value);
                    next.stage = Stage::Resource;
                }
                (Stage::Resource, "subresource") => resource.subresource.clone_from(value),
                (Stage::Resource, "namespace") => resource.namespace.clone_from(value),
                (Stage::Resource, "name") => resource.name.clone_from(value),
                (Stage::Resource, "fieldSelector") => resource.field_selector = Some(value.clone()),
                (Stage::Resource, "labelSelector") => resource.label_selector = Some(value.clone()),
                _ => return none(),
            }
        }
        _ => return none(),
    }
    Ok(Val::Authorization(Rc::new(next)))
}
