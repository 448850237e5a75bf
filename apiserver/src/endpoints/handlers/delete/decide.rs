//! What a delete makes of an object. Pure.

use jiff::{SignedDuration, Timestamp};

use super::super::super::metadata::{self, FOREGROUND, ORPHAN};
use super::DeleteOptions;
use crate::object::{Object, metadata_mut, str_at};
use crate::resources::Strategy;

pub(super) enum Decided {
    Delete(Object),
    /// Marked, or already marked and unchanged.
    Keep(Object),
}

fn positive(grace: i64) -> i64 {
    if grace < 0 { 1 } else { grace }
}

/// The grace that a deleted object still has.
fn pending_grace(object: &Object) -> i64 {
    positive(metadata::deletion_grace(object).unwrap_or(0))
}

/// The object is deleted already, and this delete brings its end no nearer: it changes nothing.
pub(super) fn is_pending(strategy: &dyn Strategy, object: &Object, options: &DeleteOptions) -> bool {
    if !metadata::is_deleting(object) {
        return false;
    }
    let pending = pending_grace(object);
    let sooner = options.grace_seconds.is_some_and(|grace| positive(grace) < pending);
    strategy.holds_deletion(object) || (pending != 0 && !sooner)
}

/// What a delete makes of an object.
pub(super) fn decide(
    strategy: &dyn Strategy,
    mut object: Object,
    options: &DeleteOptions,
    now: Timestamp,
) -> Decided {
    if is_pending(strategy, &object, options) {
        return Decided::Keep(object);
    }
    let requested = options.grace_seconds.map(positive);
    let mut graceful = None;
    if metadata::is_deleting(&object) {
        if let (pending @ 1.., Some(grace)) = (pending_grace(&object), requested) {
            graceful = Some(shorten(&mut object, pending, grace, now));
        }
    } else if let Some(grace) = strategy.graceful_delete_seconds(&object, requested) {
        bump_generation(&mut object);
        let metadata = metadata_mut(&mut object);
        let when = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
        metadata.insert("deletionTimestamp".to_owned(), metadata::at(when).into());
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
        graceful = Some(grace);
    }
    if strategy.is_collected() {
        let finalizers = collection_finalizers(strategy, &object, options);
        metadata::set_finalizers(&mut object, &finalizers);
    }
    // A namespace, which is marked without a grace.
    let holds = strategy.holds_deletion(&object);
    let held = !metadata::finalizers(&object).is_empty() || holds;
    match graceful {
        Some(grace) if grace > 0 || held => {}
        None if held => {
            mark(&mut object, now);
            if holds {
                metadata_mut(&mut object).remove("deletionGracePeriodSeconds");
            }
        }
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
fn collection_finalizers(strategy: &dyn Strategy, object: &Object, options: &DeleteOptions) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use common::status::FieldErrors;
    use serde_json::json;

    use super::*;

    struct Pods;

    impl Strategy for Pods {
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

    /// What the garbage collector does not look at.
    struct Events;

    impl Strategy for Events {
        fn default(&self, _: &mut Object) {}
        fn prepare_for_create(&self, _: &mut Object) {}
        fn validate(&self, _: &Object) -> FieldErrors {
            FieldErrors::new()
        }
        fn prepare_for_update(&self, _: &mut Object, _: &Object) {}
        fn validate_update(&self, _: &Object, _: &Object) -> FieldErrors {
            FieldErrors::new()
        }
        fn is_collected(&self) -> bool {
            false
        }
    }

    #[test]
    fn what_is_not_collected_waits_for_no_collector() {
        for propagation in ["Orphan", "Foreground"] {
            let options = DeleteOptions { propagation: Some(propagation.to_owned()), ..Default::default() };
            let event = json!({"metadata": {"name": "a"}});
            assert!(matches!(decide(&Events, event, &options, now()), Decided::Delete(_)), "{propagation}");
        }
        let held = json!({"metadata": {"name": "a", "finalizers": ["example.com/x"]}});
        let Decided::Keep(held) = decide(&Events, held, &DeleteOptions::default(), now()) else {
            panic!("a finalizer holds it")
        };
        assert_eq!(held["metadata"]["finalizers"], json!(["example.com/x"]));
    }

    /// What something beside finalizers and grace keeps.
    struct Namespaces;

    impl Strategy for Namespaces {
        fn default(&self, _: &mut Object) {}
        fn prepare_for_create(&self, _: &mut Object) {}
        fn validate(&self, _: &Object) -> FieldErrors {
            FieldErrors::new()
        }
        fn prepare_for_update(&self, _: &mut Object, _: &Object) {}
        fn validate_update(&self, _: &Object, _: &Object) -> FieldErrors {
            FieldErrors::new()
        }
        fn holds_deletion(&self, object: &Object) -> bool {
            object.pointer("/spec/finalizers").is_some()
        }
    }

    #[test]
    fn what_holds_itself_is_marked_once_and_without_grace() {
        let namespace = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
        let Decided::Keep(marked) = decide(&Namespaces, namespace, &DeleteOptions::default(), now()) else {
            panic!("it holds itself")
        };
        assert_eq!(marked["metadata"], json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let orphan = DeleteOptions { propagation: Some("Orphan".to_owned()), ..Default::default() };
        let Decided::Keep(again) = decide(&Namespaces, marked.clone(), &orphan, now()) else {
            panic!("it still holds itself")
        };
        assert_eq!(again, marked);
    }

    #[test]
    fn a_negative_grace_is_a_second() {
        let Decided::Keep(object) = decide(&Pods, pod(), &with_grace(-7), now()) else {
            panic!("grace keeps it")
        };
        assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], 1);
    }

    #[test]
    fn grace_that_is_over_is_not_shortened_into_the_past() {
        let marked = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:10Z",
            "deletionGracePeriodSeconds": 30}, "spec": {"nodeName": "n"}});
        let Decided::Keep(object) = decide(&Pods, marked.clone(), &with_grace(5), now()) else {
            panic!("a second is left")
        };
        assert_eq!(object["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], 1);
        assert!(matches!(decide(&Pods, marked, &with_grace(0), now()), Decided::Delete(_)));
    }
}
