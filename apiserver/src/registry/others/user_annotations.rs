//! Annotations that users pass on to signers.

use common::status::FieldErrors;

use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::tree::entries;

const BYTES_MAX: usize = 256 * 1024;

/// Keys with a domain, small enough together (`ValidateUserAnnotations`).
pub fn user_annotations(owner: &At<'_>, field: &str, errors: &mut FieldErrors) {
    let path = owner.under(field);
    let mut bytes = 0;
    for (key, value) in entries(owner.value, field) {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        let key = key.to_lowercase();
        let messages = names::qualified_name(&key);
        if key.is_empty() {
            errors.required(&path, "");
        } else if messages.is_empty() && !key.contains('/') {
            errors.invalid(&path, &key, "must be a domain-prefixed key (such as \"acme.io/foo\")");
        } else {
            messages.into_iter().for_each(|message| errors.invalid(&path, &key, message));
        }
    }
    if bytes > BYTES_MAX {
        errors.too_long(path, BYTES_MAX);
    }
}
