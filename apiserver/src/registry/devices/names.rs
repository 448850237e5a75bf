//! Names of attributes, capacities and pools.

use common::status::FieldErrors;

use crate::registry::checks::At;
use crate::registry::names;

const POOL_NAME_MAX: usize = 253;
const DOMAIN_BYTES_MAX: usize = 63;
const ID_BYTES_MAX: usize = 32;
const ELLIPSIS: &str = "...";

/// `domain/name`.
pub(super) fn fully_qualified(owner: &At<'_>, key: &str, errors: &mut FieldErrors) {
    let name = owner.text(key);
    qualified(name, &owner.under(key), errors);
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        owner.invalid(key, detail, errors);
    }
}

/// `[domain/]name`, the domain a driver's name and the name as C has it. As upstream, a name with more slashes
/// passes unread.
pub(super) fn qualified(name: &str, path: &str, errors: &mut FieldErrors) {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [id] => identifier(id, path, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.invalid(path, "", "the domain must not be empty");
            } else {
                if domain.len() > DOMAIN_BYTES_MAX {
                    errors.too_long(path, DOMAIN_BYTES_MAX);
                }
                for message in names::dns1123_subdomain(&domain.to_lowercase()) {
                    errors.invalid(path, domain, message);
                }
            }
            if id.is_empty() {
                errors.invalid(path, "", "the name must not be empty");
            } else {
                identifier(id, path, errors);
            }
        }
        _ => {}
    }
}

fn identifier(id: &str, path: &str, errors: &mut FieldErrors) {
    if id.len() > ID_BYTES_MAX {
        errors.too_long(path, ID_BYTES_MAX);
    }
    let mut bytes = id.bytes();
    let fits = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !fits {
        errors.invalid(path, id, "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')");
    }
}

/// The path of an entry of a map; a name longer than any valid one is shown without its middle.
pub(super) fn entry(path: &str, name: &str) -> String {
    const SHOWN_MAX: usize = DOMAIN_BYTES_MAX + 1 + ID_BYTES_MAX;
    if name.len() <= SHOWN_MAX {
        return format!("{path}[{name}]");
    }
    let kept = SHOWN_MAX - ELLIPSIS.len();
    let head = name.floor_char_boundary(kept.div_ceil(2));
    let tail = name.ceil_char_boundary(name.len() - kept / 2);
    format!("{path}[{}{ELLIPSIS}{}]", &name[..head], &name[tail..])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_domain_and_an_identifier() {
        let found = |name: &str| {
            let mut errors = FieldErrors::new();
            qualified(name, "x", &mut errors);
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for name in ["a", "_b", "Dra.Example.com/memory", "a/b/c"] {
            assert_eq!(found(name), [""; 0], "{name}");
        }
        assert_eq!(
            found("/"),
            [
                "x: Invalid value: \"\": the domain must not be empty",
                "x: Invalid value: \"\": the name must not be empty"
            ]
        );
        assert_eq!(found(&"a".repeat(33)), ["x: Too long: may not be more than 32 bytes"]);
        assert!(found("1a")[0].starts_with("x: Invalid value: \"1a\": a valid C identifier must start"));
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(entry("m", "ab"), "m[ab]");
        let shown = entry("m", &format!("{}{}", "a".repeat(80), "z".repeat(80)));
        assert_eq!(shown, format!("m[{}...{}]", "a".repeat(47), "z".repeat(46)));
    }
}
