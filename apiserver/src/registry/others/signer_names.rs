//! Names of signers, in the words of every kind that has one.

use common::status::FieldErrors;

use crate::registry::names;

const DOMAIN_BYTES_MAX: usize = 253;
/// A domain, a slash, and a label, a dot and a subdomain.
const NAME_BYTES_MAX: usize = 253 + 1 + (253 + 63 + 1);

/// `example.com/signer-name` (`ValidateSignerName`).
pub fn signer_name(name: &str, path: &str, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, rest] = parts.as_slice() else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.invalid(path, name, detail);
        return;
    };
    if domain.len() > DOMAIN_BYTES_MAX {
        errors.too_long(path, DOMAIN_BYTES_MAX);
    }
    first_bad_label(domain, names::dns1123_label, path, errors);
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    first_bad_label(rest, names::dns1123_subdomain, path, errors);
    if name.len() > NAME_BYTES_MAX {
        errors.too_long(path, NAME_BYTES_MAX);
    }
}

/// One label's errors are enough: those of the next would read the same.
fn first_bad_label(segment: &str, check: fn(&str) -> Vec<String>, path: &str, errors: &mut FieldErrors) {
    let bad =
        segment.split('.').map(|label| (label, check(label))).find(|(_, messages)| !messages.is_empty());
    let Some((label, messages)) = bad else { return };
    for message in messages {
        errors.invalid(path, segment, format!("validating label \"{label}\": {message}"));
    }
}

/// Of the project's own signers, whose certificates live a day at most.
pub fn is_kubernetes(signer: &str) -> bool {
    let host = signer.split('/').next().unwrap_or("");
    host == "kubernetes.io" || host.ends_with(".kubernetes.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_have_a_domain_and_a_name() {
        let found = |name: &str| {
            let mut errors = FieldErrors::new();
            signer_name(name, "s", &mut errors);
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found("example.com/a.b-c"), [""; 0]);
        assert_eq!(found(""), ["s: Required value"]);
        assert_eq!(
            found("a/b/c"),
            [
                "s: Invalid value: \"a/b/c\": must be a fully qualified domain and path of the form 'example.com/signer-name'"
            ]
        );
        assert_eq!(
            found("local/A.B"),
            [
                "s: Invalid value: \"local\": should be a domain with at least two segments separated by dots".to_owned(),
                format!("s: Invalid value: \"A.B\": validating label \"A\": {}", names::SUBDOMAIN_MESSAGE),
            ]
        );
        assert!(is_kubernetes("x.kubernetes.io/y") && !is_kubernetes("notkubernetes.io/y"));
    }
}
