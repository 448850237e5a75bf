//! Lists with a limit, and lists that are sets.

use common::status::FieldErrors;

use crate::registry::checks::At;
use crate::registry::tree::items;

/// The list is not too long; its items are looked at only then.
pub(super) fn within(owner: &At<'_>, key: &str, most: usize, errors: &mut FieldErrors) -> bool {
    let count = items(owner.value, key).len();
    if count > most {
        errors.too_many(owner.under(key), count, most);
    }
    count <= most
}

/// No two items of one name.
pub(super) fn distinct(list: &[At<'_>], key: &str, errors: &mut FieldErrors) {
    for (i, item) in list.iter().enumerate() {
        let name = item.text(key);
        if list[..i].iter().any(|other| other.text(key) == name) {
            errors.duplicate(&item.path, name);
        }
    }
}
