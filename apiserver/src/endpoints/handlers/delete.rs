//! DELETE: at once, or by marking the object and waiting for its finalizers and its grace.
//!
//! Upstream: `registry/rest/delete.go` (`BeforeDelete`) and `registry/generic/registry/store.go`.

use async_trait::async_trait;
use bytes::Bytes;
use common::status::{FieldErrors, Status};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::decode::decode;
use super::super::metadata::{self, FOREGROUND, ORPHAN};
use super::super::negotiation;
use super::super::query::{Query, check_dry_run, invalid_options};
use super::super::scope::Scope;
use super::super::{responses, write};
use super::{Written, body, respond_written};
use crate::admission::Operation;
use crate::cacher::{Decision, Outcome, Preconditions, Update};
use crate::object::{Object, metadata_mut, name, resource_version, str_at, uid};
use crate::request::{ApiRequest, Response};

/// `DeleteOptions`.
#[derive(Debug, Clone, Default)]
pub(super) struct DeleteOptions {
    grace_seconds: Option<i64>,
    propagation: Option<String>,
    orphan_dependents: Option<bool>,
    preconditions: Preconditions,
    dry_run: bool,
}

/// What a delete did.
pub(super) enum Deleted {
    /// Gone; its last state.
    Gone(Object),
    /// Marked; it goes when nothing holds it any more.
    Pending(Written),
}

pub(in super::super) async fn serve(scope: &Scope<'_>, request: ApiRequest) -> Result<Response, Status> {
    let (parts, body) = body(request).await?;
    let output = negotiation::output(&parts.headers, true)?;
    let options = DeleteOptions::read(&parts, &body, &scope.ctx.query)?;
    match delete(scope, &scope.name, &options).await? {
        Deleted::Pending(written) => {
            let code = if options.orphan_dependents == Some(false) { 202 } else { 200 };
            respond_written(scope, &parts, output, code, written).await
        }
        Deleted::Gone(object) if scope.def.returns_deleted => {
            respond_written(scope, &parts, output, 200, Written::DryRun(object)).await
        }
        Deleted::Gone(object) => {
            let def = &scope.def;
            let status = Status::success_deleted(&def.group, &def.resource, name(&object), uid(&object));
            responses::object(200, status.to_json().into(), output.encoding, false).await
        }
    }
}

/// Deletes one object.
pub(super) async fn delete(
    scope: &Scope<'_>,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    let store = scope.store()?;
    let mut deleting = Deleting { scope, name, options, last: Value::Null };
    if options.dry_run {
        let current =
            store.get(&scope.namespace, name, None).await.map_err(|status| scope.renamed(status))?.tree();
        return Ok(match deleting.apply(Some(current)).await? {
            Decision::Write { object, .. } => Deleted::Pending(Written::DryRun(object)),
            Decision::Delete => Deleted::Gone(deleting.last),
        });
    }
    // The preconditions are checked by the function itself, in a delete's own words.
    let none = Preconditions::default();
    let (object, outcome) = store
        .guaranteed_update(&scope.namespace, name, &none, false, &mut deleting)
        .await
        .map_err(|status| scope.renamed(status))?;
    Ok(match outcome {
        Outcome::Deleted => {
            let last = object.tree();
            if let Some(hooks) = scope.def.strategy.hooks() {
                hooks.after_delete(&last).await;
            }
            Deleted::Gone(last)
        }
        Outcome::Created | Outcome::Updated | Outcome::Unchanged => Deleted::Pending(Written::Stored(object)),
    })
}

struct Deleting<'s, 'a> {
    scope: &'s Scope<'a>,
    name: &'s str,
    options: &'s DeleteOptions,
    last: Object,
}

#[async_trait]
impl Update for Deleting<'_, '_> {
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
        let scope = self.scope;
        let Some(object) = current else { return Err(scope.not_found()) };
        check(scope, &self.options.preconditions, &object)?;
        let dry_run = self.options.dry_run;
        let chain = &scope.server.admission;
        let mut attributes =
            write::attributes(scope, Operation::Delete, self.name, None, Some(&object), dry_run);
        chain.admit(&mut attributes).await?;
        chain.validate(&attributes).await?;
        let decision = decide(scope.def.strategy.as_ref(), object, self.options, Timestamp::now());
        if let Decided::Delete(object) = decision {
            self.last = object;
            return Ok(Decision::Delete);
        }
        let Decided::Keep(object) = decision else { return Err(scope.not_found()) };
        Ok(Decision::Write { ttl_seconds: scope.def.strategy.ttl_seconds(&object), object })
    }
}

/// A delete's preconditions (`BeforeDelete`); upstream names the kind here, not the resource.
///
/// # Errors
/// 409 when one does not hold.
fn check(scope: &Scope<'_>, wanted: &Preconditions, object: &Object) -> Result<(), Status> {
    let refuse = |why: String| Err(Status::conflict(&scope.def.group, &scope.def.kind, name(object), why));
    let (found_uid, found_version) = (uid(object), resource_version(object));
    match (&wanted.uid, &wanted.resource_version) {
        (Some(wanted), _) if wanted != found_uid => refuse(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({found_uid}). The object \
             might have been deleted and then recreated"
        )),
        (_, Some(wanted)) if wanted != found_version => refuse(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
             ({found_version}). The object might have been modified"
        )),
        _ => Ok(()),
    }
}

enum Decided {
    Delete(Object),
    /// Marked, or already marked and unchanged.
    Keep(Object),
}

/// What a delete makes of an object. Pure.
fn decide(
    strategy: &dyn crate::resources::Strategy,
    mut object: Object,
    options: &DeleteOptions,
    now: Timestamp,
) -> Decided {
    let requested = options.grace_seconds.map(|grace| if grace < 0 { 1 } else { grace });
    let mut graceful = None;
    if metadata::is_deleting(&object) {
        let pending = metadata::deletion_grace(&object).unwrap_or(0);
        let pending = if pending < 0 { 1 } else { pending };
        if pending != 0 {
            match requested {
                Some(grace) if grace < pending => {
                    graceful = Some(shorten(&mut object, pending, grace, now));
                }
                _ => return Decided::Keep(object),
            }
        }
    } else if let Some(grace) = strategy.graceful_delete_seconds(&object, requested) {
        bump_generation(&mut object);
        let metadata = metadata_mut(&mut object);
        let when = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
        metadata.insert("deletionTimestamp".to_owned(), metadata::at(when).into());
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
        graceful = Some(grace);
    }
    let finalizers = collection_finalizers(strategy, &object, options);
    metadata::set_finalizers(&mut object, &finalizers);
    let held = !finalizers.is_empty() || strategy.holds_deletion(&object);
    match graceful {
        Some(grace) if grace > 0 || held => {}
        None if held => mark(&mut object, now),
        Some(_) | None => return Decided::Delete(object),
    }
    strategy.begin_deletion(&mut object);
    Decided::Keep(object)
}

/// A second delete with less grace brings the end nearer, never before now.
fn shorten(object: &mut Object, pending: i64, grace: i64, now: Timestamp) -> i64 {
    let marked: Timestamp = str_at(object, &["metadata", "deletionTimestamp"]).parse().unwrap_or(now);
    let mut when = marked.checked_add(SignedDuration::from_secs(grace - pending)).unwrap_or(now);
    let mut grace = grace;
    if when < now {
        when = now;
        grace = grace.min(1);
    }
    let metadata = metadata_mut(object);
    metadata.insert("deletionTimestamp".to_owned(), metadata::at(when).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    grace
}

/// `markAsDeleting`.
fn mark(object: &mut Object, now: Timestamp) {
    let marked: Option<Timestamp> = str_at(object, &["metadata", "deletionTimestamp"]).parse().ok();
    if marked.is_none() {
        bump_generation(object);
    }
    let metadata = metadata_mut(object);
    if marked.is_none_or(|when| when > now) {
        metadata.insert("deletionTimestamp".to_owned(), metadata::at(now).into());
    }
    metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
}

fn bump_generation(object: &mut Object) {
    let generation = metadata::generation(object);
    if generation > 0 {
        metadata_mut(object).insert("generation".to_owned(), (generation + 1).into());
    }
}

/// The finalizers with the garbage collector's two as the propagation asks.
fn collection_finalizers(
    strategy: &dyn crate::resources::Strategy,
    object: &Object,
    options: &DeleteOptions,
) -> Vec<String> {
    let present = metadata::finalizers(object);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation.as_deref()) {
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some(_)) => (false, false),
        (None, None) => match present.iter().find(|f| **f == ORPHAN || **f == FOREGROUND) {
            Some(finalizer) => (*finalizer == ORPHAN, *finalizer == FOREGROUND),
            None => (strategy.orphans_by_default(), false),
        },
    };
    let mut out: Vec<String> =
        present.iter().filter(|f| **f != ORPHAN && **f != FOREGROUND).map(|f| (*f).to_owned()).collect();
    if orphan {
        out.push(ORPHAN.to_owned());
    }
    if foreground {
        out.push(FOREGROUND.to_owned());
    }
    out
}

impl DeleteOptions {
    /// From the body when there is one, else from the query.
    pub(super) fn read(parts: &http::request::Parts, body: &Bytes, query: &str) -> Result<Self, Status> {
        let mut errors = FieldErrors::new();
        let options = if body.is_empty() {
            Self::from_query(&Query::parse(query), &mut errors)?
        } else {
            let encoding = negotiation::input(&parts.headers)?;
            let tree = decode(body, encoding).map_err(Status::bad_request)?.tree;
            Self::from_tree(&tree, &mut errors)?
        };
        if options.orphan_dependents.is_some()
            && let Some(policy) = &options.propagation
        {
            errors.invalid(
                "propagationPolicy",
                policy,
                "orphanDependents and deletionPropagation cannot be both set",
            );
        }
        if let Some(policy) = &options.propagation
            && !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan")
        {
            errors.not_supported("propagationPolicy", policy, &["Foreground", "Background", "Orphan", "nil"]);
        }
        invalid_options("DeleteOptions", &errors)?;
        Ok(options)
    }

    fn from_query(query: &Query<'_>, errors: &mut FieldErrors) -> Result<Self, Status> {
        let text = |key: &str| (!query.get(key).is_empty()).then(|| query.get(key).to_owned());
        let grace_seconds = match query.get("gracePeriodSeconds") {
            "" => None,
            digits => Some(digits.parse().map_err(|_| {
                Status::bad_request(format!("strconv.ParseInt: parsing \"{digits}\": invalid syntax"))
            })?),
        };
        let dry_run: Vec<&str> = query.all("dryRun").filter(|v| !v.is_empty()).collect();
        Ok(Self {
            grace_seconds,
            propagation: text("propagationPolicy"),
            orphan_dependents: query.has("orphanDependents").then(|| query.flag("orphanDependents")),
            preconditions: Preconditions::default(),
            dry_run: check_dry_run(&dry_run, errors),
        })
    }

    fn from_tree(tree: &Value, errors: &mut FieldErrors) -> Result<Self, Status> {
        let kind = str_at(tree, &["kind"]);
        if !matches!(kind, "" | "DeleteOptions") {
            return Err(Status::bad_request("decoded object cannot be converted to DeleteOptions"));
        }
        let wrong = |field: &str| {
            Status::bad_request(format!("json: cannot unmarshal DeleteOptions: wrong type of {field}"))
        };
        let text = |value: Option<&Value>, field: &str| match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong(field)),
        };
        let grace_seconds = match tree.get("gracePeriodSeconds") {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_i64().ok_or_else(|| wrong("gracePeriodSeconds"))?),
        };
        let orphan_dependents = match tree.get("orphanDependents") {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_bool().ok_or_else(|| wrong("orphanDependents"))?),
        };
        let dry_run: Vec<&str> = tree
            .get("dryRun")
            .and_then(Value::as_array)
            .map(|values| values.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        Ok(Self {
            grace_seconds,
            propagation: text(tree.get("propagationPolicy"), "propagationPolicy")?,
            orphan_dependents,
            preconditions: Preconditions {
                uid: text(tree.pointer("/preconditions/uid"), "preconditions.uid")?,
                resource_version: text(
                    tree.pointer("/preconditions/resourceVersion"),
                    "preconditions.resourceVersion",
                )?,
            },
            dry_run: check_dry_run(&dry_run, errors),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Pods;

    impl crate::resources::Strategy for Pods {
        fn default(&self, _: &mut Object) {}
        fn prepare_for_create(&self, _: &mut Object) {}
        fn validate(&self, _: &Object) -> FieldErrors {
            FieldErrors::new()
        }
        fn prepare_for_update(&self, _: &mut Object, _: &Object) {}
        fn validate_update(&self, _: &Object, _: &Object) -> FieldErrors {
            FieldErrors::new()
        }
        fn graceful_delete_seconds(&self, object: &Object, requested: Option<i64>) -> Option<i64> {
            (!str_at(object, &["spec", "nodeName"]).is_empty()).then(|| requested.unwrap_or(30))
        }
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("time")
    }

    fn pod() -> Object {
        json!({"metadata": {"name": "a", "generation": 1}, "spec": {"nodeName": "n"}})
    }

    fn with_grace(grace_seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_seconds: Some(grace_seconds), ..Default::default() }
    }

    #[test]
    fn grace_marks_and_a_second_delete_shortens() {
        let Decided::Keep(object) = decide(&Pods, pod(), &DeleteOptions::default(), now()) else {
            panic!("grace keeps it")
        };
        assert_eq!(object["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
        assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(object["metadata"]["generation"], 2);

        let Decided::Keep(shorter) = decide(&Pods, object.clone(), &with_grace(5), now()) else {
            panic!("five seconds are left")
        };
        assert_eq!(shorter["metadata"]["deletionTimestamp"], "2026-01-01T00:00:05Z");
        let Decided::Keep(longer) = decide(&Pods, object.clone(), &with_grace(60), now()) else {
            panic!("still marked")
        };
        assert_eq!(longer, object);
        assert!(matches!(decide(&Pods, object, &with_grace(0), now()), Decided::Delete(_)));
    }

    #[test]
    fn finalizers_hold_and_propagation_adds_them() {
        let foreground = DeleteOptions { propagation: Some("Foreground".to_owned()), ..with_grace(0) };
        let Decided::Keep(object) = decide(&Pods, pod(), &foreground, now()) else {
            panic!("a finalizer holds it")
        };
        assert_eq!(object["metadata"]["finalizers"], json!([FOREGROUND]));
        assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], 0);
        let background = DeleteOptions { propagation: Some("Background".to_owned()), ..Default::default() };
        assert!(matches!(decide(&Pods, object, &background, now()), Decided::Delete(_)));
    }
}
