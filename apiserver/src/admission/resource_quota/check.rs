//! Holds one write against quotas. Pure.

use std::collections::BTreeSet;

use common::quota::{Evaluator, ResourceList, ScopeError, ScopeRequirement, scopes_of};
use common::status::Status;
use jiff::Timestamp;

use super::configuration::LimitedResource;
use crate::object::{self, Object};
use crate::registry::tree::at;
use crate::resources::GroupResource;

/// One write, as quotas see it.
pub struct Request<'a> {
    pub evaluator: Evaluator,
    pub resource: &'a GroupResource,
    pub object: &'a Object,
    /// The object it replaces; `None` on create.
    pub old: Option<&'a Object>,
    /// The write reports usage and is never refused.
    pub status_only: bool,
    pub now: Timestamp,
}

/// Why a write may not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("failed quota: {quota}: {why}")]
    Unspecified { quota: String, why: String },
    #[error("status unknown for quota: {quota}, resources: {resources}")]
    StatusUnknown { quota: String, resources: String },
    #[error("quota usage is negative for resource(s): {0}")]
    Negative(String),
    #[error("insufficient quota to consume: {0}")]
    NotCovered(String),
    #[error("exceeded quota: {quota}, requested: {requested}, used: {used}, limited: {limited}")]
    Exceeded { quota: String, requested: ResourceList, used: ResourceList, limited: ResourceList },
    #[error("insufficient quota to match these scopes: [{0}]")]
    ScopesNotCovered(String),
    #[error("error matching scopes of quota {quota}, err: {source}")]
    Scope { quota: String, source: ScopeError },
}

impl Refusal {
    /// A 403 about the write, but for what upstream does not word as one.
    pub fn into_status(self, forbidden: &(impl Fn(&str) -> Status + ?Sized)) -> Status {
        match self {
            Self::ScopesNotCovered(_) | Self::Scope { .. } => Status::failure(500, "", self.to_string()),
            _ => forbidden(&self.to_string()),
        }
    }
}

/// What one quota makes of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Charge {
    Nothing,
    /// The new `status.used`.
    Used(ResourceList),
}

/// A quota that is about the write, and by how much the write uses more.
struct Concerned<'q> {
    quota: &'q Object,
    restricted: BTreeSet<String>,
    more: ResourceList,
}

/// Checks a write against all quotas of its namespace. Answers with the names of those to charge.
///
/// # Errors
/// The first refusal.
pub fn check(
    quotas: &[Object],
    request: &Request<'_>,
    limited: &[LimitedResource],
) -> Result<Vec<String>, Refusal> {
    let mut covered_scopes = Vec::new();
    let mut concerned = Vec::new();
    for quota in quotas {
        covered_scopes.extend(matching(&scopes_of(quota), request, object::name(quota))?);
        concerned.extend(concern(quota, request)?);
    }
    not_negative(request)?;
    let uses_more = if concerned.is_empty() {
        !increase(request, true).is_empty()
    } else {
        concerned.iter().any(|c| !c.more.is_empty())
    };
    if !uses_more {
        return Ok(Vec::new());
    }
    covered(request, limited, &concerned, &covered_scopes)?;
    let mut names = Vec::new();
    for one in &concerned {
        if new_usage(one, request)? != Charge::Nothing {
            names.push(object::name(one.quota).to_owned());
        }
    }
    Ok(names)
}

/// What one quota as it is now makes of a write.
///
/// # Errors
/// The quota's refusal.
pub fn charge(quota: &Object, request: &Request<'_>) -> Result<Charge, Refusal> {
    match concern(quota, request)? {
        Some(one) => new_usage(&one, request),
        None => Ok(Charge::Nothing),
    }
}

fn hard(quota: &Object) -> ResourceList {
    ResourceList::read(at(quota, &["status", "hard"]))
}

fn used(quota: &Object) -> ResourceList {
    ResourceList::read(at(quota, &["status", "used"]))
}

/// The scopes that the object has.
fn matching(
    scopes: &[ScopeRequirement],
    request: &Request<'_>,
    quota: &str,
) -> Result<Vec<ScopeRequirement>, Refusal> {
    let mut found = Vec::new();
    for scope in scopes {
        let has = request.evaluator.has_scope(scope, request.object);
        if has.map_err(|source| Refusal::Scope { quota: quota.to_owned(), source })? {
            found.push(scope.clone());
        }
    }
    Ok(found)
}

fn is_within(quota: &Object, request: &Request<'_>, object: &Object) -> Result<bool, Refusal> {
    for scope in scopes_of(quota) {
        let has = request.evaluator.has_scope(&scope, object);
        let told = |source| Refusal::Scope { quota: object::name(quota).to_owned(), source };
        if !has.map_err(told)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// By how much the write uses more: all of it where the old object is not counted here.
fn increase(request: &Request<'_>, old_is_counted: bool) -> ResourceList {
    let usage = request.evaluator.usage(request.object, request.now);
    match request.old.filter(|_| old_is_counted) {
        Some(old) => usage.increase_over(&request.evaluator.usage(old, request.now)).without_zeros(),
        None => usage.without_zeros(),
    }
}

fn concern<'q>(quota: &'q Object, request: &Request<'_>) -> Result<Option<Concerned<'q>>, Refusal> {
    let hard = hard(quota);
    let restricted: BTreeSet<String> =
        hard.names().filter(|name| request.evaluator.counts(name)).map(str::to_owned).collect();
    if restricted.is_empty() || !is_within(quota, request, request.object)? {
        return Ok(None);
    }
    let name = || object::name(quota).to_owned();
    request
        .evaluator
        .check_specified(restricted.iter().map(String::as_str), request.object)
        .map_err(|why| Refusal::Unspecified { quota: name(), why })?;
    let used = used(quota);
    if restricted.iter().any(|name| used.get(name).is_none()) {
        let resources = restricted.iter().cloned().collect::<Vec<_>>().join(",");
        return Err(Refusal::StatusUnknown { quota: name(), resources });
    }
    let old_is_counted = match request.old {
        Some(old) => is_within(quota, request, old)?,
        None => false,
    };
    let more = increase(request, old_is_counted);
    Ok(Some(Concerned { quota, restricted, more }))
}

fn not_negative(request: &Request<'_>) -> Result<(), Refusal> {
    let usage = request.evaluator.usage(request.object, request.now);
    let negative: Vec<&str> =
        usage.0.iter().filter(|(_, a)| a.value.is_negative()).map(|(name, _)| name.as_str()).collect();
    if negative.is_empty() { Ok(()) } else { Err(Refusal::Negative(negative.join(","))) }
}

/// What is limited by configuration must be covered by some quota.
fn covered(
    request: &Request<'_>,
    limited: &[LimitedResource],
    concerned: &[Concerned<'_>],
    covered_scopes: &[ScopeRequirement],
) -> Result<(), Refusal> {
    let usage = request.evaluator.usage(request.object, request.now);
    let about =
        |l: &&LimitedResource| l.group == request.resource.group && l.resource == request.resource.resource;
    let restricted: BTreeSet<&String> = concerned.iter().flat_map(|c| &c.restricted).collect();
    let mut lacking = BTreeSet::new();
    for limited in limited.iter().filter(about) {
        let contained = |name: &str| limited.match_contains.iter().any(|part| name.contains(part.as_str()));
        let consumed = usage.0.iter().filter(|(_, a)| !a.value.is_zero() && !a.value.is_negative());
        lacking.extend(consumed.map(|(name, _)| name).filter(|n| contained(n) && !restricted.contains(n)));
    }
    if !lacking.is_empty() {
        return Err(Refusal::NotCovered(lacking.into_iter().cloned().collect::<Vec<_>>().join(",")));
    }
    let mut open = Vec::new();
    for scope in limited.iter().flat_map(|l| &l.match_scopes) {
        // A configured scope that cannot be read limits nothing, as upstream.
        let has = request.evaluator.has_scope(scope, request.object).unwrap_or(false);
        if has && !covered_scopes.iter().any(|c| c.scope_name == scope.scope_name) {
            open.push(scope.to_string());
        }
    }
    if open.is_empty() { Ok(()) } else { Err(Refusal::ScopesNotCovered(open.join(" "))) }
}

fn new_usage(one: &Concerned<'_>, request: &Request<'_>) -> Result<Charge, Refusal> {
    let (hard, used) = (hard(one.quota), used(one.quota));
    let requested = one.more.only(|name| hard.get(name).is_some());
    if requested.is_empty() {
        return Ok(Charge::Nothing);
    }
    let mut after = used.clone();
    after.add(&requested);
    let exceeded = after.only(|name| requested.get(name).is_some()).exceeding(&hard);
    if exceeded.is_empty() || request.status_only {
        return Ok(Charge::Used(after));
    }
    let shown = |list: &ResourceList| list.only(|name| exceeded.iter().any(|e| e == name));
    Err(Refusal::Exceeded {
        quota: object::name(one.quota).to_owned(),
        requested: shown(&requested),
        used: shown(&used),
        limited: shown(&hard),
    })
}
