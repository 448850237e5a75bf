//! Names of attributes, capacities and pools.

use common::status::FieldErrors;

use crate::registry::checks::At;
use crate::registry::names;

const POOL_NAME_MAX: usize = 253;

/// `domain/name`.
pub(super) fn fully_qualified(owner: &At<'_>, key: &str, errors: &mut FieldErrors) {
    let name = owner.text(key);
    for message in qualified(name) {
        errors.invalid(owner.under(key), name, message);
    }
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        owner.invalid(key, detail, errors);
    }
}

/// `[domain/]name`, the name as C has it.
pub(super) fn qualified(name: &str) -> Vec<String> {
    let (domain, id) = name.split_once('/').map_or((None, name), |(domain, id)| (Some(domain), id));
    let mut out = Vec::new();
    match domain {
        Some("") => out.push("the domain must not be empty".to_owned()),
        Some(domain) => out.extend(names::dns1123_subdomain(&domain.to_lowercase())),
        None => {}
    }
    let mut bytes = id.bytes();
    let fits = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if id.is_empty() && domain.is_some() {
        out.push("the name must not be empty".to_owned());
    } else if !fits {
        out.push("a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')".to_owned());
    }
    out
}

pub(super) fn pool_name(owner: &At<'_>, key: &str, errors: &mut FieldErrors) {
    if !owner.required_text(key, errors) {
        return;
    }
    let name = owner.text(key);
    if name.len() > POOL_NAME_MAX {
        errors.too_long(owner.under(key), POOL_NAME_MAX);
    }
    for part in name.split('/') {
        for message in names::dns1123_subdomain(part) {
            errors.invalid(owner.under(key), part, message);
        }
    }
}
