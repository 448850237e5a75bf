//! The names of a claim's requests, and references to them.

use std::collections::BTreeMap;

use common::status::FieldErrors;

use super::lists::within;
use crate::registry::checks::At;
use crate::registry::names;

pub(super) const REQUESTS_MAX: usize = 32;

/// Requests with the names of their alternatives.
pub(super) struct RequestNames<'a>(BTreeMap<&'a str, Vec<&'a str>>);

impl<'a> RequestNames<'a> {
    /// Of `spec.devices`.
    pub(super) fn of(devices: &At<'a>) -> Self {
        let names = devices.each("requests").into_iter().map(|request| {
            let alternatives = request.each("firstAvailable");
            (request.text("name"), alternatives.iter().map(|one| one.text("name")).collect())
        });
        Self(names.collect())
    }

    /// `request` or `request/alternative`.
    pub(super) fn check(&self, reference: &str, path: &str, errors: &mut FieldErrors) {
        const UNKNOWN: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let parts: Vec<&str> = reference.split('/').collect();
        let known = match parts.as_slice() {
            [request] => self.0.contains_key(request),
            [request, alternative] => self.0.get(request).is_some_and(|all| all.contains(alternative)),
            _ => return errors.invalid(path, reference, UNKNOWN),
        };
        for part in parts {
            for message in names::dns1123_label(part) {
                errors.invalid(path, part, message);
            }
        }
        if !known {
            errors.invalid(path, reference, UNKNOWN);
        }
    }

    /// The references of `owner.requests`, a set.
    pub(super) fn check_all(&self, owner: &At<'_>, errors: &mut FieldErrors) {
        if !within(owner, "requests", REQUESTS_MAX, errors) {
            return;
        }
        let references = owner.strings("requests");
        let path = |i: usize| format!("{}[{i}]", owner.under("requests"));
        for (i, reference) in references.iter().enumerate() {
            self.check(reference, &path(i), errors);
        }
        for (i, reference) in references.iter().enumerate() {
            if references[..i].contains(reference) {
                errors.duplicate(path(i), reference);
            }
        }
    }
}
